// SPDX-License-Identifier: GPL-2.0
/*
 * The state of the kernel: all SAs and policies, as ip -s xfrm lists them, and the
 * module's data from /proc/net/minesp.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>
#include "minesp.h"

/* Appends an element to an array, sets it to 0, and returns it. */
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

static void list_sas(struct state *s)
{
	FILE *f = ip_open((char *[]){ "ip", "-s", "xfrm", "state", "list", "nokeys", NULL }, "r");
	char dst[INET6_ADDRSTRLEN], line[512];
	uint32_t spi, reqid;
	struct sa *sa = NULL;

	while (f && fgets(line, sizeof(line), f)) {
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
	if (!ip_close(f))
		die("cannot list SAs: run minesp as root, and see what ip -s xfrm state says");
	if (s->n_sas)
		qsort(s->sas, s->n_sas, sizeof(*s->sas), compare);
}

/* Adds the module's data about each minimal SA. */
static void list_minimal(struct state *s)
{
	char line[512], direct[8], how[16], fresh[8], dst[INET6_ADDRSTRLEN], suite[64];
	FILE *f = fopen("/proc/net/minesp", "re");
	uint64_t sent, received;
	struct sa *sa;
	uint32_t spi;
	int rest;

	while (f && fgets(line, sizeof(line), f)) {
		if (!strncmp(line, "SPI ", 4) && !strstr(line, " tick-us "))
			die("/proc/net/minesp: this program and the module are of different versions: install both from one source");
		if (sscanf(line, "0x%" SCNx32 " %*s %7s %15s %" SCNu64 " %" SCNu64
			   " %*s %7s %n", &spi, direct, how, &sent, &received, fresh,
			   &rest) != 6 ||
		    sscanf(line + rest, "%*s %*s %*s %*s %*s %45s %63s", dst, suite) != 2)
			continue;
		sa = find(s, spi, dst);
		if (!sa)
			continue;
		sa->minimal = true;
		sa->direct = !strcmp(direct, "yes");
		sa->clock = !strcmp(how, "clock");
		sa->fresh = !strcmp(fresh, "yes");
		sa->sent = sent;
		sa->received = received;
		strcpy(sa->suite, suite);
		/* If the SA has neither clock nor freshness, each of these is "-". */
		sscanf(line + rest, "%u %u %u", &sa->tick, &sa->epoch, &sa->ahead);
	}
	if ((!f && module_loaded()) || (f && ferror(f)))
		die("/proc/net/minesp: %s; only root may read it", strerror(errno));
	if (f)
		fclose(f);
}

/* Reads all SAs. The caller must set s to 0 before the first call. */
void state_sas(struct state *s)
{
	free(s->sas);
	s->sas = NULL;
	s->n_sas = 0;
	list_sas(s);
	list_minimal(s);
}

/* Likewise for all policies */
void state_policies(struct state *s)
{
	FILE *f = ip_open((char *[]){ "ip", "xfrm", "policy", "list", "nosock", NULL }, "r");
	char selector[200] = "", line[512], dir[4];
	struct policy *p = NULL;
	const char *priority;

	free(s->policies);
	s->policies = NULL;
	s->n_policies = 0;
	while (f && fgets(line, sizeof(line), f)) {
		if (!strncmp(line, "src ", 4)) {
			/* No selector of minesp is longer. */
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
	if (!ip_close(f))
		die("cannot list policies: run minesp as root, and see what ip xfrm policy says");
}

/* Returns an SA of a link if it exists and is minimal, or NULL. */
struct sa *state_find(const struct state *s, const struct conf *conf, int g, int dir)
{
	struct sa *sa = find(s, conf->keys[g].half[dir].spi, conf->ends.src[!dir]);

	return sa && sa->minimal ? sa : NULL;
}

bool policy_is_of(const struct policy *p, const struct conf *conf)
{
	return (p->reqid ?: p->priority) == conf_reqid(conf);
}

/* Returns how many policies of a link require ESP. */
unsigned int policies_there(const struct state *s, const struct conf *conf)
{
	const struct policy *p;
	unsigned int n = 0;

	for (p = s->policies; p < s->policies + s->n_policies; p++)
		n += p->reqid == conf_reqid(conf);
	return n;
}

bool module_loaded(void)
{
	return !access("/proc/net/minesp_stat", F_OK);
}

/* Whether another gateway sends instead of this one: see failover.rst */
bool stands_by(void)
{
	char line[16];

	return read_line(SYSCTLS "sn_active", line, sizeof(line)) &&
	       line[0] == '0';
}

/* Whether NTP, PTP or the like has set the clock */
bool time_known(void)
{
	struct timex t = { 0 };

	return adjtimex(&t) != -1 && !(t.status & STA_UNSYNC);
}

/* The SN that the clock had some seconds ago */
uint64_t ticks(unsigned int epoch, unsigned int tick, unsigned int ago)
{
	struct timespec now;
	int64_t us;

	clock_gettime(CLOCK_REALTIME, &now);
	us = (now.tv_sec - (int64_t)epoch - ago) * 1000000 + now.tv_nsec / 1000;
	return us > 0 ? us / tick : 0;
}
