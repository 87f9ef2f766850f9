// SPDX-License-Identifier: GPL-2.0
/*
 * minesp(8): protects links with minimal ESP. Each link has a short configuration file.
 */
#include <stdlib.h>
#include <sys/resource.h>
#include "minesp.h"

static const struct command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *usage;
} commands[] = {
	{ "new", cmd_new,
	  "NAME --local ADDRESS --peer ADDRESS [--tunnel 'NET - NET'] ...\n"
	  "    [--suite SUITE] [[--rate RATE] [--burst PACKETS] [--years YEARS] | --counter]\n"
	  "    [--fresh SECONDS] [--implicit-iv] [--clear-ntp] [--ip]" },
	{ "up", cmd_up, "NAME [--no-wait | --closed]" },
	{ "down", cmd_down, "NAME" },
	{ "check", cmd_check, "NAME" },
	{ "show", cmd_show, "[NAME] [--json]" },
	{ "rekey", cmd_rekey, "NAME [--ip | --from FILE | --retire [--force]]" },
	{ "spi", cmd_spi, "[sa N [REKEY] | next SPI | free]" },
	{ "key", cmd_key, "SUITE" },
	{ "plan", cmd_plan, "[--rate RATE] [--burst PACKETS] [--years YEARS]" },
};

static const struct command *running;

static void print_usage(FILE *to)
{
	const char *before = "usage:";
	size_t i;

	for (i = 0; i < ARRAY_SIZE(commands); i++) {
		if (running && running != &commands[i])
			continue;
		fprintf(to, "%s minesp %s %s\n", before, commands[i].name, commands[i].usage);
		before = "      ";
	}
}

void usage(void)
{
	print_usage(stderr);
	exit(2);
}

/* Returns the only word that is not an option, or NULL. Options may only set flags. */
char *only_word(int argc, char **argv, const struct option *options, bool needed)
{
	static const struct option none = { 0 };
	int o;

	while ((o = getopt_long(argc, argv, "", options ?: &none, NULL)) != -1)
		if (o)
			usage();
	if (optind < argc - 1 || (needed && optind == argc))
		usage();
	return argv[optind];
}

int main(int argc, char **argv)
{
	const struct rlimit none = { 0, 0 };
	size_t i;
	int err;

	setrlimit(RLIMIT_CORE, &none);	/* A core dump would contain keys. */
	if (argc == 2 && !strcmp(argv[1], "--help")) {
		print_usage(stdout);
		return 0;
	}
	if (argc == 2 && !strcmp(argv[1], "--version")) {
		printf("minesp %s\n", MINESP_VERSION);
		return 0;
	}
	for (i = 0; argc > 1 && i < ARRAY_SIZE(commands); i++)
		if (!strcmp(argv[1], commands[i].name))
			running = &commands[i];
	if (!running)
		usage();
	err = running->run(argc - 1, argv + 1);
	if (fflush(stdout) || ferror(stdout))
		die("cannot write to standard output");
	return err;
}
