// SPDX-License-Identifier: GPL-2.0
/*
 * minesp up and down. Policies come first and go last: so whatever fails, and whenever
 * it is interrupted, no packet leaves in the clear.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "minesp.h"

#define SYSCTLS		"/proc/sys/net/minesp/"

static char note[256];

static void interrupted(int sig)
{
	if (write(STDERR_FILENO, note, strlen(note)) < 0 ||
	    write(STDERR_FILENO, "\n", 1) < 0)
		_exit(1);
	signal(sig, SIG_DFL);
	raise(sig);
}

/* From here on no packet of the link leaves or gets in unprotected. */
static void add_policies(const struct conf *conf, struct state *s)
{
	struct text *t = text_new();
	struct policy *p;

	die_note = "minesp: nothing protects this link: a policy is missing";
	conf_lock();
	state_policies(s);
	text_policies(t, conf);
	for (p = s->policies; p < s->policies + s->n_policies; p++)
		if (!policy_is_of(p, conf) && strstr(text_lines(t), p->name))
			die("somebody else has a policy %s: see ip xfrm policy, and remove it",
			    p->name);
	if (!text_run(t))
		die("cannot add the policies of %s: is this root, and has the kernel CONFIG_XFRM_USER?",
		    conf->name);
	state_policies(s);
	conf_unlock();
	snprintf(note, sizeof(note), "minesp: the policies of %s are in place, so nothing passes in the clear; then try again: minesp up %s",
		 conf->name, conf->name);
	die_note = note;
	signal(SIGINT, interrupted);
	signal(SIGTERM, interrupted);
}

static void wait_for_time(void)
{
	if (time_known())
		return;
	fprintf(stderr, "minesp: waits until NTP or the like has set the clock; --no-wait, or Wait = no, if nothing will\n");
	while (!time_known())
		sleep(1);
}

static void load_module(void)
{
	if (module_loaded())
		return;
	fprintf(stderr, "modprobe minesp\n");
	/* Without it the kernel's own ESP would take the SAs, and begin with SN 1. */
	if (system("modprobe minesp") || !module_loaded())
		die("the module minesp is not loaded: install it for this kernel, see minesp(7)");
}

static bool set(const char *name, const char *value)
{
	char path[64];
	bool ok;
	FILE *f;

	fprintf(stderr, "sysctl -w net.minesp.%s=%s\n", name, value);
	snprintf(path, sizeof(path), SYSCTLS "%s", name);
	f = fopen(path, "we");
	ok = f && fputs(value, f) >= 0;
	ok = f && !fclose(f) && ok;
	if (!ok)
		fprintf(stderr, "minesp: %s: %s\n", path, strerror(errno));
	return ok;
}

/*
 * Runs what adds SAs, with the settings of their keys: an SA keeps what these were when
 * it was added, and they are not ours. Nothing but SIGKILL comes in between.
 */
static bool run_with_settings(struct text *t, const struct conf *conf, const struct keys *keys)
{
	uint64_t fresh = conf->fresh * 1000ull;
	uint64_t ahead = fresh + (uint64_t)keys->ahead * keys->tick / 1000;
	struct {
		const char *name;
		uint64_t value;
		char old[16];
	} settings[] = {
		{ "sn_epoch", keys->epoch },
		{ "sn_tick_us", keys->tick },
		{ "sn_ahead", keys->ahead },
		{ "rx_max_age_ms", fresh },
		{ "rx_max_ahead_ms", ahead < 86400000 ? ahead : 86400000 },
	};
	int n = !conf->clock || !*text_lines(t) ? 0 : conf->fresh ? 5 : 3, i;
	char path[64], value[16];
	sigset_t signals, before;
	bool ok = true;

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, &before);
	for (i = 0; ok && i < n; i++) {
		snprintf(path, sizeof(path), SYSCTLS "%s", settings[i].name);
		snprintf(value, sizeof(value), "%u", (unsigned int)settings[i].value);
		ok = read_line(path, settings[i].old, sizeof(settings[i].old)) &&
		     set(settings[i].name, value);
	}
	ok = ok && text_run(t);
	while (i--)
		if (*settings[i].old)
			ok &= set(settings[i].name, settings[i].old);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return ok;
}

/* Adds the SAs of some keys that are not there yet. */
static void add_states(const struct conf *conf, int generation, const struct state *s)
{
	struct text *t = text_new();
	int g, dir;

	for_each_sa(conf, g, dir)
		if (g == generation && !state_find(s, conf, g, dir))
			text_state(t, conf, g, dir, false);
	if (!run_with_settings(t, conf, &conf->keys[generation]))
		die("the SAs of %s cannot be added: see above", conf->name);
}

/*
 * Deletes the SAs of a link that it has no use for any more; all if it goes down. An SA
 * that is not minimal after all has to go, too: it repeats the SNs of the last boot.
 */
static void delete_states(const struct conf *conf, const struct state *s, bool all)
{
	struct text *t = text_new();
	const struct sa *sa;
	bool used;
	int g, dir, d;

	for (sa = s->sas; sa < s->sas + s->n_sas; sa++) {
		d = strcmp(sa->dst, conf->ends.local) ? OUT : IN;
		if (sa->reqid != conf_reqid(conf) || strcmp(sa->dst, conf_dst(conf, d)))
			continue;
		used = false;
		for_each_sa(conf, g, dir)
			used |= state_find(s, conf, g, dir) == sa;
		if (all || !used)
			text_delete_state(t, conf, d, sa->spi);
	}
	if (!text_run(t))
		die("cannot delete SAs of %s: see above", conf->name);
}

/* Makes the kernel have what the configuration says. Returns how many problems are left. */
unsigned int apply(const struct conf *conf)
{
	static struct state s;
	struct conf *now;
	unsigned int n;
	int g;

	add_policies(conf, &s);
	if (conf->clock && conf->wait)
		wait_for_time();
	conf_lock();
	/* Somebody may have rekeyed it while it waited. */
	now = conf_load(conf->name);
	now->wait = conf->wait;
	load_module();
	state_sas(&s);
	for (g = GENERATIONS - 1; g >= 0; g--)
		add_states(now, g, &s);
	state_sas(&s);
	delete_states(now, &s, false);
	n = problems(now, &s, stderr);
	free(now);
	return n;
}

int cmd_up(int argc, char **argv)
{
	int no_wait = 0, closed = 0, o;
	const struct option options[] = {
		{ "no-wait", no_argument, &no_wait, 1 },
		{ "closed", no_argument, &closed, 1 },
		{ 0 }
	};
	static struct state s;
	struct conf *conf;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1)
		if (o)
			usage();
	if (optind != argc - 1)
		usage();
	conf = conf_load(argv[optind]);
	if (no_wait)
		conf->wait = false;
	if (closed)
		add_policies(conf, &s);
	else if (apply(conf))
		die("%s does not work: see above", conf->name);
	else
		fprintf(stderr, "minesp: %s is up\n", conf->name);
	free(conf);
	return 0;
}

int cmd_down(int argc, char **argv)
{
	static struct state s;
	struct conf *conf;
	struct policy *p;
	struct text *t;

	if (argc != 2)
		usage();
	conf = conf_load(argv[1]);
	conf_lock();
	state_sas(&s);
	state_policies(&s);
	delete_states(conf, &s, true);
	t = text_new();
	for (p = s.policies; p < s.policies + s.n_policies; p++)
		if (policy_is_of(p, conf))
			text_delete_policy(t, p->name);
	if (!text_run(t))
		die("cannot delete the policies of %s: see above", conf->name);
	free(conf);
	return 0;
}
