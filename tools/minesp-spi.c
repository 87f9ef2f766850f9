// SPDX-License-Identifier: GPL-2.0
/*
 * minesp-spi - prints an SPI to use, for a line such as
 * ip xfrm state add ... spi $(minesp-spi) ...
 */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static const char usage[] =
"usage: minesp-spi                 a random SPI, as RFC 9333 recommends\n"
"       minesp-spi sa N [REKEY]    a structured one: the SA in the upper three\n"
"                                  bytes (1 to 16777215), and a rekey index in\n"
"                                  the lowest one (0 to 255, default 0)\n"
"       minesp-spi next SPI        the same SA with the next rekey index\n"
"       minesp-spi free            a structured SPI whose slot no minimal SA of\n"
"                                  this network namespace has; needs minesp\n";

/* RFC 9333 3.1, for whoever chooses an SPI that is not random. */
static const char price[] =
"minesp-spi: a structured SPI tells whoever watches the network which SA it is,\n"
"how often it was rekeyed and, if many devices choose alike, what make they\n"
"are; and it lets them make packets whose ICV has to be checked. Where that\n"
"matters use a random one.\n";

static _Noreturn void die(const char *why, const char *what)
{
	fprintf(stderr, "minesp-spi: %s%s%s\n%s", why, what ? ": " : "",
		what ? what : "", what ? "" : usage);
	exit(1);
}

static uint32_t number(const char *text, unsigned long min, unsigned long max)
{
	unsigned long n;
	char *end;

	errno = 0;
	n = strtoul(text, &end, 0);
	if (errno || *end || !isdigit(*text) || n < min || n > max)
		die("not a number that fits here", text);
	return n;
}

/* 0-255 are reserved: thrown away, and drawn again. */
static uint32_t random_spi(void)
{
	uint32_t spi;

	do {
		if (getrandom(&spi, sizeof(spi), 0) != sizeof(spi))
			die("getrandom", strerror(errno));
	} while (spi <= 255);
	return spi;
}

/* The lowest SA of which neither slot is taken. */
static uint32_t free_spi(void)
{
	static unsigned char taken[1 << 24];
	char line[256];
	unsigned long slots, n;
	uint32_t spi;
	FILE *f;

	f = fopen("/proc/sys/net/minesp/sad_slots", "r");
	if (!f || fscanf(f, "%lu", &slots) != 1)
		die("cannot read net.minesp.sad_slots", "is minesp loaded?");
	fclose(f);
	f = fopen("/proc/net/minesp", "r");
	if (!f)
		die("cannot read /proc/net/minesp", strerror(errno));
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "0x%" SCNx32, &spi) == 1)
			taken[(spi >> 8) % (slots / 2)] = 1;
	fclose(f);
	for (n = 1; n <= slots / 2; n++)
		if (!taken[n % (slots / 2)])
			return n << 8;
	die("no slot is free", "net.minesp.sad_slots could be larger");
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "random";
	uint32_t spi;

	if (argc < 2) {
		spi = random_spi();
	} else if (!strcmp(how, "sa") && (argc == 3 || argc == 4)) {
		spi = number(argv[2], 1, 0xffffff) << 8;
		if (argc == 4)
			spi |= number(argv[3], 0, 255);
	} else if (!strcmp(how, "next") && argc == 3) {
		spi = number(argv[2], 256, UINT32_MAX);
		spi = (spi & ~255u) | ((spi + 1) & 255);
	} else if (!strcmp(how, "free") && argc == 2) {
		spi = free_spi();
	} else {
		die("what?", NULL);
	}

	if (argc > 1)
		fputs(price, stderr);
	printf("0x%08" PRIx32 "\n", spi);
	return 0;
}
