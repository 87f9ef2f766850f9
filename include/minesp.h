/* SPDX-License-Identifier: GPL-2.0 */
/*
 * minesp - minimal ESP (RFC 9333) beside the kernel's esp4 and esp6
 */
#ifndef _MINESP_H
#define _MINESP_H

#include <crypto/aead.h>
#include <linux/completion.h>
#include <linux/mutex.h>
#include <linux/percpu-refcount.h>
#include <linux/refcount.h>
#include <linux/siphash.h>
#include <linux/spinlock.h>
#include <linux/xarray.h>
#include <net/esp.h>
#include <net/snmp.h>
#include <net/xfrm.h>
#include <uapi/linux/minesp.h>

#include "compat.h"

#if !IS_ENABLED(CONFIG_PROC_FS) || !IS_ENABLED(CONFIG_SYSCTL)
#error "minesp needs CONFIG_PROC_FS and CONFIG_SYSCTL"
#endif

/* The counters in /proc/net/minesp_stat, see stats.c. */
enum minesp_stat {
	MINESP_IN_PACKETS,
	MINESP_IN_DIRECT,
	MINESP_IN_LOOKUP,
	MINESP_IN_DUMMIES,
	MINESP_IN_TRUNCATED,
	MINESP_IN_ICV,
	MINESP_IN_PAD_LENGTH,
	MINESP_IN_NEXT_HEADER,
	MINESP_IN_TOO_OLD,
	MINESP_IN_TOO_NEW,
	MINESP_IN_NO_MEMORY,
	MINESP_IN_CRYPTO,
	MINESP_OUT_PACKETS,
	MINESP_OUT_TOO_BIG,
	MINESP_OUT_AHEAD,
	MINESP_OUT_STANDBY,
	MINESP_OUT_EXPIRED,
	MINESP_OUT_NO_MEMORY,
	MINESP_OUT_CRYPTO,
	MINESP_CLOCK_SET_BACK,
	MINESP_STOCK_SPI,
	MINESP_STOCK_MODE,
	MINESP_STOCK_ENCAP,
	MINESP_STOCK_TFC,
	MINESP_STOCK_WRAP,
	MINESP_STOCK_SUITE,
	MINESP_STOCK_KEY,
	__MINESP_STAT_MAX
};

struct minesp_mib {
	unsigned long mibs[__MINESP_STAT_MAX];
};

/**
 * struct minesp_clock - the clock for SNs, and lower bounds for the SNs of later SAs
 * @lock: protects setting @offset_max
 * @began: when the clock began, CLOCK_BOOTTIME in ns
 * @offset_max: the highest CLOCK_REALTIME - CLOCK_BOOTTIME at which an SN was made, ns
 * @sn_sent: the time of the highest SN sent ahead of the clock, ns since 1970
 *
 * The network namespaces that the initial user namespace owns share one, which begins
 * when the module is loaded. Any other namespace has its own, which begins with the
 * namespace. So its SAs cannot push the SNs of other namespaces forward.
 */
struct minesp_clock {
	spinlock_t lock;	/* offset_max */
	u64 began;
	atomic64_t offset_max;
	atomic64_t sn_sent;
};

/**
 * struct minesp_net - minesp's part of a network namespace
 * @users: references: one of the namespace, one of each minimal SA in it
 * @async: references: one of the namespace while it is alive, one of each packet in
 *	   asynchronous crypto
 * @async_ended: completed when @async drops to zero
 * @stats: the counters in /proc/net/minesp_stat
 * @sysctl: the directory net.minesp
 * @enabled: net.minesp.enabled
 * @sad_slots: net.minesp.sad_slots
 * @sn_mode: net.minesp.sn_mode
 * @sn_tick_us: net.minesp.sn_tick_us
 * @sn_epoch: net.minesp.sn_epoch
 * @sn_ahead: net.minesp.sn_ahead
 * @sn_active: net.minesp.sn_active
 * @sn_skew_ms: net.minesp.sn_skew_ms
 * @iv_sender: net.minesp.iv_sender
 * @offload: net.minesp.offload
 * @rx_fresh: net.minesp.rx_fresh
 * @rx_max_age_ms: net.minesp.rx_max_age_ms
 * @rx_max_ahead_ms: net.minesp.rx_max_ahead_ms
 * @clock: the clock for SNs
 * @active_lock: protects setting @sn_active and @took_over
 * @took_over: the time of the last takeover plus @sn_skew_ms, CLOCK_BOOTTIME in ns; 0
 *	       before the first one
 * @own_clock: the target of @clock, unless the initial user namespace owns this namespace
 * @offset: CLOCK_REALTIME - CLOCK_BOOTTIME when the last SN was made, ns
 * @key_tick: the tick of the SA that was added last, ns; 0 for none
 * @key_epoch: the epoch of the SA that was added last, ns since 1970
 * @sad: the table that maps an SPI to an SA; NULL before the first minimal SA
 * @sas: the minimal SAs by id, in the order in which they were added
 * @next_id: the next id for @sas
 * @sad_lock: protects changing @sad and @sad_slots; protects @key_tick and @key_epoch
 *
 * SAs outlive minesp's exit handler of their namespace, because xfrm flushes them in its
 * own exit handler, later. So each SA holds a reference.
 */
