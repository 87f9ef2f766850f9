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
	MINESP_IN_DIRECT,
	MINESP_IN_LOOKUP,
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
 * @sad_slots: net.minesp.sad_slots
 * @sad: the table from SPI to SA; NULL without minimal SAs
 * @sas: the minimal SAs
 * @sad_lock: for changing @sad and @sad_slots, and for @sas
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
	unsigned int sad_slots;
	struct minesp_sad __rcu *sad;
	struct list_head sas;
	struct mutex sad_lock;	/* for changing sad, sad_slots, sas */
};

#define minesp_stat_inc(mn, field) SNMP_INC_STATS((mn)->stats, field)

struct minesp_net *minesp_net(const struct net *net);
void minesp_net_put(struct minesp_net *mn);

/**
 * struct minesp_sa - what minesp keeps for one minimal SA
 * @mn: the SA's network namespace
 * @salt: what the SN is XORed with to make the IV, so that a key that is added
 *	  again, its SN back at 1, does not repeat a nonce
 * @x: the SA itself; NULL once it dies
 * @lock: for following @x from the table, see sad.c
 * @list: in @mn->sas
 * @rcu: for freeing: the table's readers may still look
 *
 * @mn and @salt are set up before the SA is visible, and constant from then on.
 */
struct minesp_sa {
	struct minesp_net *mn;
	u64 salt;
	struct xfrm_state *x;
	spinlock_t lock;	/* for following x from the table */
	struct list_head list;
	struct rcu_head rcu;
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

/* sad.c */
#define MINESP_SAD_SLOTS	1024
#define MINESP_SAD_SLOTS_MIN	2
#define MINESP_SAD_SLOTS_MAX	1048576
extern const struct seq_operations minesp_sad_seq_ops;
void minesp_sad_add(struct minesp_sa *sa);
void minesp_sad_del(struct minesp_sa *sa);
int minesp_sad_resize(struct minesp_net *mn, u32 slots);
void minesp_sad_learn(struct minesp_sa *sa, __be32 spi);
struct xfrm_state *minesp_sad_find(struct minesp_net *mn, __be32 spi);

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
