// SPDX-License-Identifier: GPL-2.0
/*
 * Sequence numbers from the clock (RFC 9333 4), and freshness on receive. SNs
 * that a counter makes are the core's.
 *
 * An SN is the number of whole ticks from the epoch to now. Several packets
 * within a tick run ahead of the clock, by sn_ahead ticks at most: a bucket
 * that gets a token a tick and holds sn_ahead of them.
 *
 * No SN repeats under one key, tick, epoch and sn_ahead, as long as no two SAs
 * have the key at once:
 *
 * - Within an SA each SN is above the last one.
 * - An SA's SNs start above whatever an SA before it has sent, in any namespace that
 *   shares its struct minesp_clock. That is no more than the clock now, or than
 *   sn_sent if it ran ahead. The SA before it takes no SN after its death, and dies
 *   before this one is alive; both are seen under x->lock.
 * - They also start above the clock plus sn_ahead at the time when the struct
 *   minesp_clock began. No SN from before exceeds that. So the bucket is empty then.
 *   It is reckoned back from the clock when the first SN is made: at boot it may
 *   not have been right yet.
 *
 * Two gateways may have one key, if only one of them is active. The one that becomes
 * active starts above the highest SN that the other one can have sent. That SN is sn_ahead
 * ticks above the other's clock at most. The other's clock is sn_skew_ms ahead of ours at
 * most.
 *
 * The clock is CLOCK_REALTIME, except that it does not go back: where it has
 * been set back, CLOCK_BOOTTIME carries on from the latest time at which an SN was
 * made.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/hrtimer.h>
#include <linux/math64.h>

#include "minesp.h"

/* That of all namespaces that the initial user namespace owns. */
static struct minesp_clock host_clock;

static void minesp_clock_begin(struct minesp_clock *clock)
{
	spin_lock_init(&clock->lock);
	clock->began = ktime_get_boottime_ns();
}

/**
 * minesp_seqno_load - the module is being loaded
 */
void minesp_seqno_load(void)
{
	minesp_clock_begin(&host_clock);
}

/**
 * minesp_seqno_net - give a new namespace its clock
 * @net: the namespace
 * @mn: minesp's part of it
 */
void minesp_seqno_net(const struct net *net, struct minesp_net *mn)
{
	mn->clock = &host_clock;
	if (net->user_ns == &init_user_ns)
		return;
	mn->clock = &mn->own_clock;
	minesp_clock_begin(mn->clock);
}

/*
 * Warn in the kernel's log; only for the host's own namespaces, or others fill
 * the log, and hide the host's warnings by the limit on their rate.
 */
#define minesp_warn(mn, ...) do {					\
	if ((mn)->clock == &host_clock)					\
		pr_warn_ratelimited(__VA_ARGS__);			\
} while (0)

/*
 * From CLOCK_BOOTTIME to CLOCK_REALTIME, in ns. Resuming moves both, and may do so
 * between our reading the one and the other, in either order.
 */
static s64 minesp_offset(void)
{
	ktime_t boot, real;

	do {
		boot = ktime_mono_to_any(0, TK_OFFS_BOOT);
		real = ktime_mono_to_any(0, TK_OFFS_REAL);
	} while (boot != ktime_mono_to_any(0, TK_OFFS_BOOT) ||
		 real != ktime_mono_to_any(0, TK_OFFS_REAL));
	return ktime_to_ns(ktime_sub(real, boot));
}

/*
 * The clock for making an SN: nanoseconds since 1970, never less than it was for
 * one before. The first caller that sees that the clock was set notes the new offset.
 */
static u64 minesp_clock_advance(struct minesp_net *mn)
{
	struct minesp_clock *clock = mn->clock;
	s64 offset, back;

	/* Pairs with the release below: then offset_max is right, too. */
	if (likely(minesp_offset() == atomic64_read_acquire(&mn->offset)))
		goto out;
	spin_lock(&clock->lock);
	offset = minesp_offset();
	back = atomic64_read(&mn->offset) - offset;
	if (offset > atomic64_read(&clock->offset_max))
		atomic64_set(&clock->offset_max, offset);
	atomic64_set_release(&mn->offset, offset);
	spin_unlock(&clock->lock);
	if (back > 0) {
		minesp_stat_inc(mn, MINESP_CLOCK_SET_BACK);
		minesp_warn(mn, "clock was set back by %lld ms; SNs may repeat after the next boot or module load\n",
			    div_s64(back, NSEC_PER_MSEC));
	}
out:
	return ktime_get_boottime_ns() + atomic64_read(&clock->offset_max);
}

