// SPDX-License-Identifier: GPL-2.0
/*
 * minesp check: prints the problems of a link.
 */
#include <stdarg.h>
#include <time.h>
#include "minesp.h"

#define MONTH	(30 * 86400)

static __attribute__((format(printf, 3, 4)))
void tell(FILE *to, unsigned int *n, const char *fmt, ...)
{
	va_list args;

	(*n)++;
	if (!to)
		return;
	fputs("  PROBLEM: ", to);
	va_start(args, fmt);
	vfprintf(to, fmt, args);
	va_end(args);
	fputc('\n', to);
}

/* Prints the problems of a link, unless to is NULL. Returns their number. */
unsigned int problems(const struct conf *conf, const struct state *s, FILE *to)
{
	const struct keys *keys = &conf->keys[KEYS];
	uint64_t now = time(NULL), end = keys_end(keys);
	bool ends = conf->clock && !conf->esn;
	const char *verb;
	const struct sa *sa;
	unsigned int n = 0;
	int g, dir;

	if (policies_there(s, conf) < (conf->n_tunnels ? 3 * conf->n_tunnels : 2))
		tell(to, &n, "policies are missing, so packets pass in the clear: minesp up %s",
		     conf->name);
	if (!module_loaded())
		tell(to, &n, "the module minesp is not loaded: minesp up %s", conf->name);
	if (conf->clock && conf->wait && !time_known())
		tell(to, &n, "nothing has set the clock yet (NTP, PTP), and SNs come from it");
	if (conf->clock && now < keys->epoch)
		tell(to, &n, "the clock is before the keys' epoch: correct the one that is wrong");
	else if (ends && now >= end)
		tell(to, &n, "the SNs of these keys ended on %s: make a new link with minesp new",
		     date(end));
	else if (ends && (end - now < MONTH || end - now < (end - keys->epoch) / 10))
		tell(to, &n, "the SNs of these keys end on %s: minesp rekey %s", date(end),
		     conf->name);
	for_each_sa(conf, g, dir) {
		sa = state_find(s, conf, g, dir);
		verb = dir == OUT ? "sends" : "receives";
		if (!sa)
			tell(to, &n, "the SA that %s is missing, or not minimal: minesp up %s",
			     verb, conf->name);
		else if (dir == OUT && sa->clock != conf->clock)
			tell(to, &n, "SNs come from a %s, unlike the file says: minesp down %s, then up",
			     sa->clock ? "clock" : "counter", conf->name);
		else if (sa->tick &&
			 (sa->tick != conf->keys[g].tick || sa->epoch != conf->keys[g].epoch ||
			  sa->ahead != conf->keys[g].ahead))
			tell(to, &n, "the SA that %s has another Tick, Epoch or Ahead than the file: minesp down %s, then up",
			     verb, conf->name);
	}
	return n;
}

int cmd_check(int argc, char **argv)
{
	static struct state s;
	struct conf conf;

	conf_load(&conf, only_word(argc, argv, NULL, true));
	state_sas(&s);
	state_policies(&s);
	if (problems(&conf, &s, stdout))
		return 1;
	printf("%s is up%s\n", conf.name, conf.clock && stands_by() ?
	       ", and stands by: net.minesp.sn_active is 0" : "");
	return 0;
}
