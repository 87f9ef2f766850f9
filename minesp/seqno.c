// SPDX-License-Identifier: GPL-2.0
/*
 * Sequence numbers from the clock (RFC 9333, section 4), and freshness of received SNs.
 * Counter SNs come from the core. With offload, minesp_seqno_xmit() hands them out.
 *
 * An SN is the number of whole ticks since the epoch. Packets within one tick run ahead
 * of the clock, by at most sn_ahead ticks. This is a token bucket that holds sn_ahead
 * tokens and gains one per tick.
 *
 * No SN repeats under one key, tick, epoch and sn_ahead while no two SAs use the key at
 * once:
 *
 * - Within an SA, each SN is above the last one.
 * - An SA starts above all SNs of earlier SAs that share its struct minesp_clock: above
 *   the clock, and above sn_sent if they ran ahead of the clock. An earlier SA with the
 *   same key is dead before this one is valid. A dead SA takes no SN, since km.state is
 *   checked under x->lock.
 * - An SA also starts above the clock at minesp_clock.began plus sn_ahead. No SN from
 *   before that time is higher. So no SN repeats after a reboot or a reload of the
 *   module, and the bucket is empty then. The clock may be wrong at boot, so this bound
 *   is computed when an SA makes its first SN.
 *
 * Two gateways may share a key if only one of them is active. The one that takes over
 * starts above all SNs that the other can send. These are at most sn_ahead ticks above
 * the other's clock. sn_skew_ms is the sum of two times: how far that clock is ahead of
 * ours, and how long the other goes on sending after the takeover.
 *
 * The clock is CLOCK_REALTIME, but it never goes back. When CLOCK_REALTIME is set back,
 * the clock continues with CLOCK_BOOTTIME from the latest time at which an SN was made.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/hrtimer.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>

#include "minesp.h"

/* Shared by all network namespaces that the initial user namespace owns. */
static struct minesp_clock host_clock;

static void minesp_clock_begin(struct minesp_clock *clock)
{
	spin_lock_init(&clock->lock);
	clock->began = ktime_get_boottime_ns();
}

/**
 * minesp_seqno_load - start the host's clock; call when the module is loaded
 */
void minesp_seqno_load(void)
{
	minesp_clock_begin(&host_clock);
}

/**
 * minesp_seqno_net - set the clock of a new namespace
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
 * Log a warning, but only for the host's namespaces. Others could fill the log, or use up
 * the rate limit and so hide the host's warnings.
 */
#define minesp_warn(mn, ...) do {					\
	if ((mn)->clock == &host_clock)					\
		pr_warn_ratelimited(__VA_ARGS__);			\
} while (0)

/*
 * CLOCK_REALTIME - CLOCK_BOOTTIME, in ns. Resume changes both offsets, in either order,
 * and possibly between two reads. So read until both are stable.
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
 * The clock for making SNs, in ns since 1970. It never goes back. The first caller after
 * the clock was set records the new offset.
 */
static u64 minesp_clock_advance(struct minesp_net *mn)
{
	struct minesp_clock *clock = mn->clock;
	s64 offset, back;

	/* Pairs with the release below, so that offset_max is current. */
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

/* The clock for other purposes: does not raise offset_max. */
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
 * Expire the SA when its SNs run out, as xfrm_state_check_expire() does for bytes and
 * packets. The caller must hold x->lock. @x must be valid: otherwise x->mtimer might be
 * started after the core has cancelled it for good. @x must be in the core's lists,
 * because expiry removes it from them.
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

/* SNs from the clock run out with time, even if the SA does not send. */
static enum hrtimer_restart minesp_seqno_timer(struct hrtimer *timer)
{
	struct minesp_seqno *s = container_of(timer, struct minesp_seqno, timer);
	struct xfrm_state *x = s->x;
	u64 sn = minesp_ticks(s, minesp_clock_read(minesp_sa(x)->mn));
	u8 state;

	spin_lock(&x->lock);
	state = x->km.state;
	/* PF_KEY makes an SA valid before it adds the SA. */
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

/*
 * Tick and epoch belong to the key, so warn when they change. Only init_state has an
 * extack, so a request that the core refuses later counts as a change, too.
 */
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
	bool copy = minesp_is_copy(x);
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

/* Check that the clock can make SNs for the SA, and start the timer for their end. */
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
 * minesp_seqno_init - set up SNs from the clock, and freshness, for an SA
 * @sa: the SA
 * @x: its state; the bits for what was chosen are set in extra_flags
 * @extack: set to the reason for an error, or to a warning
 *
 * The caller must call minesp_seqno_exit() in the end, also after an error.
 *
 * Return: 0; -EINVAL if the flags contradict each other, or if the clock cannot make
 * SNs; -EOPNOTSUPP for a migrated copy with any of these features; -ENOMEM.
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
 * minesp_seqno_exit - undo minesp_seqno_init(); may sleep
 * @sa: the SA; its xfrm_state must still exist
 */
void minesp_seqno_exit(struct minesp_sa *sa)
{
	if (!sa->seqno)
		return;
	hrtimer_cancel(&sa->seqno->timer);
	kfree(sa->seqno);
}

/*
 * The highest SN that earlier SAs with the same key can have sent ahead of the clock.
 * Computed once, at the first packet: other SAs still raise sn_sent, and might keep it
 * so far ahead of the clock that this SA never sends.
 */
static u64 minesp_seqno_floor(const struct minesp_seqno *s,
			      const struct minesp_clock *clock, u64 ticks)
{
	/*
	 * sn_sent may come from an SA with another tick or epoch, so limit it. No SA with
	 * this tick and epoch is further ahead of the clock.
	 */
	u64 sent = min(minesp_ticks(s, atomic64_read(&clock->sn_sent)),
		       ticks + s->ahead);

	return max(sent, 1ULL);
}

/* The SN to start above, see the top of this file. The user may have set @oseq. */
static u64 minesp_seqno_start(const struct minesp_seqno *s,
			      const struct minesp_clock *clock, u64 ticks,
			      u64 oseq)
{
	u64 began = clock->began + atomic64_read(&clock->offset_max);
	u64 start = max3(ticks, oseq, s->floor);

	/* No SA used this epoch before it began. */
	if (began > s->epoch)
		start = max(start, minesp_ticks(s, began) + s->ahead);
	return start;
}

/* Raise sn_sent to @ns, the time of an SN that is ahead of the clock. */
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
 * @active: whether SAs may make SNs from the clock
 *
 * After a call with false has returned, no SA makes such an SN. A call with true is a
 * takeover, even if @active was true before: the other gateway may have been active
 * meanwhile. After it has returned, SAs only make SNs above those of the other gateway.
 * May sleep.
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
	 * minesp_seqno_next() has bottom halves off, so this waits for senders that have
	 * read the old values. If sn_active was 0, no sender makes an SN from them.
	 */
	if (was_active)
		synchronize_rcu();
	mutex_unlock(&mn->active_lock);
}

/* Undo the core's counts for a packet that is not sent. NEWAE may have reset them. */
static void minesp_seqno_uncount(struct xfrm_state *x, const struct sk_buff *skb)
{
	x->curlft.bytes -= min_t(u64, x->curlft.bytes, skb->len);
	x->curlft.packets -= min_t(u64, x->curlft.packets, 1);
}

/**
 * minesp_seqno_next - get the SN of a packet
 * @x: the sending SA
 * @skb: the packet, with the core's SN in its control block
 * @sn: set to the SN
 *
 * SNs from the clock are unique, and increase in the order in which this function
 * releases x->lock. The last one is in x's oseq.
 *
 * Return: 0; -EBUSY if the SN would be too far ahead of the clock; -ENETDOWN while
 * net.minesp.sn_active is 0; -EOVERFLOW if no SN is left; -EINVAL if the SA is not
 * valid any more.
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
			minesp_clock_note_ahead(mn->clock, s->epoch + next * s->tick);
		minesp_seqno_check_expire(x, next);
	}
count:
	/* Overwrite the core's own count. */
	minesp_set_oseq(x, s->last ?: core - 1);
unlock:
	spin_unlock_bh(&x->lock);
	return err;
}