/* The clock for all other purposes: it reads offset_max, and does not raise it. */
static u64 minesp_clock_read(const struct minesp_net *mn)
{
	return max_t(u64, ktime_get_real_ns(),
		     ktime_get_boottime_ns() +
		     atomic64_read(&mn->clock->offset_max));
}

static u64 minesp_ticks(const struct minesp_seqno *s, u64 ns)
{
	return ns > s->epoch ? div64_u64(ns - s->epoch, s->tick) : 0;
}

/*
 * Tell the key managers that the SA's SNs come to their end, or have come to
 * it, as xfrm_state_check_expire() does for bytes and packets. Called with
 * x->lock held. @x must be valid, so that x->mtimer is not started after the core
 * has cancelled it for good. And @x must be in the core's lists, since its expiry
 * removes it from them.
 */
static void minesp_seqno_check_expire(struct xfrm_state *x, u64 sn)
{
	const struct minesp_seqno *s = minesp_sa(x)->seqno;

	if (sn >= s->end) {
		x->km.state = XFRM_STATE_EXPIRED;
		hrtimer_start(&x->mtimer, 0, HRTIMER_MODE_REL_SOFT);
	} else if (sn >= s->soft && !x->km.dying) {
		x->km.dying = 1;
		km_state_expired(x, 0, 0);
	}
}

/* It is the clock that uses up the SNs, whether the SA sends or not. */
static enum hrtimer_restart minesp_seqno_timer(struct hrtimer *timer)
{
	struct minesp_seqno *s = container_of(timer, struct minesp_seqno, timer);
	struct xfrm_state *x = s->x;
	u64 sn = minesp_ticks(s, minesp_clock_read(minesp_sa(x)->mn));
	u8 state;

	spin_lock(&x->lock);
	state = x->km.state;
	/* PF_KEY makes an SA valid first, and then adds it. */
	if (state == XFRM_STATE_VALID && list_empty(&x->km.all))
		state = MINESP_STATE_NEW;
	if (state == XFRM_STATE_VALID)
		minesp_seqno_check_expire(x, sn);
	spin_unlock(&x->lock);
	if (state == XFRM_STATE_VOID || state == MINESP_STATE_NEW)
		hrtimer_forward_now(timer, NSEC_PER_MSEC);
	else if (state == XFRM_STATE_VALID && sn < s->end)
		hrtimer_set_expires(timer, s->epoch +
				    (sn < s->soft ? s->soft : s->end) * s->tick);
	else
		return HRTIMER_NORESTART;
	return HRTIMER_RESTART;
}

/* Tick and epoch belong to the key. Warn a user who changes them. */
static void minesp_seqno_changed(struct minesp_net *mn, u64 tick, u64 epoch,
				 struct netlink_ext_ack *extack)
{
	bool changed;

	spin_lock(&mn->sad_lock);
	changed = mn->key_tick &&
		  (mn->key_tick != tick || mn->key_epoch != epoch);
	if (changed)
		NL_SET_ERR_MSG_MOD(extack,
				   "sn_tick_us or sn_epoch changed since the last SA; use a new key");
	mn->key_tick = tick;
	mn->key_epoch = epoch;
	spin_unlock(&mn->sad_lock);
	if (changed)
		minesp_warn(mn, "net.minesp.sn_tick_us or sn_epoch changed; SNs and nonces may repeat under old keys\n");
}

/*
 * Add what the sysctls choose to the SA's extra_flags. A migrated copy keeps the flags of
 * its original, see minesp_choose().
 */
