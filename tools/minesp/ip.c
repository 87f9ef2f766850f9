// SPDX-License-Identifier: GPL-2.0
/*
 * SAs and policies, as lines for ip -batch: to run, to print, and for a peer without
 * minesp. Keys go to ip through a pipe. Messages hide keys.
 */
#include <fcntl.h>
#include <linux/minesp.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include "minesp.h"

/*
 * The priority of policies that require ESP. Exceptions precede them, because their
 * priority is lower: it is the link's reqid, by which minesp down finds them.
 */
#define PRIORITY	0x2000000

static pid_t pid;		/* of ip */
static char *lines;		/* the text, once it is flushed */

/*
 * popen() for ip, without a shell: a small device starts a shell as slowly as ip
 * itself. Only one ip can run at a time.
 */
FILE *ip_open(char *const argv[], const char *mode)
{
	bool reads = *mode == 'r';
	posix_spawn_file_actions_t actions;
	int p[2], err;

	if (pipe2(p, O_CLOEXEC))
		return NULL;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, p[reads], reads);
	err = posix_spawnp(&pid, "ip", &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(p[reads]);
	if (!err)
		return fdopen(p[!reads], mode);
	close(p[!reads]);
	return NULL;
}

/* Returns whether ip succeeded. f is NULL if ip could not be started. */
bool ip_close(FILE *f)
{
	int status;

	return f && !fclose(f) && waitpid(pid, &status, 0) == pid && !status;
}

/* Begins a text of lines for ip. Only one text can exist at a time. */
FILE *text_new(void)
{
	static size_t len;
	FILE *t = open_memstream(&lines, &len);

	if (!t)
		die("no memory");
	return t;
}

const char *text_lines(FILE *t)
{
	if (fflush(t))
		die("no memory");
	return lines;
}

static void text_free(FILE *t)
{
	fclose(t);
	free(lines);
}

/* Adds a policy for packets between two networks. dir: out, in or fwd */
static void add_policy(FILE *t, const struct conf *conf, const struct pair *nets,
		       const char *dir)
{
	int d = strcmp(dir, "out") ? IN : OUT;

	fprintf(t, "xfrm policy update src %s dst %s dir %s priority %u tmpl src %s dst %s proto esp reqid %u mode %s\n",
		nets->src[d], nets->src[!d], dir, PRIORITY, conf->ends.src[d],
		conf->ends.src[!d], conf_reqid(conf), conf_mode(conf));
}

/* Lets packets between both ends pass in the clear. */
static void add_exception(FILE *t, const struct conf *conf, const char *proto)
{
	int dir;

	for (dir = OUT; dir <= IN; dir++)
		fprintf(t, "xfrm policy update src %s dst %s proto %s dir %s priority %u\n",
			conf->ends.src[dir], conf->ends.src[!dir], proto,
			dir == OUT ? "out" : "in", conf_reqid(conf));
}

/* Writes all policies of a link, exceptions first: these must exist before the rest. */
void text_policies(FILE *t, const struct conf *conf)
{
	bool ipv6 = is_ipv6(conf->ends.src[OUT]);
	const struct pair *nets;
	struct pair hosts;
	int dir;

	if (conf->clear_ntp) {
		add_exception(t, conf, "17 dport 123");
		add_exception(t, conf, "17 sport 123");
	}
	if (!conf->n_tunnels) {
		/* Neighbour discovery has to work before ESP can. */
		if (ipv6) {
			add_exception(t, conf, "58 type 135");
			add_exception(t, conf, "58 type 136");
		}
		for (dir = OUT; dir <= IN; dir++)
			snprintf(hosts.src[dir], NET_LEN, "%.45s/%d", conf->ends.src[dir],
				 ipv6 ? 128 : 32);
		add_policy(t, conf, &hosts, "out");
		add_policy(t, conf, &hosts, "in");
	}
	for (nets = conf->tunnels; nets < conf->tunnels + conf->n_tunnels; nets++) {
		add_policy(t, conf, nets, "out");
		add_policy(t, conf, nets, "in");
		add_policy(t, conf, nets, "fwd");
	}
}

static void add_key(FILE *t, const char *kind, const char *name,
		    const unsigned char *key, unsigned int len)
{
	fprintf(t, " %s '%s' ", kind, name);
	if (len)
		print_hex(t, key, len);
	else
		fputs("''", t);
}

