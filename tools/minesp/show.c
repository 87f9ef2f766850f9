// SPDX-License-Identifier: GPL-2.0
/*
 * minesp show: prints links and SAs, their problems, and the packets that were dropped.
 */
#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include "minesp.h"

static const char *const generations[] = { "keys", "next", "old" };

/* Counters and their meaning */
static const struct {
	const char *name, *says;
} drops[] = {
	{ "InIcvWrong", "wrong ICV: the peer has another key, or the packet was changed" },
	{ "InTooOld", "older than Fresh allows: replayed, or a clock is wrong" },
	{ "InTooNew", "newer than Fresh allows: a clock is wrong" },
	{ "InTruncated", "too short for ESP" },
	{ "InPadLength", "malformed, but with a right ICV: an error of the peer" },
	{ "InNextHeader", "with a protocol that cannot be inside ESP" },
	{ "InNoMemory", "received, but there was no memory" },
	{ "InCryptoError", "received, but the crypto API failed" },
	{ "OutAhead", "not sent: more at once than Ahead, or on average more than one a tick" },
	{ "OutStandby", "not sent: this gateway stands by, net.minesp.sn_active is 0" },
	{ "OutExpired", "not sent: no SNs are left; make new keys" },
	{ "OutTooBig", "not sent: too long for IP with ESP" },
	{ "OutNoMemory", "not sent: there was no memory" },
	{ "OutCryptoError", "not sent: the crypto API failed" },
	{ "ClockSetBack", "times the clock was set back: SNs may repeat after a boot; make new keys" },
	{ "XfrmInNoStates", "with an SPI that no SA here has" },
	{ "XfrmInNoPols", "came by an SA, but no policy allows them" },
	{ "XfrmInTmplMismatch", "came in the clear, but a policy asks for ESP" },
	{ "XfrmInStateSeqError", "replays, or later than Window allows" },
	{ "XfrmOutNoStates", "not sent: a policy asks for ESP, and there is no SA" },
};

/* Shows the last SN sent or the highest SN received, and its time if it has one. */
static void show_sn(const struct sa *sa, bool sent)
{
	uint64_t sn = sent ? sa->sent : sa->received, now;

	printf("%" PRIu64 " packets, SN %" PRIu64, sa->packets, sn);
	if (!sn || !(sent ? sa->clock : sa->fresh))
		return;
	now = ticks(sa->epoch, sa->tick, 0);
	if (sn > now)
		printf(", %" PRIu64 " of %u ticks ahead of the clock", sn - now, sa->ahead);
	else
		printf(", %s ago", duration((now - sn) * (sa->tick / 1e6)));
}

static void show_sa(struct sa *sa, int g, int dir)
{
	sa->shown = true;
	printf("  %s 0x%08x", dir == OUT ? "out" : "in ", sa->spi);
	if (g != KEYS)
		printf(" (%s)", generations[g]);
	printf(": ");
	show_sn(sa, dir == OUT);
	if (dir == IN)
		printf(", %s", sa->direct ? "direct" : "not direct");
	if (sa->replays || sa->failed)
		printf("; dropped: %" PRIu64 " replays, %" PRIu64 " with a wrong ICV",
		       sa->replays, sa->failed);
	printf("\n");
}

static void show_link(const struct conf *conf, const struct state *s)
{
	const struct pair *nets;
	struct sa *sa;
	int g, dir;

	printf("%s: %s - %s, %s, %s, SNs from the %s", conf->name, conf->ends.src[OUT],
	       conf->ends.src[IN], conf_mode(conf), conf->suite->name,
	       conf->clock ? "clock" : "counter");
	if (conf->clock)
		printf("%s%s", conf->esn ? " with ESN" : " until ",
		       conf->esn ? "" : date(keys_end(&conf->keys[KEYS])));
	printf("\n");
	problems(conf, s, stdout);
	if (conf->clock && stands_by())
		printf("  stands by: net.minesp.sn_active is 0\n");
	for (nets = conf->tunnels; nets < conf->tunnels + conf->n_tunnels; nets++)
		printf("  tunnel %s - %s\n", nets->src[OUT], nets->src[IN]);
	for_each_sa(conf, g, dir) {
		sa = state_find(s, conf, g, dir);
		if (sa)
			show_sa(sa, g, dir);
	}
}

