// SPDX-License-Identifier: GPL-2.0
/*
 * The configuration of a link, CONF_DIR/NAME.conf: see minesp.conf(5). One table
 * describes the format; reading and writing both use it.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include "minesp.h"

#define FILE_MAX	65536

static const struct field {
	const char *name;
	bool in_keys;			/* in a section with keys, else in [Link] */
	enum { ADDRESS, TUNNEL, SUITE, WORD, NUMBER, SPI, KEY } kind;
	size_t offset;			/* in struct keys, else in struct conf */
	enum { OPTIONAL, WITH_CLOCK, REQUIRED } need;
	unsigned int min, max;		/* NUMBER, SPI */
	const char *words[2];		/* WORD: the names of 0 and 1 */
} fields[] = {
#define LINK(kind, member)	false, kind, offsetof(struct conf, member)
#define IN_KEYS(kind, member)	true, kind, offsetof(struct keys, member)
#define NO_OR_YES		OPTIONAL, .words = { "no", "yes" }
	{ "Local", LINK(ADDRESS, ends.src[OUT]), REQUIRED },
	{ "Peer", LINK(ADDRESS, ends.src[IN]), REQUIRED },
	{ "Tunnel", LINK(TUNNEL, tunnels) },
	{ "Suite", LINK(SUITE, suite), REQUIRED },
	{ "SN", LINK(WORD, clock), REQUIRED, .words = { "counter", "clock" } },
	{ "ESN", LINK(WORD, esn), NO_OR_YES },
	{ "Window", LINK(NUMBER, window), OPTIONAL, 1, 4096 },
	{ "Fresh", LINK(NUMBER, fresh), OPTIONAL, 0, 40000 },
	{ "ImplicitIV", LINK(WORD, implicit), NO_OR_YES },
	{ "ClearNTP", LINK(WORD, clear_ntp), NO_OR_YES },
	{ "Wait", LINK(WORD, wait), NO_OR_YES },
	{ "OutSPI", IN_KEYS(SPI, half[OUT].spi), REQUIRED, SPI_MIN, UINT32_MAX },
	{ "OutKey", IN_KEYS(KEY, half[OUT]), REQUIRED },
	{ "InSPI", IN_KEYS(SPI, half[IN].spi), REQUIRED, SPI_MIN, UINT32_MAX },
	{ "InKey", IN_KEYS(KEY, half[IN]), REQUIRED },
	{ "Epoch", IN_KEYS(NUMBER, epoch), WITH_CLOCK, 1, UINT32_MAX },
	{ "Tick", IN_KEYS(NUMBER, tick), WITH_CLOCK, 1, 1000000 },
	{ "Ahead", IN_KEYS(NUMBER, ahead), WITH_CLOCK, 1, 1000000 },
};

/* Section 0 is [Link], the others are generations of keys. */
static const char *const sections[] = { "Link", "Keys", "Next", "Old" };

/* The line number of each section and field; 0: not in the file */
struct lines {
	int section[ARRAY_SIZE(sections)];
	int field[ARRAY_SIZE(sections)][ARRAY_SIZE(fields)];
};

static int lock = -1;

static void at(const char *path, int line)
{
	snprintf(die_where, sizeof(die_where), line ? "%s:%d: " : "%s: ", path, line);
}

static void *section_of(struct conf *conf, size_t section)
{
	return section ? (void *)&conf->keys[section - 1] : conf;
}

static char *trim(char *text)
{
	char *end;

	text += strspn(text, " \t");
	for (end = text + strlen(text); end > text && isspace((unsigned char)end[-1]); )
		*--end = 0;
	return text;
}

/* Converts an address or a network to the form that ip prints. Changes text. */
static bool parse_net(char *text, char *to, bool network)
{
	int family = is_ipv6(text) ? AF_INET6 : AF_INET;
	unsigned int bits = family == AF_INET6 ? 128 : 32, i;
	char *slash = network ? strchr(text, '/') : NULL;
	unsigned char bytes[16];
	uint64_t prefix = bits;

	if (slash && !parse_number(slash + 1, 0, bits, &prefix))
		return false;
	if (slash)
		*slash = 0;
	if (inet_pton(family, text, bytes) != 1)
		return false;
	for (i = prefix; i < bits; i++)
		if (bytes[i / 8] & 0x80 >> i % 8)
			return false;
	inet_ntop(family, bytes, to, INET6_ADDRSTRLEN);
	if (network)
		sprintf(to + strlen(to), "/%u", (unsigned int)prefix);
	return true;
}

