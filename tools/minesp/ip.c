// SPDX-License-Identifier: GPL-2.0
/*
 * SAs and policies, as lines for ip -batch: what runs, what is printed, and what a
 * peer without minesp gets are the same lines. Keys go to ip through a pipe, and
 * what is printed does not have them.
 */
#include <linux/minesp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "minesp.h"

/*
 * What passes in the clear goes before what is to be protected. Its priority is the
 * link's reqid, by which minesp down finds it.
 */
#define PRIORITY	0x2000000

struct text {
	char *lines;
	size_t len;
	FILE *to;
};

struct text *text_new(void)
{
	struct text *t = calloc(1, sizeof(*t));

	if (t)
		t->to = open_memstream(&t->lines, &t->len);
	if (!t || !t->to)
		die("no memory");
	return t;
}

const char *text_lines(struct text *t)
{
	if (fflush(t->to))
		die("no memory");
	return t->lines;
}

static void text_free(struct text *t)
{
	fclose(t->to);
	free(t->lines);
	free(t);
}

static void add_key(struct text *t, const unsigned char *key, unsigned int len)
{
	if (len)
		print_hex(t->to, key, len);
	else
		fputs("''", t->to);
}

/* Adds a policy for packets between two networks, with a tmpl. */
static void add_policy(struct text *t, const char *src, const char *dst, const char *dir,
		       const char *tmpl)
{
	fprintf(t->to, "xfrm policy update src %s dst %s dir %s priority %u %s\n", src, dst, dir,
		PRIORITY, tmpl);
}

/* Lets packets between both ends pass in the clear. */
static void add_exception(struct text *t, const struct conf *conf, const char *what)
{
	int dir;

	for (dir = OUT; dir <= IN; dir++)
		fprintf(t->to, "xfrm policy update src %s dst %s proto %s dir %s priority %u\n",
			conf_src(conf, dir), conf_dst(conf, dir), what,
			dir == OUT ? "out" : "in", conf_reqid(conf));
}

/* All policies of a link; the exceptions first, lest there be a moment without them */
void text_policies(struct text *t, const struct conf *conf)
{
	bool tunnel = conf->n_tunnels, ipv6 = strchr(conf->ends.local, ':');
	const struct pair *nets = conf->tunnels;
	char out[160], in[160], local[NET_LEN + 4], peer[NET_LEN + 4];
	unsigned int i;

	if (conf->clear_ntp) {
		add_exception(t, conf, "17 dport 123");
		add_exception(t, conf, "17 sport 123");
	}
	/* Neighbour discovery has to work before ESP can. */
	if (ipv6 && !tunnel) {
		add_exception(t, conf, "58 type 135");
		add_exception(t, conf, "58 type 136");
	}
	if (!tunnel) {
		snprintf(out, sizeof(out), "tmpl proto esp reqid %u mode transport",
			 conf_reqid(conf));
		snprintf(local, sizeof(local), "%s/%d", conf->ends.local, ipv6 ? 128 : 32);
		snprintf(peer, sizeof(peer), "%s/%d", conf->ends.peer, ipv6 ? 128 : 32);
		add_policy(t, local, peer, "out", out);
		add_policy(t, peer, local, "in", out);
	}
	snprintf(out, sizeof(out), "tmpl src %s dst %s proto esp reqid %u mode tunnel",
		 conf->ends.local, conf->ends.peer, conf_reqid(conf));
	snprintf(in, sizeof(in), "tmpl src %s dst %s proto esp reqid %u mode tunnel",
		 conf->ends.peer, conf->ends.local, conf_reqid(conf));
	for (i = 0; i < conf->n_tunnels; i++) {
		add_policy(t, nets[i].local, nets[i].peer, "out", out);
		add_policy(t, nets[i].peer, nets[i].local, "in", in);
		add_policy(t, nets[i].peer, nets[i].local, "fwd", in);
	}
}