static void json_link(const struct conf *conf, const struct state *s)
{
	const char *comma = "";
	const struct sa *sa;
	int g, dir;

	printf("{\"name\":\"%s\",\"local\":\"%s\",\"peer\":\"%s\",\"mode\":\"%s\",\"suite\":\"%s\","
	       "\"sn\":\"%s\",\"esn\":%s,\"problems\":%u",
	       conf->name, conf->ends.src[OUT], conf->ends.src[IN], conf_mode(conf),
	       conf->suite->name, conf->clock ? "clock" : "counter", conf->esn ? "true" : "false",
	       problems(conf, s, NULL));
	if (conf->clock && !conf->esn)
		printf(",\"end\":%" PRIu64, keys_end(&conf->keys[KEYS]));
	printf(",\"sas\":[");
	for_each_sa(conf, g, dir) {
		sa = state_find(s, conf, g, dir);
		if (!sa)
			continue;
		printf("%s{\"direction\":\"%s\",\"generation\":\"%s\",\"spi\":%u,\"sent\":%" PRIu64
		       ",\"received\":%" PRIu64 ",\"packets\":%" PRIu64 ",\"replays\":%" PRIu64
		       ",\"failed\":%" PRIu64 ",\"direct\":%s", comma,
		       dir == OUT ? "out" : "in", generations[g], sa->spi, sa->sent,
		       sa->received, sa->packets, sa->replays, sa->failed,
		       sa->direct ? "true" : "false");
		if (sa->tick)
			printf(",\"clock\":%" PRIu64 ",\"tick\":%u,\"epoch\":%u,\"ahead\":%u",
			       ticks(sa->epoch, sa->tick, 0), sa->tick, sa->epoch, sa->ahead);
		printf("}");
		comma = ",";
	}
	printf("]}");
}

/* Shows the drops in a file of counters. Returns shown plus the number of these. */
static int show_drops(const char *path, bool json, int shown)
{
	FILE *f = fopen(path, "re");
	char line[128], name[64];
	uint64_t n;
	size_t i;

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%63s %" SCNu64, name, &n) != 2 || !n)
			continue;
		for (i = 0; i < ARRAY_SIZE(drops) && strcmp(name, drops[i].name); )
			i++;
		if (i == ARRAY_SIZE(drops))
			continue;
		if (json)
			printf("%s\"%s\":%" PRIu64, shown ? "," : "", name, n);
		else
			printf("%s  %" PRIu64 " %s (%s)\n", shown ? "" :
			       "Not delivered or not sent in this network namespace, by any SA:\n",
			       n, drops[i].says, name);
		shown++;
	}
	if (f)
		fclose(f);
	return shown;
}

/* Shows the SAs of no link, which an IKE daemon or ip has added. */
static void show_others(const struct state *s)
{
	const struct sa *sa;

	for (sa = s->sas; sa < s->sas + s->n_sas; sa++)
		if (sa->minimal && !sa->shown) {
			printf("of no link: 0x%08x to %s, %s, SNs from the %s, ", sa->spi,
			       sa->dst, sa->suite, sa->clock ? "clock" : "counter");
			show_sn(sa, sa->sent);
			printf("\n");
		}
}

static int is_conf(const struct dirent *d)
{
	size_t len = strlen(d->d_name);

	return len > 5 && d->d_name[0] != '.' && !strcmp(d->d_name + len - 5, ".conf");
}

static void show(const char *name, const struct state *s, bool json)
{
	struct conf conf;

	conf_load(&conf, name);
	if (json)
		json_link(&conf, s);
	else
		show_link(&conf, s);
}

int cmd_show(int argc, char **argv)
{
	int json = 0, i, n;
	const struct option options[] = { { "json", no_argument, &json, 1 }, { 0 } };
	const char *name = only_word(argc, argv, options, false);
	struct dirent **entries;
	static struct state s;

	state_sas(&s);
	state_policies(&s);
	if (json)
		printf("{\"links\":[");
	if (name) {
		show(name, &s, json);
	} else {
		n = scandir(CONF_DIR, &entries, is_conf, alphasort);
		if (n <= 0)
			fprintf(stderr, "minesp: no links in " CONF_DIR ": minesp new makes one\n");
		for (i = 0; i < n; i++) {
			entries[i]->d_name[strlen(entries[i]->d_name) - 5] = 0;
			if (json && i)
				printf(",");
			show(entries[i]->d_name, &s, json);
			free(entries[i]);
		}
		if (n >= 0)
			free(entries);
		if (!json)
			show_others(&s);
	}
	if (json)
		printf("],\"drops\":{");
	n = show_drops("/proc/net/minesp_stat", json, 0);
	show_drops("/proc/net/xfrm_stat", json, n);
	if (json)
		printf("}}\n");
	return 0;
}