/**
 * minesp_seqno_encap - prepare the SNs of a packet that is sent through offload
 * @x: the sending SA
 * @skb: the packet, mostly a large one
 * @xo: its xfrm_offload, with the first of the SNs that the core reserved for it
 *
 * The core has counted a large packet once for the SA's lifetime, with the present
 * skb->len. Undo that, because minesp_seqno_xmit() counts the segments.
 */
void minesp_seqno_encap(struct xfrm_state *x, const struct sk_buff *skb,
			struct xfrm_offload *xo)
{
	/*
	 * orig_mac_len is unused when sending, so it counts the SNs that are left. The
	 * core splits a large packet inside another tunnel, GRE or VXLAN, before it calls
	 * encap(). The parts share one xfrm_offload, and the core's SN for one part
	 * overwrites that for another. So they get new SNs in minesp_seqno_xmit().
	 */
	if (!skb_is_gso(skb)) {
		xo->orig_mac_len = refcount_read(&skb->extensions->refcnt) == 1;
		return;
	}
	/* 0 for some packets from virtual machines: these get new SNs, too. */
	xo->orig_mac_len = skb_shinfo(skb)->gso_segs;
	spin_lock_bh(&x->lock);
	minesp_seqno_uncount(x, skb);
	spin_unlock_bh(&x->lock);
}

/**
 * minesp_seqno_xmit - get the SN of a packet or segment that is sent through offload
 * @x: the sending SA
 * @skb: the packet
 * @sn: set to the SN
 *
 * The segments of a packet share its xfrm_offload, and so do copies that tc makes of it.
 * So hand out the SNs that the core reserved for it under x->lock. When they are used up,
 * take new ones.
 *
 * Return: 0; -EOVERFLOW if no SN is left; -EINVAL if the SA is not valid any more, or its
 * lifetime has expired.
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
 * minesp_seqno_fresh - check the age of a received packet
 * @x: the receiving SA
 * @skb: the packet, with its SN in the control block, and a valid ICV
 *
 * Return: 0 if the SN is fresh, or if the SA does not require that; -EINVAL if not.
 */
int minesp_seqno_fresh(const struct xfrm_state *x, const struct sk_buff *skb)
{
	const struct minesp_seqno *s = minesp_sa(x)->seqno;
	u64 sn, now;

	if (!(x->props.extra_flags & MINESP_XFLAG_FRESH))
		return 0;

	now = ktime_get_real_ns();
	sn = minesp_sn(skb);
	/* Compare ticks: the time of an SN may exceed 64 bits. */
	if (now > s->rx_max_age && sn < minesp_ticks(s, now - s->rx_max_age))
		minesp_stat_inc(minesp_sa(x)->mn, MINESP_IN_TOO_OLD);
	else if (sn > minesp_ticks(s, now + s->rx_max_ahead))
		minesp_stat_inc(minesp_sa(x)->mn, MINESP_IN_TOO_NEW);
	else
		return 0;
	return -EINVAL;
}