struct minesp_net {
	refcount_t users;
	struct percpu_ref async;
	struct completion async_ended;
	struct minesp_mib __percpu *stats;
	struct ctl_table_header *sysctl;
	unsigned int enabled, sad_slots, offload;
	unsigned int sn_mode, sn_tick_us, sn_epoch, sn_ahead;
	unsigned int sn_active, sn_skew_ms, iv_sender;
	unsigned int rx_fresh, rx_max_age_ms, rx_max_ahead_ms;
	struct mutex active_lock;	/* sn_active, took_over */
	struct minesp_clock *clock, own_clock;
	atomic64_t offset, took_over;
	u64 key_tick, key_epoch;
	struct minesp_sad __rcu *sad;
	struct xarray sas;
	u32 next_id;
	spinlock_t sad_lock;	/* sad, sad_slots, key_tick, key_epoch */
};

/* Set the extack message, and return err. */
#define minesp_refuse(extack, err, text) minesp_set_extack(extack, err, "minesp: " text)
static inline int minesp_set_extack(struct netlink_ext_ack *extack, int err,
				    const char *text)
{
	if (extack)
		extack->_msg = text;
	return err;
}

/**
 * struct minesp_unsupported - what an SA may ask for, and minimal ESP does not have
 * @err: why the SA is refused
 * @stat: counts SAs that have become stock instead
 * @text: what is wrong
 * @refused: the same, with the way out
 * @stock: the same, as a warning for an SA that has become stock
 */
struct minesp_unsupported {
	int err;
	enum minesp_stat stat;
	const char *text, *refused, *stock;
};

/* @stock_has: stock ESP supports it, so the message of a refusal suggests stock ESP */
#define MINESP_UNSUPPORTED(_err, _stat, stock_has, _text) {			\
	.err = _err,							\
	.stat = _stat,							\
	.text = "minesp: " _text,					\
	.refused = (stock_has) ?					\
		"minesp: " _text "; or use stock ESP (extra-flag 0x02000000)" : \
		"minesp: " _text,					\
	.stock = "minesp: SA uses stock ESP: " _text,			\
}

/* The last step for a packet in asynchronous crypto. @mn may be freed afterwards. */
static inline void minesp_async_end(struct minesp_net *mn)
{
	percpu_ref_put(&mn->async);
}

#define minesp_stat_inc(mn, field) SNMP_INC_STATS((mn)->stats, field)

/**
 * struct minesp_seqno - SNs from the clock, and freshness
 * @x: the SA
 * @tick: the length of a tick, ns
 * @epoch: the time of SN 0, ns since 1970
 * @rx_max_age: how much older than the clock a received SN may be, ns
 * @rx_max_ahead: how much newer than the clock a received SN may be, ns
 * @end: the highest SN
 * @soft: the SN that causes the soft expire event
 * @last: the last SN sent; 0 before the first packet; under x->lock
 * @floor: the highest SN that earlier SAs can have sent ahead of the clock, at least 1; 0
 *	   before the first packet; under x->lock
 * @took_over: the namespace's @took_over when @last was sent; under x->lock
 * @ahead: how many ticks SNs may run ahead of the clock
 * @iv_sender: the sender ID, in the highest byte of the IV; 0 for none
 * @timer: fires when the clock reaches @soft, and @end
 *
 * Only SAs with SNs from the clock or freshness have one. Only @last, @floor and
 * @took_over change after the SA has been added.
 */
