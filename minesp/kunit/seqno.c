// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of seqno.c, with clocks that the tests set.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <kunit/test.h>
#include <linux/hrtimer.h>
#include <linux/module.h>
#include <linux/prandom.h>

#include "minesp.h"

static u64 boot_ns, real_ns;	/* CLOCK_BOOTTIME, CLOCK_REALTIME */
static int offset_reads;	/* number of ktime_mono_to_any() calls */
static void (*before_read)(void);	/* hook in each of these calls */
static int expired;		/* number of expire events for key managers */
static ktime_t forwarded;	/* last interval of hrtimer_forward_now() */

static ktime_t test_mono_to_any(ktime_t mono, enum tk_offsets offs)
{
	offset_reads++;
	if (before_read)
		before_read();
	return offs == TK_OFFS_REAL ? real_ns : boot_ns;
}

static void test_hrtimer_start(struct hrtimer *timer, ktime_t time,
			       enum hrtimer_mode mode)
{
}

/* noinline, or gcov would not count its caller. */
static noinline u64 test_hrtimer_forward_now(struct hrtimer *timer, ktime_t interval)
{
	forwarded = interval;
	return 1;
}

static void test_km_state_expired(struct xfrm_state *x, int hard, u32 portid)
{
	expired++;
}

#define ktime_get_boottime_ns() boot_ns
#define ktime_get_real_ns() real_ns
#define ktime_mono_to_any test_mono_to_any
#define hrtimer_start test_hrtimer_start
#define hrtimer_forward_now test_hrtimer_forward_now
#define km_state_expired test_km_state_expired
#undef pr_warn_ratelimited
#define pr_warn_ratelimited(...) do { } while (0)

#include "../seqno.c"

#define EPOCH (1700000000ULL * NSEC_PER_SEC)

/* An SA that sends and receives with SNs from the clock. */
struct minesp_seqno_test {
	struct minesp_net mn;
	struct minesp_sa sa;
	struct minesp_seqno seqno;
	struct xfrm_state x;
	struct list_head states;	/* the core's list of SAs */
	struct sk_buff skb;
	struct rnd_state rand;
};

/* Make the parts of an SA point to each other. */
static void link_sa(struct minesp_seqno_test *t)
{
	t->sa.mn = &t->mn;
	t->sa.seqno = &t->seqno;
	t->seqno.x = &t->x;
	spin_lock_init(&t->x.lock);
	INIT_LIST_HEAD(&t->states);
	list_add(&t->x.km.all, &t->states);
	t->x.geniv = &t->sa.geniv;
}

/* Turn the SA into a new one, which has not sent yet. */
static void new_sa(struct minesp_seqno_test *t)
{
	t->seqno.last = 0;
	t->seqno.floor = 0;
	t->seqno.took_over = 0;
	t->x.replay.oseq = 0;
	t->x.km.state = XFRM_STATE_VALID;
	t->x.km.dying = 0;
}

static void load_module(struct minesp_seqno_test *t)
{
	atomic64_set(&t->mn.offset, 0);
	atomic64_set(&host_clock.offset_max, 0);
	atomic64_set(&host_clock.sn_sent, 0);
	minesp_seqno_load();
}

static int minesp_seqno_test_init(struct kunit *test)
{
	struct minesp_seqno_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	u64 seed;

	KUNIT_ASSERT_NOT_NULL(test, t);
	t->mn.stats = alloc_percpu(struct minesp_mib);
	KUNIT_ASSERT_TRUE(test, t->mn.stats);
	t->mn.clock = &host_clock;
	t->mn.sn_active = 1;
	t->seqno.tick = 10 * NSEC_PER_MSEC;
	t->seqno.epoch = EPOCH;
	t->seqno.ahead = 1000;
	t->seqno.soft = U32_MAX;
	t->seqno.end = U32_MAX;
	link_sa(t);
	t->x.props.extra_flags = MINESP_XFLAG_CLOCK | MINESP_XFLAG_FRESH;
	seed = get_random_u64();
	kunit_info(test, "seed %llu", seed);
	prandom_seed_state(&t->rand, seed);
	boot_ns = NSEC_PER_SEC;
	real_ns = EPOCH + 1000 * NSEC_PER_SEC;
	expired = 0;
	before_read = NULL;
	load_module(t);
	new_sa(t);
	test->priv = t;
	return 0;
}