/* Writes an SA. stock: for a peer without minesp, whose script defines $N */
void text_state(FILE *t, const struct conf *conf, int g, int dir, bool stock)
{
	const struct keys *keys = &conf->keys[g];
	const struct half *half = &keys->half[dir];
	uint32_t flags = MINESP_XFLAG_MINIMAL;
	const struct suite *s = conf->suite;
	uint64_t sn;

	fprintf(t, "xfrm state add src %s dst %s proto esp spi 0x%08x reqid %u mode %s",
		conf->ends.src[dir], conf->ends.src[!dir], half->spi, conf_reqid(conf),
		conf_mode(conf));
	/* A tunnel may carry IPv4 and IPv6. */
	if (conf->n_tunnels || conf->esn)
		fprintf(t, " flag%s%s", conf->n_tunnels ? " af-unspec" : "",
			conf->esn ? " esn" : "");
	if (dir == IN || conf->esn)
		fprintf(t, " replay-window %u", conf->window);
	if (dir == IN && conf->esn && conf->clock) {
		/*
		 * A packet has only the lower half of its SN. The receiver infers the
		 * upper half from its window, which therefore starts near the peer's
		 * clock, but never above it.
		 */
		sn = ticks(keys->epoch, keys->tick, CLOCKS_DIFFER);
		fprintf(t, " replay-seq 0x%x replay-seq-hi 0x%x", (uint32_t)sn,
			(uint32_t)(sn >> 32));
	}
	add_key(t, s->auth ? "enc" : "aead", s->enc, half->key, s->enc_len);
	if (s->auth)
		add_key(t, "auth-trunc", s->auth, half->key + s->enc_len, s->auth_len);
	fprintf(t, " %u", s->icv);
	if (stock) {
		fprintf(t, "%s\n", dir == OUT && conf->clock ? " replay-oseq $N" : "");
		return;
	}
	/* An SA that only receives uses no SNs, so its counter never runs out. */
	flags |= conf->clock && (dir == OUT || conf->implicit) ?
		 MINESP_XFLAG_CLOCK : MINESP_XFLAG_COUNTER;
	flags |= conf->fresh && dir == IN ? MINESP_XFLAG_FRESH : MINESP_XFLAG_ANY_AGE;
	if (conf->implicit)
		flags |= MINESP_XFLAG_IMPLICIT_IV;
	fprintf(t, " extra-flag 0x%08x\n", flags);
}

/* Prints the commands, without keys: the only numbers with more than 32 bits. */
static void show(void)
{
	char *copy = strdup(lines), *rest = copy, *line, *word;

	while ((line = strsep(&rest, "\n")) && rest) {
		fputs("ip", stderr);
		while ((word = strsep(&line, " ")))
			fprintf(stderr, " %s", strncmp(word, "0x", 2) ||
				strlen(word) <= strlen("0x12345678") ? word : "(hidden)");
		fputc('\n', stderr);
	}
	free(copy);
}

/* Prints the commands and runs them, until one fails. Frees the text. */
bool text_run(FILE *t)
{
	bool ok = true;
	FILE *ip;

	if (*text_lines(t)) {
		show();
		/* If ip ends early, its exit status says so. */
		signal(SIGPIPE, SIG_IGN);
		ip = ip_open((char *[]){ "ip", "-batch", "-", NULL }, "w");
		if (ip)
			fputs(lines, ip);
		ok = ip_close(ip);
	}
	text_free(t);
	return ok;
}

/*
 * Prints the peer's half as a shell script, for a host without minesp. If there are old
 * keys, an earlier script has added the policies, so this script does not. SNs must not
 * start again when a key is added again. So if this host takes SNs from the clock, the
 * peer's counter starts at the clock's SN.
 */
void print_stock(const struct conf *peer)
{
	const struct keys *keys = &peer->keys[KEYS], *old = &peer->keys[OLD];
	FILE *t = text_new();
	int dir;

	printf("#!/bin/sh\n"
	       "# ESP between %s and %s, for a host without minesp, by iproute2.\n"
	       "# This file has keys: keep it secret. Run it as root, at each boot.\n",
	       peer->ends.src[OUT], peer->ends.src[IN]);
	if (peer->clock)
		printf("# Set the time first. Send at most %.6g packets/s on average,\n"
		       "# or SNs and nonces may repeat after the next boot.\n"
		       "N=$((($(date +%%s) - %u) * 1000000 / %u))\n",
		       1e6 / keys->tick, keys->epoch, keys->tick);
	if (!old->half[OUT].spi)
		text_policies(t, peer);
	for (dir = IN; dir >= OUT; dir--)
		text_state(t, peer, KEYS, dir, true);
	printf("ip -batch - << END\n%sEND\n", text_lines(t));
	if (old->half[OUT].spi)
		printf("# When the other end has retired its old keys:\n");
	for (dir = IN; dir >= OUT && old->half[OUT].spi; dir--)
		printf("# ip xfrm state delete src %s dst %s proto esp spi 0x%08x\n",
		       peer->ends.src[dir], peer->ends.src[!dir], old->half[dir].spi);
	text_free(t);
}
