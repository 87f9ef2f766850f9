// SPDX-License-Identifier: GPL-2.0
/*
 * Sends from one network namespace to another, and prints the cost in nanoseconds. These
 * are instructions if QEMU's clock counts instructions.
 *
 * usage: traffic out|both|tcp FROM TO ADDRESS SIZE COUNT
 *
 * out: UDP without a receiver, per packet. both: UDP until all packets have arrived, per
 * packet. tcp: a stream, per KiB. Also prints the number of lost packets.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <linux/sock_diag.h>
#include <netdb.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "mark.h"

#define PORT "9"
#define WARMUP 100
#define PATIENCE 10000

static char buf[1 << 16];

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* Puts functions that only return at the addresses that count.c watches. */
static void make_marks(void)
{
	char *page = mmap((void *)MARK_BEGIN, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	if (page == MAP_FAILED)
		err(1, "mmap");
	page[0] = page[MARK_END - MARK_BEGIN] = 0xc3;
}

static void mark(long address)
{
	((void (*)(void))address)();
}

/* Opens a socket in a namespace: connects it for a sender, binds it for a receiver. */
static int open_socket(const char *netns, const char *address, int type, int receiver)
{
	struct addrinfo hints = { .ai_socktype = type, .ai_flags = AI_NUMERICHOST }, *to;
	int fd = open(netns, O_RDONLY), one = 1;

	if (fd < 0 || setns(fd, CLONE_NEWNET))
		err(1, "%s", netns);
	close(fd);
	if (getaddrinfo(address, PORT, &hints, &to))
		errx(1, "%s is no address", address);
	fd = socket(to->ai_family, type, 0);
	/* No process reads the datagrams; most of them are dropped and counted. */
	if (receiver && type == SOCK_DGRAM)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if ((receiver ? bind : connect)(fd, to->ai_addr, to->ai_addrlen) ||
	    (receiver && type == SOCK_STREAM && listen(fd, 1)))
		err(1, "%s", address);
	freeaddrinfo(to);
	return fd;
}

static int dropped(int fd)
{
	unsigned int info[SK_MEMINFO_VARS];
	socklen_t len = sizeof(info);

	if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &len))
		err(1, "SO_MEMINFO");
	return info[SK_MEMINFO_DROPS];
}

static void send_all(int fd, int size, int count)
{
	while (count--)
		if (send(fd, buf, size, 0) != size)
			err(1, "send");
}

/* Missing packets may be queued for another task, so udp() yields the CPU. */
static void udp(int to, int from, int size, int count)
{
	int before, seen = 0, got = 0, idle = 0;
	long long begin, end;

	send_all(from, size, WARMUP);
	usleep(100000);
	before = to < 0 ? 0 : dropped(to);
	mark(MARK_BEGIN);
	begin = now();
	send_all(from, size, count);
	end = now();
	while (to >= 0 && got < count && idle++ < PATIENCE) {
		got = dropped(to) - before;
		if (got != seen) {
			end = now();
			seen = got;
			idle = 0;
		}
		if (got < count)
			sched_yield();
	}
	mark(MARK_END);
	printf("%lld %d\n", (end - begin) / count, to < 0 ? 0 : count - got);
}

/*
 * The receiver runs only while the sender waits. Otherwise the number of turns would be
 * random, and each turn costs ACKs.
 */
static void tcp(int to, int from, int size, int count)
{
	long long begin, end;

	if (!fork()) {
		sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){ 0 });
		to = accept(to, NULL, NULL);
		while (recv(to, buf, sizeof(buf), 0) > 0)
			;
		_exit(0);
	}
	mark(MARK_BEGIN);
	begin = now();
	send_all(from, size, count);
	shutdown(from, SHUT_WR);
	if (recv(from, buf, 1, 0))
		err(1, "recv");
	end = now();
	mark(MARK_END);
	printf("%lld 0\n", (end - begin) * 1024 / size / count);
}

int main(int argc, char **argv)
{
	int type, to = -1, from;

	if (argc != 7)
		errx(1, "usage: traffic out|both|tcp FROM TO ADDRESS SIZE COUNT");
	make_marks();
	type = strcmp(argv[1], "tcp") ? SOCK_DGRAM : SOCK_STREAM;
	if (strcmp(argv[1], "out"))
		to = open_socket(argv[3], argv[4], type, 1);
	from = open_socket(argv[2], argv[4], type, 0);
	(type == SOCK_DGRAM ? udp : tcp)(to, from, atoi(argv[5]), atoi(argv[6]));
	return 0;
}