static void minesp_seqno_test_exit(struct kunit *test)
{
	struct minesp_seqno_test *t = test->priv;

	if (t)
		free_percpu(t->mn.stats);
}

static u32 rand_below(struct minesp_seqno_test *t, u32 limit)
{
	return prandom_u32_state(&t->rand) % limit;
}

static u64 rand_u64(struct minesp_seqno_test *t)
{
	u64 r = (u64)prandom_u32_state(&t->rand) << 32;

	return (r | prandom_u32_state(&t->rand)) >> rand_below(t, 64);
}

static void advance(u64 ns)
{
	boot_ns += ns;
	real_ns += ns;
}

/*
 * Reload the module, with a clock that is wrong at first. All earlier SNs were made
 * before @latest.
 */
static void load_again(struct minesp_seqno_test *t, u64 latest)
{
	u64 right = max(real_ns, latest) - boot_ns;

	load_module(t);
	real_ns = EPOCH / 2;
	advance(rand_below(t, 20000) * NSEC_PER_MSEC);
	real_ns = right + boot_ns;
	new_sa(t);
}

/* The core counts the packet before it calls minesp, even if the packet is dropped. */
static int next_sn(struct minesp_seqno_test *t, u64 *sn)
{
	XFRM_SKB_CB(&t->skb)->seq.output.low = ++t->x.replay.oseq;
	t->x.curlft.packets++;
	return minesp_seqno_next(&t->x, &t->skb, sn);
}

static void minesp_test_ticks(struct kunit *test)
{
	struct minesp_seqno_test *t = test->priv;
	struct minesp_seqno *s = &t->seqno;
	int i;

	KUNIT_EXPECT_EQ(test, minesp_ticks(s, 0), 0);
	KUNIT_EXPECT_EQ(test, minesp_ticks(s, EPOCH - 1), 0);
	KUNIT_EXPECT_EQ(test, minesp_ticks(s, EPOCH), 0);
	KUNIT_EXPECT_EQ(test, minesp_ticks(s, EPOCH + s->tick - 1), 0);
	KUNIT_EXPECT_EQ(test, minesp_ticks(s, EPOCH + s->tick), 1);
	KUNIT_EXPECT_EQ(test, minesp_ticks(s, EPOCH + s->tick * U32_MAX - 1),
			U32_MAX - 1);
	for (i = 0; i < 10000; i++) {
		u64 ns = EPOCH + (rand_u64(t) >> 2), n;

		s->tick = (1 + rand_below(t, USEC_PER_SEC)) * NSEC_PER_USEC;
		n = minesp_ticks(s, ns);
		KUNIT_ASSERT_LE(test, EPOCH + n * s->tick, ns);
		KUNIT_ASSERT_LT(test, ns - (EPOCH + n * s->tick), s->tick);
	}
}

/* The clock never goes back, whatever CLOCK_REALTIME is set to. */
static void minesp_test_clock(struct kunit *test)
{
	struct minesp_seqno_test *t = test->priv;
	u64 now, last = real_ns;
	u32 step;
	int i;

	KUNIT_EXPECT_EQ(test, minesp_clock_advance(&t->mn), real_ns);
	for (i = 0; i < 10000; i++) {
		step = rand_below(t, NSEC_PER_SEC);
		advance(step);
		if (!rand_below(t, 4))
			real_ns = EPOCH + (rand_u64(t) >> 4);
		now = minesp_clock_advance(&t->mn);
		KUNIT_ASSERT_EQ(test, now, max(real_ns, last + step));
		KUNIT_ASSERT_EQ(test, now, minesp_clock_read(&t->mn));
		last = now;
	}
}

/* Resume moves both clocks, possibly between two reads. */
static int boot_at, real_at;	/* the reads before which the clocks move */

static void resume(void)
{
	if (offset_reads == boot_at)
		boot_ns += NSEC_PER_SEC;
	if (offset_reads == real_at)
		real_ns += NSEC_PER_SEC;
}

