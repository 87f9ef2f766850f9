// SPDX-License-Identifier: GPL-2.0
/*
 * minesp up and down. They add policies first and delete policies last, so no packet
 * leaves in the clear, even if something fails or minesp is interrupted.
 */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#include "minesp.h"

static char note[256];

static void interrupted(int sig)
{
	if (write(STDERR_FILENO, note, strlen(note)) < 0 ||
	    write(STDERR_FILENO, "\n", 1) < 0)
		_exit(1);
	signal(sig, SIG_DFL);
	raise(sig);
}

/* After this function, no packet of the link leaves or enters unprotected. */
static void add_policies(const struct conf *conf, struct state *s)
{
	FILE *t = text_new();
	struct policy *p;

	die_note = "minesp: nothing protects this link: a policy is missing";
	conf_lock();
	state_policies(s);
	text_policies(t, conf);
	for (p = s->policies; p < s->policies + s->n_policies; p++)
		if (!policy_is_of(p, conf) && strstr(text_lines(t), p->name))
			die("somebody else has a policy %s: remove it with ip xfrm policy delete",
			    p->name);
	if (!text_run(t))
		die("cannot add the policies of %s: run minesp as root, on a kernel with CONFIG_XFRM_USER",
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
	fprintf(stderr, "minesp: waiting until NTP or PTP has set the clock; if nothing will, use --no-wait, or Wait = no\n");
	while (!time_known())
		sleep(1);
}

static void load_module(void)
{
	if (module_loaded())
		return;
	fprintf(stderr, "modprobe minesp\n");
	/* Without the module, stock ESP would take the SAs, and begin with SN 1. */
	if (system("modprobe minesp") || !module_loaded())
		die("the module minesp is not loaded: install it for this kernel, see minesp(7)");
}

/* Adds the missing SAs of a generation. */
static void add_states(const struct conf *conf, int generation, const struct state *s)
{
	FILE *t = text_new();
	int g, dir;

	for_each_sa(conf, g, dir)
		if (g == generation && !state_find(s, conf, g, dir))
			text_state(t, conf, g, dir, false);
	if (!settings_run(t, conf, &conf->keys[generation]))
		die("cannot add the SAs of %s: see above", conf->name);
}

/*
 * Deletes the SAs that a link does not use any more, or all its SAs. An SA that is not
 * minimal is also deleted, because it repeats the SNs of the last boot.
 */
static void delete_states(const struct conf *conf, const struct state *s, bool all)
{
	FILE *t = text_new();
	const struct sa *sa;
	bool used;
	int g, dir, d;

	for (sa = s->sas; sa < s->sas + s->n_sas; sa++) {
		d = strcmp(sa->dst, conf->ends.src[OUT]) ? OUT : IN;
		if (sa->reqid != conf_reqid(conf) || strcmp(sa->dst, conf->ends.src[!d]))
			continue;
		used = false;
		for_each_sa(conf, g, dir)
			used |= state_find(s, conf, g, dir) == sa;
		if (all || !used)
			fprintf(t, "xfrm state delete src %s dst %s proto esp spi 0x%08x\n",
				conf->ends.src[d], sa->dst, sa->spi);
	}
	if (!text_run(t))
		die("cannot delete SAs of %s: see above", conf->name);
}

/* Applies a configuration to the kernel. Returns the number of problems left. */
unsigned int apply(const struct conf *conf)
{
	static struct state s;
	struct conf now;
	int g;

	add_policies(conf, &s);
	if (conf->clock && conf->wait)
		wait_for_time();
	conf_lock();
	/* Another minesp may have rekeyed the link meanwhile. */
	conf_load(&now, conf->name);
	now.wait = conf->wait;
	settings_restore();
	load_module();
	state_sas(&s);
	for (g = GENERATIONS - 1; g >= 0; g--)
		add_states(&now, g, &s);
	state_sas(&s);
	delete_states(&now, &s, false);
	return problems(&now, &s, stderr);
}

int cmd_up(int argc, char **argv)
{
	int no_wait = 0, closed = 0;
	const struct option options[] = {
		{ "no-wait", no_argument, &no_wait, 1 },
		{ "closed", no_argument, &closed, 1 },
		{ 0 }
	};
	static struct state s;
	struct conf conf;

	conf_load(&conf, only_word(argc, argv, options, true));
	conf.wait &= !no_wait;
	if (closed)
		add_policies(&conf, &s);
	else if (apply(&conf))
		die("%s does not work: see above", conf.name);
	else
		fprintf(stderr, "minesp: %s is up\n", conf.name);
	return 0;
}

int cmd_down(int argc, char **argv)
{
	static struct state s;
	struct conf conf;
	struct policy *p;
	FILE *t;

	conf_load(&conf, only_word(argc, argv, NULL, true));
	conf_lock();
	settings_restore();
	state_sas(&s);
	state_policies(&s);
	delete_states(&conf, &s, true);
	t = text_new();
	for (p = s.policies; p < s.policies + s.n_policies; p++)
		if (policy_is_of(p, &conf))
			fprintf(t, "xfrm policy delete %s\n", p->name);
	if (!text_run(t))
		die("cannot delete the policies of %s: see above", conf.name);
	return 0;
}