struct minesp_seqno {
	struct xfrm_state *x;
	u64 tick, epoch;
	u64 rx_max_age, rx_max_ahead;
	u64 end, soft;
	u64 last, floor, took_over;
	u32 ahead;
	u8 iv_sender;
	struct hrtimer timer;
};

/**
 * struct minesp_sa - minesp's part of a minimal SA
 * @geniv: x->geniv points here, see minesp_sa()
 * @mn: the SA's network namespace
 * @iv_key: the key or mask for IVs, see minesp_iv_init()
 * @ivlen: the length of the IV in a packet, bytes
 * @gro_hash: random; keeps GRO from merging packets of different SAs
 * @offload: send through offload
 * @nested: the SA has carried AH, ESP or IPComp in transport mode. The core looks up the
 *	    SA of these at once, which needs a dst. A packet from GRO has none.
 * @seqno: SNs from the clock, and freshness; NULL for neither
 * @udp_sn: the highest SN received in UDP; under x->lock
 * @x: the xfrm_state; NULL once it is being destroyed
 * @lock: protects following @x from the table, see sad.c
 * @id: the index in @mn->sas
 * @rcu: for freeing, because readers of the table may still access this struct
 *
 * @mn, @iv_key and @ivlen are set before the SA is visible, and constant afterwards.
 */
struct minesp_sa {
	char geniv;		/* an empty string */
	struct minesp_net *mn;
	siphash_key_t iv_key;
	unsigned int ivlen;
	u32 gro_hash;
	bool offload, nested;
	struct minesp_seqno *seqno;
	u64 udp_sn;
	struct xfrm_state *x;
	spinlock_t lock;	/* for following x from the table */
	u32 id;
	struct rcu_head rcu;
};

/*
 * x->data must be the crypto_aead, because xfrm_state_mtu() uses it as one. So x->geniv
 * points into our struct. The core only passes it to esp4 and esp6, which use it as part
 * of an algorithm's name. x->xso belongs to drivers. x->mode_data does not exist before
 * 6.14.
 */
static inline struct minesp_sa *minesp_sa(const struct xfrm_state *x)
{
	return container_of(x->geniv, struct minesp_sa, geniv);
}

/*
 * km.state of an SA that is being added, until minesp_notify() makes it valid. The core
 * does not know this state. It treats it like XFRM_STATE_VOID, but does not change it to
 * XFRM_STATE_VALID itself.
 */
#define MINESP_STATE_NEW	(XFRM_STATE_DEAD + 1)

/*
 * Has migration made this SA as a copy of another one? In init_state, the state of any
 * other SA is void.
 */
static inline bool minesp_is_copy(const struct xfrm_state *x)
{
	return x->km.state != XFRM_STATE_VOID;
}

/*
 * The highest SN from the clock with ESN. The highest byte of the IV is free for
 * net.minesp.iv_sender. Ticks of a microsecond reach this SN after 2,283 years.
 */
#define MINESP_SN_MAX		(BIT_ULL(56) - 1)

/* An SN in x->replay_esn. Without ESN, @hi is what the user has given. */
static inline u64 minesp_esn(const struct xfrm_state *x, u32 hi, u32 low)
{
	return x->props.flags & XFRM_STATE_ESN ? (u64)hi << 32 | low : low;
}

/* The last SN that the core has counted for sending; under x->lock. */
static inline u64 minesp_oseq(const struct xfrm_state *x)
{
	const struct xfrm_replay_state_esn *esn = x->replay_esn;

	return esn ? minesp_esn(x, esn->oseq_hi, esn->oseq) : x->replay.oseq;
}

/* The highest SN that the core has entered in the replay window; under x->lock. */
static inline u64 minesp_rseq(const struct xfrm_state *x)
{
	const struct xfrm_replay_state_esn *esn = x->replay_esn;

	return esn ? minesp_esn(x, esn->seq_hi, esn->seq) : x->replay.seq;
}

/* The SN of a received packet */
static inline u64 minesp_sn(const struct sk_buff *skb)
{
	return (u64)ntohl(XFRM_SKB_CB(skb)->seq.input.hi) << 32 |
	       ntohl(XFRM_SKB_CB(skb)->seq.input.low);
}

/* type.c */
int minesp_types_register(void);
void minesp_types_unregister(void);