static void minesp_test_resume(struct kunit *test)
{
	s64 offset = real_ns - boot_ns;

	before_read = resume;
	for (boot_at = 2; boot_at < 10; boot_at++) {
		for (real_at = boot_at - 1; real_at <= boot_at + 1; real_at++) {
			offset_reads = 0;
			KUNIT_EXPECT_EQ(test, minesp_offset(), offset);
			while (offset_reads < 10)
				test_mono_to_any(0, TK_OFFS_REAL);
		}
	}
}

/* A tenant's namespace has a clock of its own, separate from the host's. */
static void minesp_test_foreign(struct kunit *test)
{
	struct minesp_seqno_test *t = test->priv;
	struct user_namespace *user_ns = kunit_kzalloc(test, sizeof(*user_ns), GFP_KERNEL);
	struct net *net = kunit_kzalloc(test, sizeof(*net), GFP_KERNEL);
	struct minesp_net *host = kunit_kzalloc(test, sizeof(*host), GFP_KERNEL);
	u64 sn, wrong;

	KUNIT_ASSERT_TRUE(test, user_ns && net && host);
	net->user_ns = &init_user_ns;
	minesp_seqno_net(net, host);
	KUNIT_EXPECT_PTR_EQ(test, host->clock, &host_clock);
	advance(NSEC_PER_SEC);
	net->user_ns = user_ns;
	minesp_seqno_net(net, &t->mn);
	KUNIT_ASSERT_PTR_EQ(test, t->mn.clock, &t->mn.own_clock);
	KUNIT_EXPECT_EQ(test, t->mn.clock->began, boot_ns);
	KUNIT_EXPECT_EQ(test, host->clock->began, boot_ns - NSEC_PER_SEC);

	/* The tenant's SNs run ahead of a clock that is itself ahead. */
	wrong = 86400 * NSEC_PER_SEC;
	real_ns += wrong;
	advance(2 * t->seqno.ahead * t->seqno.tick);
	KUNIT_ASSERT_EQ(test, next_sn(t, &sn), 0);
	KUNIT_ASSERT_EQ(test, next_sn(t, &sn), 0);
	real_ns -= wrong;
	KUNIT_EXPECT_EQ(test, minesp_clock_read(&t->mn), real_ns + wrong);
	KUNIT_EXPECT_NE(test, atomic64_read(&t->mn.clock->sn_sent), 0);
	KUNIT_EXPECT_EQ(test, minesp_clock_read(host), real_ns);
	KUNIT_EXPECT_EQ(test, minesp_clock_advance(host), real_ns);
	KUNIT_EXPECT_EQ(test, atomic64_read(&host->clock->sn_sent), 0);
}

/* Boot a gateway with the SA of t, and with a clock of its own. */
static void boot_gateway(struct minesp_seqno_test *gw, struct minesp_seqno_test *t)
{
	gw->mn.stats = t->mn.stats;
	gw->mn.clock = &gw->mn.own_clock;
	gw->mn.sn_active = 0;
	gw->mn.sn_skew_ms = 500;
	atomic64_set(&gw->mn.offset, 0);
	atomic64_set(&gw->mn.took_over, 0);
	atomic64_set(&gw->mn.own_clock.offset_max, 0);
	atomic64_set(&gw->mn.own_clock.sn_sent, 0);
	mutex_init(&gw->mn.active_lock);
	minesp_clock_begin(&gw->mn.own_clock);
	gw->seqno = t->seqno;
	link_sa(gw);
	gw->x.props.extra_flags = MINESP_XFLAG_CLOCK;
	new_sa(gw);
}