static int minesp_seqno_flags(const struct minesp_net *mn, struct xfrm_state *x,
			      struct netlink_ext_ack *extack)
{
	bool copy = x->km.state != XFRM_STATE_VOID;
	u32 flags = x->props.extra_flags;

	if (!copy && !(flags & MINESP_XFLAG_COUNTER) && READ_ONCE(mn->sn_mode))
		flags |= MINESP_XFLAG_CLOCK;
	if (!copy && !(flags & MINESP_XFLAG_ANY_AGE) && READ_ONCE(mn->rx_fresh))
		flags |= MINESP_XFLAG_FRESH;
	if (flags & MINESP_XFLAG_IMPLICIT_IV &&
	    !(flags & (MINESP_XFLAG_CLOCK | MINESP_XFLAG_NEW_KEY)))
		return minesp_refuse(extack, -EINVAL,
				     "implicit IV needs clock SNs, or a new key and extra-flag 0x80000000");
	if ((flags & MINESP_XFLAG_CLOCK && flags & MINESP_XFLAG_COUNTER) ||
	    (flags & MINESP_XFLAG_FRESH && flags & MINESP_XFLAG_ANY_AGE))
		return minesp_refuse(extack, -EINVAL,
				     "contradictory extra-flag; use clock or counter, fresh or any age");
	if (copy && flags & (MINESP_XFLAG_CLOCK | MINESP_XFLAG_FRESH |
			     MINESP_XFLAG_IMPLICIT_IV))
		return minesp_refuse(extack, -EOPNOTSUPP,
				     "SA with clock, freshness or implicit IV cannot migrate; add a new one");
	x->props.extra_flags = flags;
	return 0;
}

/* Check that the clock can make SNs for the SA, and set the timer for their end. */
static int minesp_seqno_clock(struct minesp_net *mn, struct minesp_seqno *s,
			      struct netlink_ext_ack *extack)
{
	u64 now = minesp_clock_read(mn), sn = minesp_ticks(s, now);

	if (s->iv_sender && s->x->props.extra_flags & MINESP_XFLAG_IMPLICIT_IV)
		return minesp_refuse(extack, -EINVAL,
				     "implicit IV has no room for a sender ID; set net.minesp.iv_sender=0");
	if (now < s->epoch)
		return minesp_refuse(extack, -EINVAL,
				     "the clock is before net.minesp.sn_epoch; correct one of them");
	if (sn >= s->end)
		return minesp_refuse(extack, -EINVAL,
				     "no SNs left since sn_epoch; use a new key and epoch, or flag esn");
	minesp_seqno_changed(mn, s->tick, s->epoch, extack);
	if (s->end == U32_MAX) {
		s->soft = s->end - div_u64(s->end - sn, 10);
		hrtimer_start(&s->timer, s->epoch + s->soft * s->tick,
			      HRTIMER_MODE_ABS_SOFT);
	}
	return 0;
}

/**
 * minesp_seqno_init - choose how an SA makes SNs, and whether received ones have to be
 * fresh
 * @sa: the SA
 * @x: its state; extra_flags gets the bits of what was chosen
 * @extack: receives the reason of a refusal, or a warning
 *
 * The caller must call minesp_seqno_exit() in the end, also after an error.
 *
 * Return: 0; -EINVAL when bits contradict each other, the clock is not fit for
 * SNs, or there are none left; -EOPNOTSUPP for an SA that migrates; -ENOMEM.
 */
int minesp_seqno_init(struct minesp_sa *sa, struct xfrm_state *x,
		      struct netlink_ext_ack *extack)
{
	struct minesp_net *mn = sa->mn;
	struct minesp_seqno *s;
	u32 flags;
	int err;

	err = minesp_seqno_flags(mn, x, extack);
	if (err)
		return err;
	flags = x->props.extra_flags;
	if (!(flags & (MINESP_XFLAG_CLOCK | MINESP_XFLAG_FRESH)))
		return 0;