/* Parses LOCAL - PEER, two networks. Changes text. */
static bool parse_tunnel(char *text, struct pair *t)
{
	char *peer = strchr(text, '-');

	if (!peer)
		return false;
	*peer++ = 0;
	return parse_net(trim(text), t->src[OUT], true) &&
	       parse_net(trim(peer), t->src[IN], true) &&
	       is_ipv6(t->src[OUT]) == is_ipv6(t->src[IN]);
}

static bool parse_key(const char *text, struct half *half)
{
	size_t len = strlen(text), i;

	if (len < 4 || len % 2 || len > 2 + 2 * KEY_MAX || strncmp(text, "0x", 2) ||
	    strspn(text + 2, "0123456789abcdefABCDEF") != len - 2)
		return false;
	half->len = len / 2 - 1;
	for (i = 0; i < half->len; i++)
		sscanf(text + 2 + 2 * i, "%2hhx", &half->key[i]);
	return true;
}

static void parse_value(struct conf *conf, void *to, const struct field *f, char *value)
{
	uint64_t n;

	switch (f->kind) {
	case ADDRESS:
		if (!parse_net(value, to, false))
			die("%s = %s: not an address; give a number, names are not looked up",
			    f->name, safe(value));
		break;
	case TUNNEL:
		if (conf->n_tunnels == TUNNELS_MAX)
			die("more than %d tunnels: join networks, or make another link",
			    TUNNELS_MAX);
		if (!parse_tunnel(value, &conf->tunnels[conf->n_tunnels++]))
			die("Tunnel: not two networks; write LOCAL - PEER, such as 10.1.0.0/16 - 10.2.0.0/16, with no bits set after the prefix");
		break;
	case SUITE:
		*(const struct suite **)to = suite_find(value);
		break;
	case WORD:
		if (strcmp(value, f->words[0]) && strcmp(value, f->words[1]))
			die("%s = %s: say %s or %s", f->name, safe(value), f->words[0],
			    f->words[1]);
		*(unsigned int *)to = !strcmp(value, f->words[1]);
		break;
	case NUMBER:
	case SPI:
		if (!parse_number(value, f->min, f->max, &n))
			die("%s = %s: not a number from %u to %u", f->name, safe(value),
			    f->min, f->max);
		*(unsigned int *)to = n;
		break;
	case KEY:
		/* The message must not show the key. */
		if (!parse_key(value, to))
			die("%s: not a key, 0x and hexadecimal digits; minesp key makes one",
			    f->name);
	}
}

/* Sets a field of [Link] to the value of the option with the same name. */
void conf_set(struct conf *conf, const char *option, char *value)
{
	const struct field *f = fields;

	while (strcasecmp(f->name, option))
		f++;
	snprintf(die_where, sizeof(die_where), "--%s: ", option);
	parse_value(conf, (char *)conf + f->offset, f, value);
	*die_where = 0;
}

static void parse_line(struct lines *lines, int line, struct conf *conf, int *section,
		       char *text)
{
	char *value;
	size_t f, s;

	text[strcspn(text, "#")] = 0;
	text = trim(text);
	if (!*text)
		return;
	if (*text == '[' && text[strlen(text) - 1] == ']') {
		text[strlen(text) - 1] = 0;
		for (s = 0; s < ARRAY_SIZE(sections) && strcasecmp(text + 1, sections[s]); )
			s++;
		if (s == ARRAY_SIZE(sections))
			die("[%s]: no such section; use Link, Keys, Next or Old",
			    safe(text + 1));
		if (lines->section[s])
			die("a second [%s]; the first is in line %d: remove one", sections[s],
			    lines->section[s]);
		lines->section[s] = line;
		*section = s;
		return;
	}
	value = strchr(text, '=');
	if (!value)
		die("neither [SECTION] nor KEY = VALUE");
	*value++ = 0;
	text = trim(text);
	if (*section < 0)
		die("%s is before the first section: begin with [Link]", safe(text));
	for (f = 0; f < ARRAY_SIZE(fields); f++)
		if (!strcasecmp(text, fields[f].name) && fields[f].in_keys == (*section > 0))
			break;
	if (f == ARRAY_SIZE(fields))
		die("%s: no such key in [%s]; see minesp.conf(5)", safe(text),
		    sections[*section]);
	if (lines->field[*section][f] && fields[f].kind != TUNNEL)
		die("%s is in line %d already: remove one", fields[f].name,
		    lines->field[*section][f]);
	lines->field[*section][f] = line;
	parse_value(conf, (char *)section_of(conf, *section) + fields[f].offset, &fields[f],
		    trim(value));
}