/* Each of two gateways starts above the SNs of the other, with clocks that differ. */
static void minesp_test_take_over(struct kunit *test)
{
	struct minesp_seqno_test *t = test->priv, *gw, *old;
	u64 skew = 500 * NSEC_PER_MSEC, sn, latest = 0, right = real_ns;
	int i, n, failed;

	gw = kunit_kzalloc(test, sizeof(*gw), GFP_KERNEL);
	old = kunit_kzalloc(test, sizeof(*old), GFP_KERNEL);
	KUNIT_ASSERT_TRUE(test, gw && old);
	boot_gateway(gw, t);
	boot_gateway(old, t);
	for (i = 0; i < 1000; i++) {
		/* The old gateway stops, and may reboot later. */
		old->mn.sn_active = 0;
		KUNIT_ASSERT_EQ(test, next_sn(old, &sn), -ENETDOWN);
		if (!rand_below(t, 4))
			boot_gateway(old, t);
		real_ns = right + rand_below(t, skew + 1);
		minesp_seqno_set_active(&gw->mn, true);
		KUNIT_ASSERT_EQ(test, next_sn(gw, &sn), -EBUSY);
		boot_ns += skew + t->seqno.tick;
		right += skew + t->seqno.tick;
		for (n = 0; n < 5; n++) {
			real_ns = right + rand_below(t, skew + 1);
			/* It waits no longer than this, unless its own clock was ahead. */
			for (failed = 0; next_sn(gw, &sn); failed++) {
				KUNIT_ASSERT_LE(test, failed, 50);
				boot_ns += t->seqno.tick;
				right += t->seqno.tick;
				real_ns += t->seqno.tick;
			}
			KUNIT_ASSERT_GT(test, sn, latest);
			latest = sn;
			/* The SA is added again, with the same key. */
			if (!rand_below(t, 8))
				new_sa(gw);
			while (rand_below(t, 50) && !next_sn(gw, &sn)) {
				KUNIT_ASSERT_GT(test, sn, latest);
				latest = sn;
			}
			sn = rand_below(t, t->seqno.ahead / 2) * t->seqno.tick;
			boot_ns += sn;
			right += sn;
		}
		/* The gateway may use all its tokens before it stops, with its clock ahead. */
		real_ns = right + rand_below(t, 2) * skew;
		while (rand_below(t, 2000) && !next_sn(gw, &sn)) {
			KUNIT_ASSERT_GT(test, sn, latest);
			latest = sn;
		}
		swap(gw, old);
	}
	KUNIT_EXPECT_EQ(test, old->x.km.state, XFRM_STATE_VALID);
}

/* A new SA gets its tokens, even if another SA is always ahead of the clock. */
static void minesp_test_starve(struct kunit *test)
{
	struct minesp_seqno_test *t = test->priv, *other;
	int i, sent = 0;
	u64 sn;

	other = kunit_kzalloc(test, sizeof(*other), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, other);
	boot_gateway(other, t);
	other->mn.clock = t->mn.clock;
	other->mn.sn_active = 1;
	other->seqno.ahead = 100;
	for (i = 0; i < 1000; i++) {
		advance(t->seqno.tick);
		while (!next_sn(t, &sn))
			;
		sent += !next_sn(other, &sn);
	}
	KUNIT_EXPECT_GE(test, sent, 998);
}

/* The token bucket: one token per tick, sn_ahead at most, empty after loading. */
static void minesp_test_ahead(struct kunit *test)
{
	struct minesp_seqno_test *t = test->priv;
	struct minesp_seqno *s = &t->seqno;
	u64 sn, ticks = minesp_ticks(s, real_ns);
	int i;

	KUNIT_EXPECT_EQ(test, next_sn(t, &sn), -EBUSY);
	KUNIT_EXPECT_EQ(test, t->x.curlft.packets, 0);
	KUNIT_EXPECT_EQ(test, t->x.replay.oseq, 0);
	advance(s->tick - 1);
	KUNIT_EXPECT_EQ(test, next_sn(t, &sn), -EBUSY);
	advance(1);
	KUNIT_ASSERT_EQ(test, next_sn(t, &sn), 0);
	KUNIT_EXPECT_EQ(test, sn, ticks + s->ahead + 1);
	KUNIT_EXPECT_EQ(test, t->x.replay.oseq, sn);
	KUNIT_EXPECT_EQ(test, next_sn(t, &sn), -EBUSY);

	advance(2 * s->ahead * s->tick);
	ticks = minesp_ticks(s, real_ns);
	for (i = 0; i <= s->ahead; i++) {
		KUNIT_ASSERT_EQ(test, next_sn(t, &sn), 0);
		KUNIT_ASSERT_EQ(test, sn, ticks + i);
	}
	KUNIT_EXPECT_EQ(test, next_sn(t, &sn), -EBUSY);
	KUNIT_EXPECT_EQ(test, t->x.curlft.packets, s->ahead + 2);

	/* XFRM_MSG_NEWAE resets the counts after the core has counted the packet. */
	t->x.curlft.packets = 0;
	t->x.curlft.bytes = 0;
	t->skb.len = 100;
	KUNIT_EXPECT_EQ(test, minesp_seqno_next(&t->x, &t->skb, &sn), -EBUSY);
	KUNIT_EXPECT_EQ(test, t->x.curlft.packets, 0);
	KUNIT_EXPECT_EQ(test, t->x.curlft.bytes, 0);
}