	s = kzalloc(sizeof(*s), GFP_KERNEL_ACCOUNT);
	if (!s)
		return -ENOMEM;
	sa->seqno = s;
	s->x = x;
	hrtimer_setup(&s->timer, minesp_seqno_timer, CLOCK_REALTIME,
		      HRTIMER_MODE_ABS_SOFT);
	s->tick = (u64)READ_ONCE(mn->sn_tick_us) * NSEC_PER_USEC;
	s->epoch = (u64)READ_ONCE(mn->sn_epoch) * NSEC_PER_SEC;
	s->ahead = READ_ONCE(mn->sn_ahead);
	s->iv_sender = flags & MINESP_XFLAG_CLOCK ? READ_ONCE(mn->iv_sender) : 0;
	s->rx_max_age = (u64)READ_ONCE(mn->rx_max_age_ms) * NSEC_PER_MSEC;
	s->rx_max_ahead = (u64)READ_ONCE(mn->rx_max_ahead_ms) * NSEC_PER_MSEC;
	s->end = x->props.flags & XFRM_STATE_ESN ? MINESP_SN_MAX : U32_MAX;
	s->soft = s->end;
	if (!s->epoch)
		return minesp_refuse(extack, -EINVAL,
				     "no epoch; set net.minesp.sn_epoch to when the key was made");
	return flags & MINESP_XFLAG_CLOCK ? minesp_seqno_clock(mn, s, extack) : 0;
}

/**
 * minesp_seqno_exit - end what minesp_seqno_init() started
 * @sa: the SA, its state still there; the caller may sleep
 */
void minesp_seqno_exit(struct minesp_sa *sa)
{
	if (!sa->seqno)
		return;
	hrtimer_cancel(&sa->seqno->timer);
	kfree(sa->seqno);
}

/*
 * The highest SN that SAs before this one can have sent ahead of the clock. They send no
 * more. Others go on, so this is only worked out when the SA has its first packet: it
 * would stay ahead of the clock otherwise, and the SA would never send.
 */
static u64 minesp_seqno_floor(const struct minesp_seqno *s,
			       const struct minesp_clock *clock, u64 ticks)
{
	/*
	 * sn_sent may come from an SA with another tick or epoch. Then it means
	 * nothing here, and the limit makes it harmless: an SA with this tick and
	 * epoch is never further ahead of the clock.
	 */
	u64 sent = min(minesp_ticks(s, atomic64_read(&clock->sn_sent)),
		       ticks + s->ahead);

	return max(sent, 1ULL);
}

/*
 * The SN that an SA starts above, as said at the top; @oseq is what whoever added
 * the SA may have given it.
 */
static u64 minesp_seqno_start(const struct minesp_seqno *s,
			      const struct minesp_clock *clock, u64 ticks,
			      u64 oseq)
{
	u64 began = clock->began + atomic64_read(&clock->offset_max);
	u64 start = max3(ticks, oseq, s->floor);

	/* No SA had this epoch before it began. */
	if (began > s->epoch)
		start = max(start, minesp_ticks(s, began) + s->ahead);
	return start;
}

static void minesp_clock_note_ahead(struct minesp_clock *clock, s64 ns)
{
	s64 old = atomic64_read(&clock->sn_sent);

	while (old < ns && !atomic64_try_cmpxchg(&clock->sn_sent, &old, ns))
		;
}

/* Set minesp_oseq(). */
static void minesp_set_oseq(struct xfrm_state *x, u64 sn)
{
	if (x->replay_esn) {
		x->replay_esn->oseq = sn;
		x->replay_esn->oseq_hi = sn >> 32;
	} else {
		x->replay.oseq = sn;
	}
}

/**
 * minesp_seqno_set_active - set net.minesp.sn_active
 * @mn: the namespace
 * @active: whether its SAs send with SNs from the clock. After a call with false has
 *	    returned, no SA makes such an SN. A call with true takes over, also when SAs
 *	    did send before: another gateway may have been active meanwhile.
 *
 * The caller may sleep.
 */