/* Checks the rules that involve several fields of [Link]. */
void conf_check(const struct conf *conf)
{
	const char *local = conf->ends.src[OUT], *peer = conf->ends.src[IN];

	if (is_ipv6(local) != is_ipv6(peer))
		die("one of Local and Peer is an IPv4, the other an IPv6 address: use the same family for both");
	if (!strcmp(local, peer))
		die("Local and Peer are the same address");
	if (conf->implicit && !conf->suite->implicit)
		die("ImplicitIV: only with AESgcm16, chacha20poly1305 and AESccm8 (RFC 8750)");
	if (conf->implicit && !conf->clock)
		die("ImplicitIV: only with SN = clock; with a counter, nonces would repeat after a reboot");
	if (conf->fresh && !conf->clock)
		die("Fresh: only with SN = clock; an SN from a counter has no time");
}

static void check_keys(const struct conf *conf, const char *section, const struct keys *keys)
{
	unsigned int len = conf->suite->enc_len + conf->suite->auth_len;
	const struct half *half = keys->half;
	int d;

	for (d = OUT; d <= IN; d++) {
		if (half[d].len != len)
			die("[%s]: %s has %u bytes, but %s takes %u", section,
			    d == OUT ? "OutKey" : "InKey", half[d].len, conf->suite->name, len);
		if ((half[d].spi ^ conf->keys[KEYS].half[d].spi) >> 8)
			die("[%s]: the upper three bytes of its SPIs must be those of [Keys]",
			    section);
	}
	if (!memcmp(half[OUT].key, half[IN].key, len))
		die("[%s]: OutKey and InKey are the same, nonces would repeat: make two with minesp key %s",
		    section, conf->suite->name);
}

static void check(const char *path, const struct lines *lines, const struct conf *conf)
{
	const struct field *f;
	size_t s;

	at(path, 0);
	if (!lines->section[0] || !lines->section[1 + KEYS])
		die("[Link] or [Keys] is missing: see minesp.conf(5)");
	for (s = 0; s < ARRAY_SIZE(sections); s++) {
		if (!lines->section[s])
			continue;
		at(path, lines->section[s]);
		for (f = fields; f < fields + ARRAY_SIZE(fields); f++)
			if (f->in_keys == (s > 0) && !lines->field[s][f - fields] &&
			    (f->need == REQUIRED || (f->need == WITH_CLOCK && conf->clock)))
				die("[%s] has no %s", sections[s], f->name);
		if (s)
			check_keys(conf, sections[s], &conf->keys[s - 1]);
	}
	at(path, lines->section[0]);
	conf_check(conf);
}

/* Opens a file. Refuses it if others can read or change it. "-" is standard input. */
static FILE *open_private(const char *path)
{
	struct stat st;
	int fd;

	if (!strcmp(path, "-"))
		return stdin;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st))
		die("%s%s", strerror(errno), errno == ENOENT ? "; minesp new makes it" : "");
	if (!S_ISREG(st.st_mode))
		die("not a file");
	if (st.st_mode & 077 || (st.st_uid && st.st_uid != geteuid()))
		die("others can read or change this file, which has keys: chown root, chmod 600; make new keys if these were exposed");
	if (st.st_size > FILE_MAX)
		die("longer than %d bytes: not a configuration of minesp", FILE_MAX);
	return fdopen(fd, "r");
}

void conf_read(struct conf *conf, const char *path)
{
	struct lines lines = { 0 };
	int line = 0, section = -1;
	char *text = NULL;
	size_t size = 0;
	ssize_t n, i;
	FILE *f;

	at(path, 0);
	f = open_private(path);
	while (f && (n = getline(&text, &size, f)) >= 0) {
		at(path, ++line);
		for (i = 0; i < n; i++)
			if (!isprint((unsigned char)text[i]) && !strchr("\t\r\n", text[i] ?: 1))
				die("a byte that is not text (0x%02x)", (unsigned char)text[i]);
		parse_line(&lines, line, conf, &section, text);
	}
	if (!f || ferror(f))
		die("%s", strerror(errno));
	fclose(f);
	free(text);
	check(path, &lines, conf);
	*die_where = 0;
}