/*
 * Each SN is above all earlier ones, even after the SA is deleted and added again, the
 * module is reloaded, the host reboots or the clock is set. The condition: by the clock
 * at the first SN, the module was loaded after the last earlier SN was made. Before the
 * first SN, the clock may show any time.
 */
static void minesp_test_unique(struct kunit *test)
{
	struct minesp_seqno_test *t = test->priv;
	struct minesp_seqno *s = &t->seqno;
	unsigned int sent = 0;
	u64 sn, highest = 0, latest = 0;
	int i, burst, err;

	/* Long ticks, so that all SNs fit in 32 bits. */
	s->tick = NSEC_PER_SEC;
	for (i = 0; i < 100000; i++) {
		switch (rand_below(t, 16)) {
		case 0:
			new_sa(t);
			break;
		case 1:		/* reboot */
			boot_ns = rand_below(t, NSEC_PER_SEC);
			fallthrough;
		case 2:
			load_again(t, latest);
			break;
		case 3:
			real_ns += rand_below(t, 10000) * NSEC_PER_MSEC;
			break;
		case 4:
			if (atomic64_read(&t->mn.offset))	/* an SN was made */
				real_ns -= rand_below(t, 10000) * NSEC_PER_MSEC;
			break;
		case 5:
			s->ahead = 1 + rand_below(t, 8);
			advance((u64)U16_MAX * NSEC_PER_SEC);
			load_again(t, latest);
			break;
		default:
			advance(rand_below(t, 3) ? rand_below(t, NSEC_PER_SEC) :
				rand_below(t, 20000) * NSEC_PER_MSEC);
		}
		for (burst = rand_below(t, 8); burst; burst--) {
			err = next_sn(t, &sn);
			latest = max(latest, minesp_clock_read(&t->mn));
			if (err) {
				KUNIT_ASSERT_EQ(test, err, -EBUSY);
				break;
			}
			KUNIT_ASSERT_GT(test, sn, highest);
			KUNIT_ASSERT_LE(test, sn, minesp_ticks(s, minesp_clock_read(&t->mn)) +
						  s->ahead);
			highest = sn;
			sent++;
		}
		latest = max(latest, real_ns);
	}
	KUNIT_EXPECT_GT(test, sent, 10000);
}

/* The soft expire event, the last SN, and no SN after it. */
static void minesp_test_end(struct kunit *test)
{
	struct minesp_seqno_test *t = test->priv;
	struct minesp_seqno *s = &t->seqno;
	u64 sn;

	s->soft = U32_MAX - 2;
	advance((U32_MAX - 5) * s->tick - (real_ns - EPOCH));
	KUNIT_ASSERT_EQ(test, next_sn(t, &sn), 0);
	KUNIT_EXPECT_EQ(test, sn, U32_MAX - 4);
	KUNIT_ASSERT_EQ(test, next_sn(t, &sn), 0);
	KUNIT_EXPECT_EQ(test, t->x.km.dying, 0);
	KUNIT_ASSERT_EQ(test, next_sn(t, &sn), 0);
	KUNIT_EXPECT_EQ(test, t->x.km.dying, 1);
	KUNIT_ASSERT_EQ(test, next_sn(t, &sn), 0);
	KUNIT_EXPECT_EQ(test, expired, 1);
	KUNIT_EXPECT_EQ(test, t->x.km.state, XFRM_STATE_VALID);
	KUNIT_ASSERT_EQ(test, next_sn(t, &sn), 0);
	KUNIT_EXPECT_EQ(test, sn, U32_MAX);
	KUNIT_EXPECT_EQ(test, t->x.km.state, XFRM_STATE_EXPIRED);
	KUNIT_EXPECT_EQ(test, next_sn(t, &sn), -EINVAL);

	/* The clock has passed the end, but the timer has not fired yet. */
	new_sa(t);
	advance(s->tick * 10);
	KUNIT_EXPECT_EQ(test, next_sn(t, &sn), -EOVERFLOW);
	KUNIT_EXPECT_EQ(test, t->x.km.state, XFRM_STATE_EXPIRED);
}

