// SPDX-License-Identifier: GPL-2.0
/*
 * minesp new: makes a link with its keys, and prints the peer's half.
 */
#include <errno.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "minesp.h"

/* Keys must not go to a file that others can read. */
void check_secret_output(void)
{
	struct stat st;

	if (!fstat(STDOUT_FILENO, &st) && S_ISREG(st.st_mode) && st.st_mode & 077)
		die("standard output, which gets the keys, is a file that others can read: remove it, umask 077, try again");
}

/* Makes a new key for each direction, and an epoch. */
void new_keys(struct keys *keys, const struct suite *suite)
{
	struct half *half;

	for (half = keys->half; half <= &keys->half[IN]; half++) {
		half->len = suite->enc_len + suite->auth_len;
		random_bytes(half->key, half->len);
	}
	/* The peer, whose clock may be behind, refuses keys with an epoch in the future. */
	keys->epoch = time(NULL) - CLOCKS_DIFFER;
}

/* Prints the peer's half of a link. Returns whether that succeeded. */
bool print_half(const struct conf *peer, bool stock)
{
	if (stock)
		print_stock(peer);
	else
		conf_print(stdout, peer);
	return !fflush(stdout) && !ferror(stdout);
}

static void check_stock(const struct conf *conf)
{
	if (conf->implicit || conf->fresh)
		die("--ip: a peer without minesp has no implicit IV, and counts its SNs: leave out --implicit-iv and --fresh");
	if (conf->esn)
		die("--ip: a peer without minesp cannot follow the clock with ESN, which this rate needs for so many years: lower --rate or --years, see minesp plan");
}

int cmd_new(int argc, char **argv)
{
	int clear_ntp = 0, implicit = 0, counter = 0, stock = 0, o, i;
	const struct option options[] = {
		{ "local", required_argument, NULL, 'f' },
		{ "peer", required_argument, NULL, 'f' },
		{ "tunnel", required_argument, NULL, 'f' },
		{ "suite", required_argument, NULL, 'f' },
		{ "fresh", required_argument, NULL, 'f' },
		{ "clear-ntp", no_argument, &clear_ntp, 1 },
		{ "implicit-iv", no_argument, &implicit, 1 },
		{ "counter", no_argument, &counter, 1 },
		{ "ip", no_argument, &stock, 1 },
		PLAN_OPTIONS,
		{ 0 }
	};
	struct plan plan = PLAN_DEFAULT;
	const char *path;
	struct conf conf = CONF_DEFAULT, peer;
	struct keys *keys = conf.keys;
	bool planned = false;

	conf.suite = suite_find("aes128gcm16");
	while ((o = getopt_long(argc, argv, "", options, &i)) != -1) {
		if (o == 'f')
			conf_set(&conf, options[i].name, optarg);
		else if (o && !plan_option(&plan, o, optarg))
			usage();
		planned |= o && o != 'f';
	}
	if (optind != argc - 1 || !*conf.ends.src[OUT] || !*conf.ends.src[IN])
		usage();
	if (counter && planned)
		die("--counter: leave out --rate, --burst and --years, which are for SNs from the clock");
	conf_name(&conf, argv[optind]);
	conf.clear_ntp = clear_ntp;
	conf.implicit = implicit;
	conf.clock = !counter;
	if (conf.clock) {
		plan_make(&plan);
		conf.esn = plan.esn;
		conf.window = plan.window;
		keys->tick = plan.tick;
		keys->ahead = plan.ahead;
	}
	conf_check(&conf);
	if (stock)
		check_stock(&conf);
	keys->half[OUT].spi = spi_random();
	keys->half[IN].spi = spi_random();
	new_keys(keys, conf.suite);
	check_secret_output();

	if (mkdir(CONF_DIR, 0700) && errno != EEXIST)
		die("%s: %s", CONF_DIR, strerror(errno));
	conf_lock();
	path = conf_path(&conf);
	if (!access(path, F_OK))
		die("%s is there already: give it new keys with minesp rekey, or remove it after minesp down",
		    path);
	conf_write(&conf);
	peer = conf;
	conf_turn(&peer);
	if (!print_half(&peer, stock)) {
		o = errno;
		unlink(path);
		die("cannot write the peer's half to standard output, so nothing was made: %s",
		    strerror(o));
	}
	fprintf(stderr, "minesp: made %s; standard output is the peer's half: keep it secret\n",
		path);
	if (conf.clock && !time_known())
		fprintf(stderr, "minesp: nothing has set the clock yet (NTP, PTP): if date is wrong, remove %s, set the time, and make the link again\n",
			path);
	if (conf.clock)
		plan_print(stderr, &plan);
	else
		fprintf(stderr, "minesp: with a counter, these keys are for one boot: make new ones after it\n");
	return 0;
}
