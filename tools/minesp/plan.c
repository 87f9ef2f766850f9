// SPDX-License-Identifier: GPL-2.0
/*
 * Chooses tick, run-ahead, window and ESN for SNs from the clock: see
 * Documentation/clock.rst.
 */
#include <stdlib.h>
#include <time.h>
#include "minesp.h"

#define YEAR_US		31556952e6
#define TICK_MAX	1000000
#define AHEAD_MAX	1000000

/*
 * A token bucket that is filled only as fast as it is used never fills up again after a
 * burst. So the plan fills it ten times as fast, or at least twice as fast.
 */
#define HEADROOM	10
#define HEADROOM_MIN	2

/* Parses a number of packets per second, minute or hour. */
static bool parse_rate(const char *text, double *rate)
{
	char *unit;

	*rate = strtod(text, &unit);
	if (unit == text)
		return false;
	if (!strcmp(unit, "/min"))
		*rate /= 60;
	else if (!strcmp(unit, "/h"))
		*rate /= 3600;
	else if (*unit && strcmp(unit, "/s"))
		return false;
	return *rate > 0 && *rate < 1e9;
}

/* Handles an option of PLAN_OPTIONS. Returns false if it is another option. */
bool plan_option(struct plan *plan, int option, const char *value)
{
	char *end;

	switch (option) {
	case 'R':
		if (!parse_rate(value, &plan->rate))
			die("--rate %s: not a rate; say 10 or 10/s for packets a second, 3/min or 1/h",
			    safe(value));
		return true;
	case 'N':
		if (!parse_number(value, 1, AHEAD_MAX, &plan->burst))
			die("--burst %s: not a number of packets from 1 to %d",
			    safe(value), AHEAD_MAX);
		return true;
	case 'Y':
		plan->years = strtod(value, &end);
		if (end == value || *end || !(plan->years > 0 && plan->years <= 100))
			die("--years %s: not a number of years up to 100", safe(value));
		return true;
	}
	return false;
}

/* The next of the ticks 1, 2, 5, 10, 20, 50 and so on, which are easy to work with */
static unsigned int next_tick(unsigned int tick)
{
	unsigned int unit = 1;

	while (tick / unit >= 10)
		unit *= 10;
	return tick / unit == 2 ? 5 * unit : 2 * tick;
}

void plan_make(struct plan *plan)
{
	double longest = 1e6 / plan->rate / HEADROOM;
	double shortest = plan->years * YEAR_US / SN_LAST;
	unsigned int tick;

	if (plan->rate > 1e6 / HEADROOM_MIN)
		die("--rate: SNs from the clock allow up to %.0f packets/s; use IKE, or --counter and new keys at each boot",
		    1e6 / HEADROOM_MIN);
	/*
	 * Take the shortest tick with which the keys last long enough. If it is too
	 * slow, take ESN, and the longest tick that is fast enough.
	 */
	for (tick = 1; tick < shortest && tick < TICK_MAX; )
		tick = next_tick(tick);
	plan->esn = tick < shortest || tick > longest;
	if (plan->esn)
		for (tick = 1; tick < TICK_MAX && next_tick(tick) <= longest; )
			tick = next_tick(tick);
	plan->tick = tick;
	plan->ahead = plan->burst;
	/* The replay window allows 100 ms of reordering, or the maximum of xfrm. */
	for (plan->window = 32; plan->window < 4096 && plan->window * tick < 100000; )
		plan->window *= 2;
}

void plan_print(FILE *to, const struct plan *plan)
{
	double tick = plan->tick / 1e6;

	fprintf(to, "tick      %-10s %.6g packets/s on average at most\n",
		duration(tick), 1 / tick);
	fprintf(to, "ahead     %-10u packets at once at most; as many again after %s\n",
		plan->ahead, duration(tick * plan->ahead));
	fprintf(to, "ESN       %-10s ", plan->esn ? "yes" : "no");
	if (plan->esn)
		fprintf(to, "the peer must receive a packet every %s\n",
			duration(tick * SN_LAST));
	else
		fprintf(to, "keys made now end on %s, after %s\n",
			date(time(NULL) + (uint64_t)(tick * SN_LAST)),
			duration(tick * SN_LAST));
	fprintf(to, "window    %-10u the peer's; accepts packets up to %s late\n",
		plan->window, duration(tick * plan->window));
}

int cmd_plan(int argc, char **argv)
{
	static const struct option options[] = { PLAN_OPTIONS, { 0 } };
	struct plan plan = PLAN_DEFAULT;
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (!plan_option(&plan, o, optarg))
			usage();
	if (optind != argc)
		usage();
	plan_make(&plan);
	plan_print(stdout, &plan);
	return 0;
}