static void minesp_test_timer(struct kunit *test)
{
	struct minesp_seqno_test *t = test->priv;
	struct minesp_seqno *s = &t->seqno;

	s->epoch = real_ns;
	s->soft = 1000;
	s->end = 2000;
	KUNIT_EXPECT_EQ(test, minesp_seqno_timer(&s->timer), HRTIMER_RESTART);
	KUNIT_EXPECT_EQ(test, hrtimer_get_expires(&s->timer), s->epoch + 1000 * s->tick);
	KUNIT_EXPECT_EQ(test, expired, 0);

	advance(1000 * s->tick);
	KUNIT_EXPECT_EQ(test, minesp_seqno_timer(&s->timer), HRTIMER_RESTART);
	KUNIT_EXPECT_EQ(test, hrtimer_get_expires(&s->timer), s->epoch + 2000 * s->tick);
	KUNIT_EXPECT_EQ(test, expired, 1);
	KUNIT_EXPECT_EQ(test, t->x.km.state, XFRM_STATE_VALID);

	/* The timer retries while the SA is being added, and stops when it is dead. */
	advance(1000 * s->tick);
	t->x.km.state = XFRM_STATE_VOID;
	KUNIT_EXPECT_EQ(test, minesp_seqno_timer(&s->timer), HRTIMER_RESTART);
	KUNIT_EXPECT_EQ(test, forwarded, NSEC_PER_MSEC);
	KUNIT_EXPECT_EQ(test, t->x.km.state, XFRM_STATE_VOID);
	t->x.km.state = XFRM_STATE_DEAD;
	KUNIT_EXPECT_EQ(test, minesp_seqno_timer(&s->timer), HRTIMER_NORESTART);
	KUNIT_EXPECT_EQ(test, t->x.km.state, XFRM_STATE_DEAD);

	/* PF_KEY makes an SA valid before it adds the SA to the list. */
	t->x.km.state = XFRM_STATE_VALID;
	forwarded = 0;
	list_del_init(&t->x.km.all);
	KUNIT_EXPECT_EQ(test, minesp_seqno_timer(&s->timer), HRTIMER_RESTART);
	KUNIT_EXPECT_EQ(test, forwarded, NSEC_PER_MSEC);
	KUNIT_EXPECT_EQ(test, t->x.km.state, XFRM_STATE_VALID);
	list_add(&t->x.km.all, &t->states);
	KUNIT_EXPECT_EQ(test, minesp_seqno_timer(&s->timer), HRTIMER_NORESTART);
	KUNIT_EXPECT_EQ(test, t->x.km.state, XFRM_STATE_EXPIRED);
}

/* A migrated copy has the state of its original, which may have expired or be dead. */
static void minesp_test_copy(struct kunit *test)
{
	static const u8 states[] = {
		XFRM_STATE_VALID, XFRM_STATE_EXPIRED, XFRM_STATE_DEAD
	};
	struct minesp_seqno_test *t = test->priv;
	u32 flags = MINESP_XFLAG_IMPLICIT_IV | MINESP_XFLAG_NEW_KEY;
	int i;

	t->x.props.extra_flags = flags;
	for (i = 0; i < ARRAY_SIZE(states); i++) {
		t->x.km.state = states[i];
		KUNIT_EXPECT_EQ(test, minesp_seqno_init(&t->sa, &t->x, NULL), -EOPNOTSUPP);
	}
	t->x.km.state = XFRM_STATE_VOID;
	KUNIT_EXPECT_EQ(test, minesp_seqno_init(&t->sa, &t->x, NULL), 0);
	KUNIT_EXPECT_EQ(test, t->x.props.extra_flags, flags);
}

/* The rule for users: the times at which the SN's tick began and ended. */
static bool expect_fresh(const struct minesp_seqno *s, u64 sn, u64 now)
{
	u64 begin = s->epoch + sn * s->tick, end = begin + s->tick - 1;

	return end >= now - min(now, s->rx_max_age) &&
	       (begin <= now + s->rx_max_ahead || !sn);
}