void minesp_seqno_set_active(struct minesp_net *mn, bool active)
{
	bool was_active;

	/* Serialise, so that took_over and sn_active match the last call. */
	mutex_lock(&mn->active_lock);
	was_active = mn->sn_active;
	if (active)
		atomic64_set(&mn->took_over, ktime_get_boottime_ns() +
			     (u64)READ_ONCE(mn->sn_skew_ms) * NSEC_PER_MSEC);
	/* Pairs with minesp_seqno_next(), which then sees took_over. */
	smp_store_release(&mn->sn_active, active);
	/*
	 * Wait for senders that read the old values: they have bottom halves off, so RCU
	 * waits for them. While sn_active was 0, no sender made an SN.
	 */
	if (was_active)
		synchronize_rcu();
	mutex_unlock(&mn->active_lock);
}

/* A packet that is not sent does not count. NEWAE may have set both to 0. */
static void minesp_seqno_uncount(struct xfrm_state *x, const struct sk_buff *skb)
{
	x->curlft.bytes -= min_t(u64, x->curlft.bytes, skb->len);
	x->curlft.packets -= min_t(u64, x->curlft.packets, 1);
}

/**
 * minesp_seqno_next - the SN of a packet
 * @x: the sending SA
 * @skb: the packet, with the core's SN in its control block
 * @sn: receives the SN
 *
 * With SNs from the clock they are unique, and increase in the order in which
 * this function gives up x->lock. The last one is x's oseq.
 *
 * Return: 0; -EBUSY when it would run too far ahead of the clock; -ENETDOWN while
 * net.minesp.sn_active is 0; -EOVERFLOW when there are no more; -EINVAL when the SA has
 * died meanwhile.
 */
int minesp_seqno_next(struct xfrm_state *x, struct sk_buff *skb, u64 *sn)
{
	u64 core = (u64)XFRM_SKB_CB(skb)->seq.output.hi << 32 |
		   XFRM_SKB_CB(skb)->seq.output.low;
	struct minesp_net *mn = minesp_sa(x)->mn;
	struct minesp_seqno *s = minesp_sa(x)->seqno;
	u64 ticks, last, next, took_over;
	int err = 0;

	if (!(x->props.extra_flags & MINESP_XFLAG_CLOCK)) {
		*sn = core;
		return 0;
	}

	spin_lock_bh(&x->lock);
	if (unlikely(x->km.state != XFRM_STATE_VALID)) {
		minesp_stat_inc(mn, MINESP_OUT_EXPIRED);
		err = -EINVAL;
		goto unlock;
	}
	/* Pairs with minesp_seqno_set_active(). */
	if (unlikely(!smp_load_acquire(&mn->sn_active))) {
		minesp_seqno_uncount(x, skb);
		minesp_stat_inc(mn, MINESP_OUT_STANDBY);
		err = -ENETDOWN;
		goto count;
	}
	ticks = minesp_ticks(s, minesp_clock_advance(mn));
	if (unlikely(!s->floor))
		s->floor = minesp_seqno_floor(s, mn->clock, ticks);
	last = s->last ?: minesp_seqno_start(s, mn->clock, ticks, core - 1);
	took_over = atomic64_read(&mn->took_over);
	if (unlikely(took_over != s->took_over))
		last = max(last, s->ahead +
			   minesp_ticks(s, took_over +
					atomic64_read(&mn->clock->offset_max)));
	next = max(ticks, last + 1);
	if (unlikely(next > s->end)) {
		minesp_stat_inc(mn, MINESP_OUT_EXPIRED);
		minesp_seqno_check_expire(x, next);
		err = -EOVERFLOW;
	} else if (unlikely(next > ticks + s->ahead)) {
		minesp_seqno_uncount(x, skb);
		minesp_stat_inc(mn, MINESP_OUT_AHEAD);
		err = -EBUSY;
	} else {
		*sn = next;
		s->last = next;
		s->took_over = took_over;
		if (next > ticks)
			minesp_clock_note_ahead(mn->clock,
					  s->epoch + next * s->tick);
		minesp_seqno_check_expire(x, next);
	}
count:
	/* The core has counted for itself. */
	minesp_set_oseq(x, s->last ?: core - 1);
unlock:
	spin_unlock_bh(&x->lock);
	return err;
}