void conf_name(struct conf *conf, const char *name)
{
	size_t len = strlen(name);

	if (!len || len >= sizeof(conf->name) || name[0] == '-' || name[0] == '.' ||
	    strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") != len)
		die("%s: not a name for a link: use up to %zu letters, digits, _ . and -, and begin with neither . nor -",
		    safe(name), sizeof(conf->name) - 1);
	strcpy(conf->name, name);
}

const char *conf_path(const struct conf *conf)
{
	static char path[sizeof(CONF_DIR) + sizeof(conf->name) + 8];

	snprintf(path, sizeof(path), "%s/%s.conf", CONF_DIR, conf->name);
	return path;
}

void conf_load(struct conf *conf, const char *name)
{
	*conf = (struct conf)CONF_DEFAULT;
	conf_name(conf, name);
	conf_read(conf, conf_path(conf));
}

/* Only one minesp at a time may change files and SAs. */
void conf_lock(void)
{
	if (lock < 0)
		lock = open(CONF_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (lock < 0 || flock(lock, LOCK_EX))
		die("%s: %s", CONF_DIR, strerror(errno));
}

void conf_unlock(void)
{
	flock(lock, LOCK_UN);
}

static void print_field(FILE *to, const struct conf *conf, const void *from,
			const struct field *f)
{
	const struct half *half = from;
	const struct pair *t;

	if (f->kind == TUNNEL) {
		for (t = from; t < conf->tunnels + conf->n_tunnels; t++)
			fprintf(to, "Tunnel = %s - %s\n", t->src[OUT], t->src[IN]);
		return;
	}
	if (f->need == WITH_CLOCK && !conf->clock)
		return;
	fprintf(to, "%s = ", f->name);
	switch (f->kind) {
	case SUITE:
		fputs(conf->suite->name, to);
		break;
	case WORD:
		fputs(f->words[*(const unsigned int *)from], to);
		break;
	case NUMBER:
		fprintf(to, "%u", *(const unsigned int *)from);
		break;
	case SPI:
		fprintf(to, "0x%08x", *(const unsigned int *)from);
		break;
	case KEY:
		print_hex(to, half->key, half->len);
		break;
	default:
		fputs(from, to);
	}
	fputc('\n', to);
}

void conf_print(FILE *to, const struct conf *conf)
{
	const struct field *f;
	const char *from;
	size_t s;

	fprintf(to, "# A link of minesp(8): see minesp.conf(5). This file has keys: keep it secret.\n");
	for (s = 0; s < ARRAY_SIZE(sections); s++) {
		from = section_of((struct conf *)conf, s);
		if (s && !conf->keys[s - 1].half[OUT].spi)
			continue;
		fprintf(to, "%s[%s]\n", s ? "\n" : "", sections[s]);
		if (s && conf->clock)
			fprintf(to, "# Tick (us) and Epoch belong to the keys: never change them alone.\n");
		if (s && conf->clock && !conf->esn)
			fprintf(to, "# The keys end on %s.\n", date(keys_end(&conf->keys[s - 1])));
		for (f = fields; f < fields + ARRAY_SIZE(fields); f++)
			if (f->in_keys == (s > 0))
				print_field(to, conf, from + f->offset, f);
	}
}

/* Creates or replaces the file atomically. */
void conf_write(const struct conf *conf)
{
	char new[sizeof(CONF_DIR) + sizeof(conf->name) + 16];
	int fd;
	FILE *to;

	snprintf(new, sizeof(new), "%s.new", conf_path(conf));
	unlink(new);
	fd = open(new, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	to = fd < 0 ? NULL : fdopen(fd, "w");
	if (!to)
		die("%s: %s", new, strerror(errno));
	conf_print(to, conf);
	if (fflush(to) || fsync(fd) || fclose(to) || rename(new, conf_path(conf)))
		die("%s: %s", conf_path(conf), strerror(errno));
	fsync(lock);
}

/* Swaps the elements OUT and IN of an array. */
static void swap(void *both, size_t size)
{
	char out[sizeof(struct half)], *in = (char *)both + size;

	memcpy(out, both, size);
	memcpy(both, in, size);
	memcpy(in, out, size);
}

/* Turns this host's half of a link into the peer's half. */
void conf_turn(struct conf *conf)
{
	unsigned int i;

	swap(conf->ends.src, NET_LEN);
	for (i = 0; i < conf->n_tunnels; i++)
		swap(conf->tunnels[i].src, NET_LEN);
	for (i = 0; i < GENERATIONS; i++)
		swap(conf->keys[i].half, sizeof(struct half));
}
