// SPDX-License-Identifier: GPL-2.0
/*
 * minesp spi: prints an SPI, for a line such as
 * ip xfrm state add ... spi $(minesp spi) ...
 */
#include <errno.h>
#include <inttypes.h>
#include "minesp.h"

/* RFC 9333 section 3.1 */
static const char warning[] =
"minesp: a structured SPI shows an observer of the network which SA it is, how often\n"
"it was rekeyed and, if many devices choose alike, their make; and an attacker can\n"
"guess it, to send packets whose ICV has to be checked. Where that matters, use a\n"
"random one.\n";

static uint32_t number(const char *text, uint32_t min, uint32_t max)
{
	uint64_t n;

	if (!parse_number(text, min, max, &n))
		die("spi: %s: not a number from %" PRIu32 " to %" PRIu32,
		    safe(text), min, max);
	return n;
}

uint32_t spi_random(void)
{
	uint32_t spi;

	do
		random_bytes(&spi, sizeof(spi));
	while (spi < SPI_MIN);
	return spi;
}

/* The same SA with the next rekey index (RFC 9333 section 3.1) */
uint32_t spi_next(uint32_t spi)
{
	return (spi & ~255u) | ((spi + 1) & 255);
}

/* The lowest structured SPI whose slots, for even and odd rekey indices, are free */
static uint32_t free_spi(void)
{
	static unsigned char taken[1 << 24];
	uint64_t slots, n;
	char line[256];
	uint32_t spi;
	FILE *f;

	if (!read_line(SYSCTLS "sad_slots", line, sizeof(line)) ||
	    !parse_number(line, 2, 1 << 20, &slots))
		die("cannot read net.minesp.sad_slots: load the module with modprobe minesp");
	f = fopen("/proc/net/minesp", "re");
	if (!f)
		die("/proc/net/minesp: %s", strerror(errno));
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "0x%" SCNx32, &spi) == 1)
			taken[(spi >> 8) % (slots / 2)] = 1;
	if (ferror(f))
		die("/proc/net/minesp: %s", strerror(errno));
	fclose(f);
	for (n = 1; n <= slots / 2; n++)
		if (!taken[n % (slots / 2)])
			return n << 8;
	die("no slot is free: increase net.minesp.sad_slots");
}

int cmd_spi(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "";
	uint32_t spi;

	if (argc == 1) {
		spi = spi_random();
	} else if (!strcmp(how, "sa") && (argc == 3 || argc == 4)) {
		spi = number(argv[2], 1, 0xffffff) << 8;
		if (argc == 4)
			spi |= number(argv[3], 0, 255);
	} else if (!strcmp(how, "next") && argc == 3) {
		spi = spi_next(number(argv[2], SPI_MIN, UINT32_MAX));
	} else if (!strcmp(how, "free") && argc == 2) {
		spi = free_spi();
	} else {
		usage();
	}
	if (argc > 1)
		fputs(warning, stderr);
	printf("0x%08" PRIx32 "\n", spi);
	return 0;
}
