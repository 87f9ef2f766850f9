// SPDX-License-Identifier: GPL-2.0
/*
 * What there is in the kernel: all SAs and policies, as ip -s xfrm lists them, and
 * what /proc/net/minesp adds.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>
#include "minesp.h"

/* Makes an array one element longer, and returns that element. */
static void *grow(void *arrayp, size_t *n, size_t size)
{
	char *array = reallocarray(*(void **)arrayp, *n + 1, size);

	if (!array)
		die("no memory");
	*(void **)arrayp = array;
	return memset(array + size * (*n)++, 0, size);
}

static int compare(const void *a, const void *b)
{
	const struct sa *one = a, *two = b;

	if (one->spi != two->spi)
		return one->spi < two->spi ? -1 : 1;
	return strcmp(one->dst, two->dst);
}

static struct sa *find(const struct state *s, uint32_t spi, const char *dst)
{
	struct sa key = { .spi = spi };

	strcpy(key.dst, dst);
	return s->n_sas ? bsearch(&key, s->sas, s->n_sas, sizeof(key), compare) : NULL;
}

static FILE *start(const char *command)
{
	FILE *f = popen(command, "re");

	if (!f)
		die("%s: %s", command, strerror(errno));
	return f;
}

static void list_sas(struct state *s)
{
	FILE *f = start("exec ip -s xfrm state list nokeys");
	char dst[INET6_ADDRSTRLEN], line[512];
	uint32_t spi, reqid;
	struct sa *sa = NULL;

	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "src %*s dst %45s", dst) == 1) {
			sa = NULL;
		} else if (sscanf(line, " proto esp spi 0x%" SCNx32 "(%*u) reqid %" SCNu32,
				  &spi, &reqid) == 2) {
			sa = grow(&s->sas, &s->n_sas, sizeof(*sa));
			strcpy(sa->dst, dst);
			sa->spi = spi;
			sa->reqid = reqid;
		} else if (sa) {
			sscanf(line, " %*u(bytes), %" SCNu64 "(packets)", &sa->packets);
			sscanf(line, " replay-window %*u replay %" SCNu64 " failed %" SCNu64,
			       &sa->replays, &sa->failed);
		}
	}
	if (pclose(f))
		die("cannot list SAs: try ip -s xfrm state, as root");
	if (s->n_sas)
		qsort(s->sas, s->n_sas, sizeof(*s->sas), compare);
}

/* Says of each SA that is minimal what minesp knows of it. */
static void list_minimal(struct state *s)
{
	FILE *f = fopen("/proc/net/minesp", "re");
	char line[512], direct[8], how[16], fresh[8];
	struct sa new, *sa;
	int end;

	if (f && fgets(line, sizeof(line), f) && !strstr(line, " tick-us "))
		die("/proc/net/minesp: this program and the module differ in their versions");
	while (f && fgets(line, sizeof(line), f)) {
		new.tick = 0;
		new.epoch = 0;
		new.ahead = 0;
		if (sscanf(line, "0x%" SCNx32 " %*s %7s %15s %" SCNu64 " %" SCNu64
			   " %*s %7s %n", &new.spi, direct, how, &new.sent, &new.received,
			   fresh, &end) != 6 ||
		    sscanf(line + end, "%*s %*s %*s %*s %*s %45s %63s", new.dst,
			   new.suite) != 2)
			continue;
		/* Each of them is - where there are none. */
		sscanf(line + end, "%u %u %u", &new.tick, &new.epoch, &new.ahead);
		sa = find(s, new.spi, new.dst);
		if (!sa)
			continue;
		sa->minimal = true;
		sa->direct = !strcmp(direct, "yes");
		sa->clock = !strcmp(how, "clock");
		sa->fresh = !strcmp(fresh, "yes");
		sa->tick = new.tick;
		sa->epoch = new.epoch;
		sa->ahead = new.ahead;
		sa->sent = new.sent;
		sa->received = new.received;
		strcpy(sa->suite, new.suite);
	}
	if ((!f && module_loaded()) || (f && ferror(f)))
		die("/proc/net/minesp: %s; only root may read it", strerror(errno));
	if (f)
		fclose(f);
}

/* Reads all SAs, anew. Everything in s is 0 before it is first read. */
void state_sas(struct state *s)
{
	free(s->sas);
	s->sas = NULL;
	s->n_sas = 0;
	list_sas(s);
	list_minimal(s);
}

/* Reads all policies, anew. */
void state_policies(struct state *s)
{
	FILE *f = start("exec ip xfrm policy list nosock");
	char selector[200] = "", line[512], dir[4];
	struct policy *p = NULL;
	const char *priority;

	free(s->policies);
	s->policies = NULL;
	s->n_policies = 0;
	while (fgets(line, sizeof(line), f)) {
		if (!strncmp(line, "src ", 4)) {
			/* None of ours is longer. */
			snprintf(selector, sizeof(selector), "%.*s", (int)strcspn(line, "\n"),
				 line);
		} else if (sscanf(line, " dir %3s", dir) == 1) {
			p = grow(&s->policies, &s->n_policies, sizeof(*p));
			snprintf(p->name, sizeof(p->name), "%sdir %s", selector, dir);
			priority = strstr(line, "priority ");
			if (priority)
				p->priority = strtoul(priority + 9, NULL, 10);
		} else if (p) {
			sscanf(line, " proto esp reqid %" SCNu32, &p->reqid);
		}
	}
	if (pclose(f))
		die("cannot list policies: try ip xfrm policy, as root");
}

/* An SA of a link, if it is there and minimal */
struct sa *state_find(const struct state *s, const struct conf *conf, int g, int dir)
{
	struct sa *sa = find(s, conf->keys[g].half[dir].spi, conf_dst(conf, dir));

	return sa && sa->minimal ? sa : NULL;
}

bool policy_is_of(const struct policy *p, const struct conf *conf)
{
	return (p->reqid ?: p->priority) == conf_reqid(conf);
}

/* How many policies of a link there are that ask for ESP */
unsigned int policies_there(const struct state *s, const struct conf *conf)
{
	unsigned int n = 0;
	size_t i;

	for (i = 0; i < s->n_policies; i++)
		n += s->policies[i].reqid == conf_reqid(conf);
	return n;
}

bool module_loaded(void)
{
	return !access("/proc/net/minesp_stat", F_OK);
}

/* Does another gateway send in place of this one? See failover.rst. */
bool stands_by(void)
{
	char line[16];

	return read_line("/proc/sys/net/minesp/sn_active", line, sizeof(line)) &&
	       line[0] == '0';
}

/* Has NTP, PTP or the like set the clock? */
bool time_known(void)
{
	struct timex t = { 0 };

	return adjtimex(&t) != -1 && !(t.status & STA_UNSYNC);
}

/* The SN of the clock, some seconds ago */
uint64_t ticks(unsigned int epoch, unsigned int tick, unsigned int ago)
{
	struct timespec now;
	int64_t us;

	clock_gettime(CLOCK_REALTIME, &now);
	us = (now.tv_sec - (int64_t)epoch - ago) * 1000000 + now.tv_nsec / 1000;
	return us > 0 ? us / tick : 0;
}