/* stock: for a peer without minesp, which runs it in a shell where $N is defined */
void text_state(struct text *t, const struct conf *conf, int g, int dir, bool stock)
{
	const struct keys *keys = &conf->keys[g];
	const struct half *half = &keys->half[dir];
	uint32_t flags = MINESP_XFLAG_MINIMAL;
	const struct suite *s = conf->suite;
	uint64_t sn;

	fprintf(t->to, "xfrm state add src %s dst %s proto esp spi 0x%08x reqid %u mode %s",
		conf_src(conf, dir), conf_dst(conf, dir), half->spi, conf_reqid(conf),
		conf->n_tunnels ? "tunnel" : "transport");
	/* A tunnel may carry IPv4 and IPv6. */
	if (conf->n_tunnels || conf->esn)
		fprintf(t->to, " flag%s%s", conf->n_tunnels ? " af-unspec" : "",
			conf->esn ? " esn" : "");
	if (dir == IN || conf->esn)
		fprintf(t->to, " replay-window %u", conf->window);
	if (dir == IN && conf->esn && conf->clock) {
		/*
		 * Only the lower half of an SN is sent. So the receiver has to know
		 * about where the peer is; below that, since clocks differ.
		 */
		sn = ticks(keys->epoch, keys->tick, CLOCKS_DIFFER);
		fprintf(t->to, " replay-seq 0x%x replay-seq-hi 0x%x", (uint32_t)sn,
			(uint32_t)(sn >> 32));
	}
	fprintf(t->to, " %s '%s' ", s->auth ? "enc" : "aead", s->enc);
	add_key(t, half->key, s->enc_len);
	if (s->auth) {
		fprintf(t->to, " auth-trunc '%s' ", s->auth);
		add_key(t, half->key + s->enc_len, s->auth_len);
	}
	fprintf(t->to, " %u", s->icv);
	if (stock) {
		fprintf(t->to, "%s\n", dir == OUT && conf->clock ? " replay-oseq $N" : "");
		return;
	}
	/* An SA that only receives has no SNs of its own to run out of. */
	flags |= conf->clock && (dir == OUT || conf->implicit) ?
		 MINESP_XFLAG_CLOCK : MINESP_XFLAG_COUNTER;
	flags |= conf->fresh && dir == IN ? MINESP_XFLAG_FRESH : MINESP_XFLAG_ANY_AGE;
	if (conf->implicit)
		flags |= MINESP_XFLAG_IMPLICIT_IV;
	fprintf(t->to, " extra-flag 0x%08x\n", flags);
}

void text_delete_policy(struct text *t, const char *policy)
{
	fprintf(t->to, "xfrm policy delete %s\n", policy);
}

void text_delete_state(struct text *t, const struct conf *conf, int dir, uint32_t spi)
{
	fprintf(t->to, "xfrm state delete src %s dst %s proto esp spi 0x%08x\n",
		conf_src(conf, dir), conf_dst(conf, dir), spi);
}

/* Prints commands. Keys are the only numbers in them that have more than 32 bits. */
static void show(const char *lines)
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
bool text_run(struct text *t)
{
	const char *lines = text_lines(t);
	bool ok = true;
	FILE *ip;

	show(lines);
	if (*lines) {
		/* If ip ends early, its exit status says so. */
		signal(SIGPIPE, SIG_IGN);
		ip = popen("exec ip -batch -", "we");
		if (ip)
			fputs(lines, ip);
		ok = ip && !pclose(ip);
	}
	text_free(t);
	return ok;
}

/*
 * The peer's half for a host without minesp, as a shell script; without policies if
 * there are old keys, which it has run already. esp4 counts, so a key that is added
 * again would get the SNs of before; where the SNs of minesp come from the clock, the
 * counter starts there, too.
 */
void print_stock(const struct conf *peer)
{
	const struct keys *keys = &peer->keys[KEYS], *old = &peer->keys[OLD];
	struct text *t = text_new();
	int dir;

	printf("#!/bin/sh\n"
	       "# ESP between %s and %s, for a host without minesp, by iproute2.\n"
	       "# It has keys: keep it secret. Run it as root, at each boot.\n",
	       peer->ends.local, peer->ends.peer);
	if (peer->clock)
		printf("# The time has to be right by then. Send no more than %.6g packets/s on average,\n"
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
		       conf_src(peer, dir), conf_dst(peer, dir), old->half[dir].spi);
	text_free(t);
}