/**
 * minesp_seqno_encap - a packet takes the way of offload
 * @x: the sending SA
 * @skb: the packet, mostly a large one
 * @xo: its xfrm_offload, with the first of the SNs that the core has counted for it
 *
 * The core has counted a large packet as one for the SA's lifetime, and skb->len is still
 * what it has added. The segments count when they are sent.
 */
void minesp_seqno_encap(struct xfrm_state *x, const struct sk_buff *skb,
			struct xfrm_offload *xo)
{
	/*
	 * orig_mac_len is free when sending. It counts the SNs that are left. The core
	 * splits a large packet that is in another tunnel, GRE or VXLAN, before it
	 * comes here. The parts share one xfrm_offload, and the core's SN for one part
	 * overwrites that for another. So they get new ones in minesp_seqno_xmit().
	 */
	if (!skb_is_gso(skb)) {
		xo->orig_mac_len = refcount_read(&skb->extensions->refcnt) == 1;
		return;
	}
	/* May be 0 for a packet from a virtual machine: then there are none. */
	xo->orig_mac_len = skb_shinfo(skb)->gso_segs;
	spin_lock_bh(&x->lock);
	minesp_seqno_uncount(x, skb);
	spin_unlock_bh(&x->lock);
}

/**
 * minesp_seqno_xmit - the SN of a packet, or a segment, that is sent by way of offload
 * @x: the sending SA
 * @skb: the packet
 * @sn: receives the SN
 *
 * The segments of a packet share its xfrm_offload, and so do copies that tc has made of
 * it. So the SNs that the core has counted for it are given out under x->lock. When they
 * are used up, there is a new one.
 *
 * Return: 0; -EOVERFLOW when there are no more; -EINVAL when the SA has died meanwhile.
 */
int minesp_seqno_xmit(struct xfrm_state *x, struct sk_buff *skb, u64 *sn)
{
	struct xfrm_offload *xo = xfrm_offload(skb);
	u64 end = x->props.flags & XFRM_STATE_ESN ? U64_MAX : U32_MAX;
	int err = -EINVAL;

	spin_lock_bh(&x->lock);
	if (unlikely(x->km.state != XFRM_STATE_VALID))
		goto unlock;
	if (xo->flags & XFRM_GSO_SEGMENT) {
		if (xfrm_state_check_expire(x))
			goto unlock;
		x->curlft.bytes += skb->len;
		x->curlft.packets++;
	}
	if (likely(xo->orig_mac_len)) {
		xo->orig_mac_len--;
		*sn = (u64)xo->seq.hi << 32 | xo->seq.low;
		if (!++xo->seq.low)
			xo->seq.hi++;
	} else {
		*sn = minesp_oseq(x) + 1;
		err = -EOVERFLOW;
		if (unlikely(*sn - 1 >= end))
			goto unlock;
		minesp_set_oseq(x, *sn);
	}
	err = 0;
unlock:
	spin_unlock_bh(&x->lock);
	if (err)
		minesp_stat_inc(minesp_sa(x)->mn, MINESP_OUT_EXPIRED);
	return err;
}

/**
 * minesp_seqno_fresh - is a packet of about now?
 * @x: the receiving SA
 * @skb: the packet, its SN in its control block, its ICV right
 *
 * Return: 0 when it is, or nobody asks; -EINVAL.
 */
int minesp_seqno_fresh(const struct xfrm_state *x, const struct sk_buff *skb)
{
	const struct minesp_seqno *s = minesp_sa(x)->seqno;
	u64 sn, now;

	if (!(x->props.extra_flags & MINESP_XFLAG_FRESH))
		return 0;

	now = ktime_get_real_ns();
	sn = minesp_sn(skb);
	/* In ticks, since an SN in time may be more than 64 bits hold. */
	if (now > s->rx_max_age && sn < minesp_ticks(s, now - s->rx_max_age))
		minesp_stat_inc(minesp_sa(x)->mn, MINESP_IN_TOO_OLD);
	else if (sn > minesp_ticks(s, now + s->rx_max_ahead))
		minesp_stat_inc(minesp_sa(x)->mn, MINESP_IN_TOO_NEW);
	else
		return 0;
	return -EINVAL;
}
