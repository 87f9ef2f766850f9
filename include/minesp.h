/* SPDX-License-Identifier: GPL-2.0 */
/*
 * minesp - minimal ESP (RFC 9333) beside the kernel's esp4 and esp6
 */
#ifndef _MINESP_H
#define _MINESP_H

#include <crypto/aead.h>
#include <linux/refcount.h>
#include <net/snmp.h>
#include <net/xfrm.h>

#include "compat.h"

#if !IS_ENABLED(CONFIG_PROC_FS) || !IS_ENABLED(CONFIG_SYSCTL)
#error "minesp needs CONFIG_PROC_FS and CONFIG_SYSCTL"
#endif

/* The counters of /proc/net/minesp_stat; stats.c says what each one means. */
enum minesp_stat {
	MINESP_IN_PACKETS,
	MINESP_IN_DUMMIES,
	MINESP_IN_TRUNCATED,
	MINESP_IN_ICV,
	MINESP_IN_PAD_LENGTH,
	MINESP_IN_NO_MEMORY,
	MINESP_IN_CRYPTO,
	MINESP_OUT_PACKETS,
	MINESP_OUT_TOO_BIG,
	MINESP_OUT_NO_MEMORY,
	MINESP_OUT_CRYPTO,
	__MINESP_STAT_MAX
};

struct minesp_mib {
	unsigned long mibs[__MINESP_STAT_MAX];
};

/**
 * struct minesp_net - what minesp keeps for one network namespace
 * @users: the namespace itself, and each minimal SA in it
 * @stats: the counters of /proc/net/minesp_stat
 * @sysctl: the directory net.minesp
 * @enabled: net.minesp.enabled
 *
 * An SA may outlive the exit handler of its namespace: a packet whose crypto
 * is still under way holds it. So each SA holds this struct, and the last user
 * frees it.
 */
struct minesp_net {
	refcount_t users;
	struct minesp_mib __percpu *stats;
	struct ctl_table_header *sysctl;
	int enabled;
};

#define minesp_stat_inc(mn, field) SNMP_INC_STATS((mn)->stats, field)

struct minesp_net *minesp_net(const struct net *net);
void minesp_net_put(struct minesp_net *mn);

/**
 * struct minesp_sa - what minesp keeps for one minimal SA
 * @mn: the SA's network namespace
 * @salt: what the SN is XORed with to make the IV, so that a key that is added
 *	  again, its SN back at 1, does not repeat a nonce
 *
 * Set up before the SA is visible, constant from then on.
 */
struct minesp_sa {
	struct minesp_net *mn;
	u64 salt;
};

/*
 * x->data has to be the crypto_aead: xfrm_state_mtu() takes it for one. The
 * offload handle is for whoever runs the SA, and the core leaves it alone as
 * long as x->xso.dev is NULL, which it is for every minimal SA.
 */
static inline struct minesp_sa *minesp_sa(const struct xfrm_state *x)
{
	return (struct minesp_sa *)x->xso.offload_handle;
}

/* type.c */
int minesp_types_register(void);
void minesp_types_unregister(void);

/* suite.c */
struct crypto_aead *minesp_suite_init(struct xfrm_state *x,
				      struct netlink_ext_ack *extack);
__be64 minesp_iv(const struct minesp_sa *sa, u32 seq_hi, u32 seq);

/* crypt.c */
int minesp_crypt(struct xfrm_state *x, struct sk_buff *skb, int nfrags,
		 __be32 seq_hi, crypto_completion_t done, bool encrypt);
struct sk_buff *minesp_crypt_end(crypto_completion_data_t *data);

/* output.c */
int minesp_output(struct xfrm_state *x, struct sk_buff *skb);

/* input.c */
int minesp_input(struct xfrm_state *x, struct sk_buff *skb);
int minesp_protocols_register(void);
void minesp_protocols_unregister(void);

/* sysctl.c */
int minesp_sysctl_init(struct net *net, struct minesp_net *mn);
void minesp_sysctl_exit(struct minesp_net *mn);

/* stats.c */
int minesp_stats_init(struct net *net);
void minesp_stats_exit(struct net *net);

#endif
