/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Declarations that the files of minesp(8) share.
 */
#ifndef _TOOLS_MINESP_H
#define _TOOLS_MINESP_H

#include <getopt.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define CONF_DIR	"/etc/minesp"
#define SYSCTLS		"/proc/sys/net/minesp/"
#define KEY_MAX		(36 + 64)	/* bytes */
#define TUNNELS_MAX	32
#define SPI_MIN		256		/* RFC 4303 section 2.1 reserves lower SPIs */
#define SN_LAST		UINT32_MAX	/* without ESN */
#define CLOCKS_DIFFER	60		/* seconds, at most */
#define NET_LEN		(INET6_ADDRSTRLEN + 4)

enum { OUT, IN };

/* main.c */
_Noreturn void usage(void);
char *only_word(int argc, char **argv, const struct option *options, bool needed);

/* util.c */
extern char die_where[512];		/* die() prints it before the message */
extern const char *die_note;		/* die() prints it after the message */
_Noreturn void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
const char *safe(const char *text);
bool parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *n);
void random_bytes(void *to, size_t n);
void print_hex(FILE *to, const unsigned char *bytes, size_t n);
bool read_line(const char *path, char *to, size_t size);
const char *date(uint64_t seconds);
const char *duration(double seconds);

/* spi.c */
uint32_t spi_random(void);
uint32_t spi_next(uint32_t spi);

/* suite.c */
struct suite {
	const char *name, *enc, *auth;		/* enc, auth: names for ip xfrm */
	unsigned int enc_len, auth_len;		/* bytes of key */
	unsigned int icv;			/* bits */
	bool implicit;				/* RFC 8750 defines an implicit IV */
};

const struct suite *suite_find(const char *name);

/* plan.c */
struct plan {
	double rate, years;
	uint64_t burst;
	unsigned int tick, ahead, esn, window;
};

#define PLAN_DEFAULT	{ .rate = 10, .burst = 1000, .years = 1 }
#define PLAN_OPTIONS							\
	{ "rate", required_argument, NULL, 'R' },			\
	{ "burst", required_argument, NULL, 'N' },			\
	{ "years", required_argument, NULL, 'Y' }

bool plan_option(struct plan *plan, int option, const char *value);
void plan_make(struct plan *plan);
void plan_print(FILE *to, const struct plan *plan);

/* conf.c */
struct pair {			/* two addresses or networks */
	char src[2][NET_LEN];		/* OUT: this host's, IN: the peer's */
};

struct keys {			/* a section with keys: one generation */
	struct half {
		unsigned int spi;		/* 0: the section does not exist */
		unsigned int len;
		unsigned char key[KEY_MAX];
	} half[2];				/* OUT, IN */
	unsigned int epoch, tick, ahead;
};

enum { KEYS, NEXT, OLD, GENERATIONS };

struct conf {
	char name[64];
	struct pair ends;
	struct pair tunnels[TUNNELS_MAX];
	unsigned int n_tunnels;
	const struct suite *suite;
	unsigned int clock, esn, window, fresh, implicit, clear_ntp, wait;
	struct keys keys[GENERATIONS];
};

#define CONF_DEFAULT	{ .window = 32, .wait = true }

/*
 * Loops over the SAs of a link. Each generation of keys has an SA that receives; the
 * current one also has an SA that sends. The SA that receives comes first: otherwise
 * the peer's answer could arrive before its SA exists.
 */
#define for_each_sa(conf, g, dir)					\
	for ((g) = 0; (g) < GENERATIONS; (g)++)				\
		for ((dir) = IN; (dir) >= OUT; (dir)--)			\
			if ((conf)->keys[g].half[dir].spi &&		\
			    ((dir) == IN || (g) == KEYS))

static inline bool is_ipv6(const char *address)
{
	return strchr(address, ':');
}

static inline const char *conf_mode(const struct conf *conf)
{
	return conf->n_tunnels ? "tunnel" : "transport";
}

/* Identifies the SAs and policies of a link. Rekeying does not change it. */
static inline uint32_t conf_reqid(const struct conf *conf)
{
	return conf->keys[KEYS].half[IN].spi >> 8;
}

/* The time when SNs without ESN run out, in seconds since 1970 */
static inline uint64_t keys_end(const struct keys *keys)
{
	return keys->epoch + (uint64_t)SN_LAST * keys->tick / 1000000;
}

void conf_name(struct conf *conf, const char *name);
const char *conf_path(const struct conf *conf);
void conf_set(struct conf *conf, const char *option, char *value);
void conf_read(struct conf *conf, const char *path);
void conf_load(struct conf *conf, const char *name);
void conf_check(const struct conf *conf);
void conf_print(FILE *to, const struct conf *conf);
void conf_write(const struct conf *conf);
void conf_turn(struct conf *conf);
void conf_lock(void);
void conf_unlock(void);

/* ip.c */
FILE *ip_open(char *const argv[], const char *mode);
bool ip_close(FILE *f);
FILE *text_new(void);
void text_policies(FILE *t, const struct conf *conf);
void text_state(FILE *t, const struct conf *conf, int g, int dir, bool stock);
const char *text_lines(FILE *t);
bool text_run(FILE *t);
void print_stock(const struct conf *peer);

/* settings.c */
bool settings_run(FILE *t, const struct conf *conf, const struct keys *keys);
bool settings_restore(void);

/* state.c: the state of the kernel */
struct sa {
	char dst[INET6_ADDRSTRLEN], suite[64];
	uint32_t spi, reqid;
	bool minimal, clock, direct, fresh, shown;
	unsigned int tick, epoch, ahead;	/* 0 without clock and freshness */
	uint64_t sent, received;		/* SNs */
	uint64_t packets, replays, failed;
};

struct policy {
	char name[256];				/* selector and direction, as ip takes them */
	uint32_t priority, reqid;		/* reqid 0: it does not require ESP */
};

struct state {
	struct sa *sas;
	struct policy *policies;
	size_t n_sas, n_policies;
};

void state_sas(struct state *s);
void state_policies(struct state *s);
struct sa *state_find(const struct state *s, const struct conf *conf, int g, int dir);
bool policy_is_of(const struct policy *p, const struct conf *conf);
unsigned int policies_there(const struct state *s, const struct conf *conf);
bool module_loaded(void);
bool stands_by(void);
bool time_known(void);
uint64_t ticks(unsigned int epoch, unsigned int tick, unsigned int ago);

/* new.c */
void check_secret_output(void);
void new_keys(struct keys *keys, const struct suite *suite);
bool print_half(const struct conf *peer, bool stock);

/* link.c, check.c */
unsigned int apply(const struct conf *conf);
unsigned int problems(const struct conf *conf, const struct state *s, FILE *to);

/* The commands */
int cmd_new(int argc, char **argv);
int cmd_up(int argc, char **argv);
int cmd_down(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_rekey(int argc, char **argv);
int cmd_show(int argc, char **argv);
int cmd_spi(int argc, char **argv);
int cmd_key(int argc, char **argv);
int cmd_plan(int argc, char **argv);

#endif
