// SPDX-License-Identifier: GPL-2.0
/*
 * minesp rekey: adds new keys beside the old ones. No packet is lost: the end that
 * makes them only receives with them at first. The other end sends with them at once.
 */
#include <errno.h>
#include "minesp.h"

static bool same_keys(const struct keys *a, const struct keys *b)
{
	return !memcmp(a->half, b->half, sizeof(a->half));
}

static void move_keys(struct conf *conf, int to, int from)
{
	conf->keys[to] = conf->keys[from];
	memset(&conf->keys[from], 0, sizeof(struct keys));
}

/* Makes the next keys, and prints the peer's half, where these are the current keys. */
static void make(struct conf *conf, bool stock)
{
	struct keys *keys = conf->keys;
	struct conf peer;
	int dir;

	if (keys[OLD].half[IN].spi)
		die("%s still has old keys: end them first with minesp rekey %s --retire",
		    conf->name, conf->name);
	/* If next keys exist already, only print them again. */
	if (!keys[NEXT].half[IN].spi) {
		keys[NEXT] = keys[KEYS];
		for (dir = OUT; dir <= IN; dir++)
			keys[NEXT].half[dir].spi = spi_next(keys[KEYS].half[dir].spi);
		new_keys(&keys[NEXT], conf->suite);
		conf_write(conf);
	}
	peer = *conf;
	conf_turn(&peer);
	move_keys(&peer, OLD, KEYS);
	move_keys(&peer, KEYS, NEXT);
	if (!print_half(&peer, stock))
		die("cannot write the peer's half to standard output: %s; run this again",
		    strerror(errno));
}

/* Takes the new keys from the half that minesp rekey has printed at the other end. */
static void take(struct conf *conf, const char *path)
{
	struct keys *keys = conf->keys;
	struct conf half = CONF_DEFAULT;

	conf_read(&half, path);
	if (strcmp(half.ends.src[OUT], conf->ends.src[OUT]) ||
	    strcmp(half.ends.src[IN], conf->ends.src[IN]) || half.suite != conf->suite ||
	    half.esn != conf->esn || half.clock != conf->clock ||
	    half.implicit != conf->implicit)
		die("%s is not of this link, %s: take what minesp rekey prints at the other end",
		    path, conf->name);
	if (same_keys(&half.keys[KEYS], &keys[KEYS]))
		return;			/* This host has taken them already. */
	if (!same_keys(&half.keys[OLD], &keys[KEYS]))
		die("the old keys in %s are not those of %s: make the link again with minesp new",
		    path, conf->name);
	move_keys(conf, OLD, KEYS);
	keys[KEYS] = half.keys[KEYS];
	conf_write(conf);
}

/* Removes the old keys, if the peer has sent a packet with the new ones. */
static void retire(struct conf *conf, bool force)
{
	int newest = conf->keys[NEXT].half[IN].spi ? NEXT : KEYS;
	const struct sa *sa;
	static struct state s;

	if (newest == KEYS && !conf->keys[OLD].half[IN].spi)
		die("%s has no old keys: make new ones first with minesp rekey %s", conf->name,
		    conf->name);
	state_sas(&s);
	sa = state_find(&s, conf, newest, IN);
	if (!force && (!sa || !sa->packets))
		die("the peer of %s has sent nothing with the new keys, so it may not have them: give them to it, let it send something, and try again; or use --force",
		    conf->name);
	if (newest == NEXT)
		move_keys(conf, KEYS, NEXT);
	memset(&conf->keys[OLD], 0, sizeof(struct keys));
	conf_write(conf);
}

int cmd_rekey(int argc, char **argv)
{
	int end = 0, force = 0, stock = 0, o;
	const struct option options[] = {
		{ "retire", no_argument, &end, 1 },
		{ "force", no_argument, &force, 1 },
		{ "ip", no_argument, &stock, 1 },
		{ "from", required_argument, NULL, 'F' },
		{ 0 }
	};
	const char *from = NULL;
	static struct state s;
	struct conf conf;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (o == 'F')
			from = optarg;
		else if (o)
			usage();
	}
	if (optind != argc - 1 || end + !!from + stock > 1 || (force && !end))
		usage();
	conf_load(&conf, argv[optind]);
	if (!end && !from)
		check_secret_output();
	conf_lock();
	if (end)
		retire(&conf, force);
	else if (from)
		take(&conf, from);
	else
		make(&conf, stock);
	state_policies(&s);
	/* A link that is up has waited for the time, unless it was told not to. */
	conf.wait = false;
	if (!policies_there(&s, &conf))
		fprintf(stderr, "minesp: %s is not up: minesp up %s uses the new keys\n",
			conf.name, conf.name);
	else if (apply(&conf))
		die("%s has problems: see above", conf.name);
	return 0;
}
