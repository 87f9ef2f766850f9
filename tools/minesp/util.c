// SPDX-License-Identifier: GPL-2.0
/*
 * Functions for errors, numbers and dates.
 */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include "minesp.h"

char die_where[512];
const char *die_note;

void die(const char *fmt, ...)
{
	va_list args;

	fflush(stdout);
	fprintf(stderr, "minesp: %s", die_where);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	if (die_note)
		fprintf(stderr, "%s\n", die_note);
	exit(1);
}

/* Makes a user's text safe to print: short, and without control characters. */
const char *safe(const char *text)
{
	static char said[64];
	size_t i;

	for (i = 0; text[i] && i < sizeof(said) - 1; i++)
		said[i] = isprint((unsigned char)text[i]) ? text[i] : '?';
	said[i] = 0;
	return said;
}

bool parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *n)
{
	char *end;

	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	*n = strtoull(text, &end, 0);
	return !errno && !*end && *n >= min && *n <= max;
}

void random_bytes(void *to, size_t n)
{
	if (getrandom(to, n, 0) != (ssize_t)n)
		die("cannot get random numbers: %s", strerror(errno));
}

void print_hex(FILE *to, const unsigned char *bytes, size_t n)
{
	fputs("0x", to);
	while (n--)
		fprintf(to, "%02x", *bytes++);
}

/* Reads the first line of a file. */
bool read_line(const char *path, char *to, size_t size)
{
	FILE *f = fopen(path, "re");
	bool ok = f && fgets(to, size, f);

	if (f)
		fclose(f);
	if (ok)
		to[strcspn(to, "\n")] = 0;
	return ok;
}

/* Formats a day, in UTC. */
const char *date(uint64_t seconds)
{
	static char said[32];
	time_t t = seconds;
	struct tm tm;

	if ((uint64_t)t != seconds || !gmtime_r(&t, &tm) ||
	    !strftime(said, sizeof(said), "%Y-%m-%d", &tm))
		return "after 2038";	/* with a time_t of 32 bits */
	return said;
}

/* Formats a length of time in a suitable unit. The last two results stay valid. */
const char *duration(double seconds)
{
	static const struct {
		double seconds;
		const char *name;
	} units[] = {
		{ 31556952, "years" }, { 86400, "days" }, { 3600, "hours" },
		{ 60, "minutes" }, { 1, "s" }, { 0.001, "ms" }, { 0.000001, "us" },
	};
	static char said[2][32];
	static int which;
	size_t i = 0;

	while (i < ARRAY_SIZE(units) - 1 && seconds < units[i].seconds)
		i++;
	which = !which;
	snprintf(said[which], sizeof(said[0]), "%.3g %s",
		 seconds / units[i].seconds, units[i].name);
	return said[which];
}