/* sad.c */
int minesp_sad_add(struct minesp_sa *sa);
void minesp_sad_del(struct minesp_sa *sa);
int minesp_sad_resize(struct minesp_net *mn, u32 slots);
void minesp_sad_learn(struct minesp_sa *sa, __be32 spi);
struct xfrm_state *minesp_sad_hold(struct minesp_sa *sa);
struct xfrm_state *minesp_sad_find(struct minesp_net *mn, __be32 spi);
long minesp_sad_slot(const struct minesp_sa *sa, __be32 spi, bool *direct);

/* list.c */
extern const struct seq_operations minesp_list_seq_ops;

/* suite.c */
struct crypto_aead *minesp_suite_init(const struct xfrm_state *x,
				      const struct minesp_unsupported **unsup,
				      struct netlink_ext_ack *extack);
void minesp_iv_init(struct minesp_sa *sa, const struct xfrm_state *x);
void minesp_iv(const struct minesp_sa *sa, u64 sn, u8 *iv);

/* crypt.c */
int minesp_make_writable(struct sk_buff *skb, int taillen, struct sk_buff **trailer);
int minesp_crypt(struct xfrm_state *x, struct sk_buff *skb,
		 struct ip_esp_hdr *esph, int nfrags, __be32 seq_hi,
		 crypto_completion_t done, bool encrypt);
struct sk_buff *minesp_crypt_end(crypto_completion_data_t *data);
void minesp_crypt_exit(void);

/* seqno.c */
void minesp_seqno_load(void);
void minesp_seqno_net(const struct net *net, struct minesp_net *mn);
int minesp_seqno_init(struct minesp_sa *sa, struct xfrm_state *x,
		      struct netlink_ext_ack *extack);
void minesp_seqno_exit(struct minesp_sa *sa);
void minesp_seqno_set_active(struct minesp_net *mn, bool active);
int minesp_seqno_next(struct xfrm_state *x, struct sk_buff *skb, u64 *sn);
void minesp_seqno_encap(struct xfrm_state *x, const struct sk_buff *skb,
			struct xfrm_offload *xo);
int minesp_seqno_xmit(struct xfrm_state *x, struct sk_buff *skb, u64 *sn);
int minesp_seqno_fresh(const struct xfrm_state *x, const struct sk_buff *skb);

/* udp.c */
struct ip_esp_hdr *minesp_udp_header(const struct xfrm_state *x,
				     struct sk_buff *skb);
void minesp_udp_checksum(const struct xfrm_state *x, struct sk_buff *skb);
void minesp_udp_input(struct xfrm_state *x, const struct sk_buff *skb);

/* offload.c */
extern const struct xfrm_type_offload minesp_type_offload;
int minesp_offload_enable(void);
void minesp_offload_disable(void);

/* output.c */
int minesp_output_end(struct xfrm_state *x, struct sk_buff *skb, int err);
int minesp_encrypt(struct xfrm_state *x, struct sk_buff *skb, u8 next, bool xmit,
		   crypto_completion_t done);
int minesp_output(struct xfrm_state *x, struct sk_buff *skb);

/*
 * Flags in the secpath's xfrm_offload that mark a packet with its SA. Nothing else sets
 * XFRM_XMIT when receiving.
 */
#define MINESP_DIRECT		(XFRM_GRO | XFRM_XMIT)
#define MINESP_DIRECT_GRO	(XFRM_GRO | XFRM_XMIT | XFRM_DEV_RESUME)

/* protocol.c */
bool minesp_direct_works(void);
bool minesp_direct_prepare(struct sk_buff *skb, struct xfrm_state *x, __be32 seq,
			   u16 family, u32 flags);
int minesp_direct_input(struct sk_buff *skb, struct minesp_net *mn, int encap_type);
void minesp_direct_end(struct xfrm_state *x, struct sk_buff *skb,
		       struct sec_path *sp);
int minesp_protocols_register(void);
void minesp_protocols_unregister(void);

/* input.c */
int minesp_input(struct xfrm_state *x, struct sk_buff *skb);

/* deliver.c */
int minesp_deliver_input(struct sk_buff *skb, int encap_type);
int minesp_deliver_cb(struct sk_buff *skb, int err);

/* netns.c */
extern struct pernet_operations minesp_net_ops;
struct minesp_net *minesp_net(const struct net *net);
void minesp_net_put(struct minesp_net *mn);

/* sysctl.c */
int minesp_sysctl_init(struct net *net, struct minesp_net *mn);
void minesp_sysctl_exit(struct minesp_net *mn);

/* stats.c */
int minesp_stats_init(struct net *net);
void minesp_stats_exit(struct net *net);

#endif