static bool is_accepted(struct minesp_seqno_test *t, u64 sn)
{
	XFRM_SKB_CB(&t->skb)->seq.input.low = htonl(lower_32_bits(sn));
	XFRM_SKB_CB(&t->skb)->seq.input.hi = htonl(upper_32_bits(sn));
	return !minesp_seqno_fresh(&t->x, &t->skb);
}

static void minesp_test_fresh(struct kunit *test)
{
	struct minesp_seqno_test *t = test->priv;
	struct minesp_seqno *s = &t->seqno;
	int i, yes = 0;
	u64 sn, now;

	/* 100 ticks back, 200 ahead, at the begin and at the end of a tick */
	s->rx_max_age = 100 * s->tick;
	s->rx_max_ahead = 200 * s->tick;
	for (i = 0; i < 2; i++) {
		now = minesp_ticks(s, real_ns);
		KUNIT_EXPECT_TRUE(test, is_accepted(t, now));
		KUNIT_EXPECT_TRUE(test, is_accepted(t, now - 100));
		KUNIT_EXPECT_FALSE(test, is_accepted(t, now - 101));
		KUNIT_EXPECT_TRUE(test, is_accepted(t, now + 200));
		KUNIT_EXPECT_FALSE(test, is_accepted(t, now + 201));
		real_ns += s->tick - 1;
	}
	KUNIT_EXPECT_FALSE(test, is_accepted(t, 0));
	KUNIT_EXPECT_FALSE(test, is_accepted(t, U32_MAX));
	KUNIT_EXPECT_FALSE(test, is_accepted(t, U64_MAX));
	/* At boot without a clock, and just before the epoch */
	for (real_ns = 0; real_ns < EPOCH; real_ns += EPOCH - 1) {
		KUNIT_EXPECT_TRUE(test, is_accepted(t, 0));
		KUNIT_EXPECT_EQ(test, is_accepted(t, 1), expect_fresh(s, 1, real_ns));
		KUNIT_EXPECT_FALSE(test, is_accepted(t, U64_MAX));
	}

	for (i = 0; i < 100000; i++) {
		s->tick = (1 + rand_below(t, USEC_PER_SEC)) * NSEC_PER_USEC;
		s->rx_max_age = rand_below(t, 86400001) * NSEC_PER_MSEC >> rand_below(t, 20);
		s->rx_max_ahead = rand_below(t, 86400001) * NSEC_PER_MSEC >> rand_below(t, 20);
		real_ns = EPOCH + 10 * NSEC_PER_SEC + (rand_u64(t) >> 3);
		sn = minesp_ticks(s, real_ns);
		if (rand_below(t, 2))
			sn -= min(sn, div64_u64(s->rx_max_age, s->tick) + rand_below(t, 4) - 2);
		else
			sn += div64_u64(s->rx_max_ahead, s->tick) + rand_below(t, 4) - 2;
		KUNIT_ASSERT_EQ(test, is_accepted(t, sn), expect_fresh(s, sn, real_ns));
		yes += is_accepted(t, sn);
	}
	KUNIT_EXPECT_GT(test, yes, 10000);
	KUNIT_EXPECT_LT(test, yes, 90000);
}

static struct kunit_case minesp_seqno_cases[] = {
	KUNIT_CASE(minesp_test_ticks),
	KUNIT_CASE(minesp_test_clock),
	KUNIT_CASE(minesp_test_resume),
	KUNIT_CASE(minesp_test_foreign),
	KUNIT_CASE(minesp_test_take_over),
	KUNIT_CASE(minesp_test_starve),
	KUNIT_CASE(minesp_test_ahead),
	KUNIT_CASE(minesp_test_unique),
	KUNIT_CASE(minesp_test_end),
	KUNIT_CASE(minesp_test_timer),
	KUNIT_CASE(minesp_test_copy),
	KUNIT_CASE(minesp_test_fresh),
	{}
};

static struct kunit_suite minesp_seqno_suite = {
	.name = "minesp_seqno",
	.init = minesp_seqno_test_init,
	.exit = minesp_seqno_test_exit,
	.test_cases = minesp_seqno_cases,
};

kunit_test_suite(minesp_seqno_suite);
/* Of the module that all these files make. */
MODULE_DESCRIPTION("KUnit tests of minesp");
MODULE_LICENSE("GPL");
