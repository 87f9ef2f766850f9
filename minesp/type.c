// SPDX-License-Identifier: GPL-2.0
/*
 * The ESP xfrm_type of both families: taking its slot and giving it back,
 * standing beside esp4 and esp6, an SA's birth and death.
 *
 * esp4_offload and esp6_offload keep the slot of the xfrm_type_offload, for stock SAs.
 * They must never see a minimal SA, because they would read our x->data as theirs. Up
 * to 6.12, the core sets x->type_offload before it calls minesp_init_state(), which
 * clears it. In 7.3 the core sets it afterwards, and minesp_notify() clears it. The
 * core calls minesp_notify() when it has added the SA. If net.minesp.offload is set,
 * minesp_notify() then sets our own type. Until that is done the SA is not valid, so
 * nobody uses it.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/kmod.h>
#include <linux/module.h>
#include <linux/udp.h>

#include "minesp.h"

static struct minesp_family {
	unsigned short family;
	const struct xfrm_type *stock;	/* esp4's or esp6's, pinned; or NULL */
} families[] = {
	{ .family = AF_INET },
	{ .family = AF_INET6 },
};

/*
 * Turn @x, which nobody else sees yet, into an SA of the stock type. From here
 * on the core calls that type directly. The stock module is pinned as long as
 * minesp is loaded, so there is a reference to take.
 */
static int minesp_use_stock(struct xfrm_state *x, struct netlink_ext_ack *extack)
{
	const struct xfrm_type *stock =
		families[x->props.family == AF_INET6].stock;
	int err;

	if (!stock)
		return minesp_refuse(extack, -EPROTONOSUPPORT,
				     "the kernel's own ESP is not there (esp4, esp6); only minimal SAs can be added");
	__module_get(stock->owner);
	x->type = stock;
	err = stock->init_state(x, extack);
	/*
	 * Drop the reference that the core took for x->type. Do so after init_state,
	 * which may sleep. Our code runs on for a moment; minesp_exit() waits for tasks
	 * that do not sleep.
	 */
	module_put(THIS_MODULE);
	return err;
}

/* What minimal ESP leaves out (RFC 9333), and what would break its promises */
static const struct minesp_unsupported minesp_unsup_spi =
	MINESP_UNSUPPORTED(-EINVAL, MINESP_STOCK_SPI, true,
		    "SPIs 0-255 are reserved (RFC 4303 2.1); use one above 255");

static const struct minesp_unsupported minesp_unsup_mode =
	MINESP_UNSUPPORTED(-EOPNOTSUPP, MINESP_STOCK_MODE, true,
		    "only transport and tunnel mode, not BEET or IPTFS");

static const struct minesp_unsupported minesp_unsup_encap =
	MINESP_UNSUPPORTED(-EOPNOTSUPP, MINESP_STOCK_ENCAP, IS_ENABLED(CONFIG_INET_ESPINTCP),
		    "no encapsulation but espinudp");

static const struct minesp_unsupported minesp_unsup_tfc =
	MINESP_UNSUPPORTED(-EOPNOTSUPP, MINESP_STOCK_TFC, true,
		    "no TFC padding (RFC 9333 5)");

static const struct minesp_unsupported minesp_unsup_wrap =
	MINESP_UNSUPPORTED(-EINVAL, MINESP_STOCK_WRAP, true,
		    "oseq-may-wrap would repeat SNs and nonces; rekey, or use ESN (flag esn)");

static const struct minesp_unsupported *minesp_check(const struct xfrm_state *x)
{
	if (ntohl(x->id.spi) <= 255)
		return &minesp_unsup_spi;
	if (x->props.mode != XFRM_MODE_TRANSPORT &&
	    x->props.mode != XFRM_MODE_TUNNEL)
		return &minesp_unsup_mode;
	if (x->encap && x->encap->encap_type != UDP_ENCAP_ESPINUDP)
		return &minesp_unsup_encap;
	if (x->tfcpad)
		return &minesp_unsup_tfc;
	if (x->props.extra_flags & XFRM_SA_XFLAG_OSEQ_MAY_WRAP)
		return &minesp_unsup_wrap;
	return NULL;
}

/* What an SA is to be: the values of net.minesp.enabled */
enum { MINESP_STOCK, MINESP_MINIMAL, MINESP_PREFER_MINIMAL };

/* Negative: the SA's own bits make no sense. */
static int minesp_choose(struct xfrm_state *x, struct netlink_ext_ack *extack)
{
	const struct minesp_net *mn = minesp_net(xs_net(x));
	u32 flags = x->props.extra_flags & MINESP_XFLAG_MASK;
	int choice = READ_ONCE(mn->enabled);

	/*
	 * An SA that is not void is a copy that migration has made. The copy of a
	 * minimal SA has the bit for minimal. Any other copy stays stock.
	 */
	if (flags & MINESP_XFLAG_STOCK ||
	    (!(flags & MINESP_XFLAG_MINIMAL) && x->km.state != XFRM_STATE_VOID))
		choice = MINESP_STOCK;
	else if (flags & MINESP_XFLAG_MINIMAL)
		choice = MINESP_MINIMAL;

	if (choice == MINESP_STOCK && flags & ~MINESP_XFLAG_STOCK)
		return minesp_refuse(extack, -EINVAL,
				     "these bits of extra-flag are for minimal SAs: with 0x01000000 or net.minesp.enabled, and without 0x02000000");
	/* The kernel's own ESP does not have what was asked for. */
	if (choice == MINESP_PREFER_MINIMAL &&
	    (flags || READ_ONCE(mn->sn_mode) || READ_ONCE(mn->rx_fresh)))
		choice = MINESP_MINIMAL;
	return choice;
}

/*
 * Do everything but the choice. After an error, minesp_destroy() cleans up. If @unsup is
 * set, there is nothing to clean up.
 */
static int minesp_init_minimal(struct xfrm_state *x,
			       const struct minesp_unsupported **unsup,
			       struct netlink_ext_ack *extack)
{
	struct minesp_net *mn = minesp_net(xs_net(x));
	struct crypto_aead *aead;
	struct minesp_sa *sa;
	int err;

	*unsup = minesp_check(x);
	if (*unsup)
		return (*unsup)->err;

	sa = kzalloc(sizeof(*sa), GFP_KERNEL_ACCOUNT);
	if (!sa)
		return -ENOMEM;
	aead = minesp_suite_init(x, unsup, extack);
	if (IS_ERR(aead)) {
		kfree(sa);
		return PTR_ERR(aead);
	}
	x->data = aead;
	x->geniv = &sa->geniv;
	refcount_inc(&mn->users);
	sa->mn = mn;
	sa->x = x;
	sa->gro_hash = get_random_u32();
	spin_lock_init(&sa->lock);
	err = minesp_sad_add(sa);
	if (err)
		return err;
	/*
	 * A user who lists the SA sees this bit, and the copy of an SA that migrates
	 * has it.
	 */
	x->props.extra_flags |= MINESP_XFLAG_MINIMAL;
	err = minesp_seqno_init(sa, x, extack);
	if (err)
		return err;
	minesp_iv_init(sa, x);
	/* encap() cannot tell a sender that SNs run too far ahead of the clock. */
	sa->offload = READ_ONCE(mn->offload) && !x->encap &&
		      !(x->props.extra_flags & MINESP_XFLAG_CLOCK);

	x->props.header_len = sizeof(struct ip_esp_hdr) + sa->ivlen;
	if (x->encap)
		x->props.header_len += sizeof(struct udphdr);
	if (x->props.mode == XFRM_MODE_TUNNEL)
		x->props.header_len += x->props.family == AF_INET6 ?
			sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	/* At most: padding up to a block, Pad Length, Next Header, ICV. */
	x->props.trailer_len = ALIGN(crypto_aead_blocksize(aead), 4) + 1 +
			       crypto_aead_authsize(aead);
	return 0;
}

/* Hand over an SA that asks for something that minimal ESP does not have. */
static int minesp_use_stock_because(struct xfrm_state *x,
				const struct minesp_unsupported *unsup,
				struct netlink_ext_ack *extack)
{
	int err = minesp_use_stock(x, extack);

	if (!err) {
		minesp_stat_inc(minesp_net(xs_net(x)), unsup->stat);
		return minesp_set_extack(extack, 0, unsup->stock);
	}
	/*
	 * The stock type refuses these for the same reason, but it says "Kernel was
	 * unable to initialize cryptographic operations".
	 */
	if (unsup->stat == MINESP_STOCK_ENCAP || unsup->stat == MINESP_STOCK_SUITE ||
	    unsup->stat == MINESP_STOCK_KEY)
		minesp_set_extack(extack, err, unsup->text);
	return err;
}

static void minesp_drop_type_offload(struct xfrm_state *x)
{
	if (x->type_offload)
		module_put(x->type_offload->owner);
	x->type_offload = NULL;
}

static int minesp_init_state(struct xfrm_state *x,
			     struct netlink_ext_ack *extack)
{
	bool copy = x->km.state != XFRM_STATE_VOID;
	int choice = minesp_choose(x, extack), err = choice;
	const struct minesp_unsupported *unsup = NULL;

	if (choice == MINESP_STOCK)
		return minesp_use_stock(x, extack);
	if (choice > 0)
		err = minesp_init_minimal(x, &unsup, extack);
	if (unsup && choice == MINESP_PREFER_MINIMAL)
		return minesp_use_stock_because(x, unsup, extack);
	if (unsup)
		minesp_set_extack(extack, err, unsup->refused);
	minesp_drop_type_offload(x);
	/*
	 * If we refuse the copy of an SA that migrates, the core frees it as it is, and
	 * warns if its state is valid.
	 */
	if (err)
		x->km.state = XFRM_STATE_DEAD;
	/* The core makes a copy valid by itself, and gives it no offload type. */
	if (err || copy || (!MINESP_LATE_OFFLOAD && !minesp_sa(x)->offload))
		return err;
	x->km.state = MINESP_STATE_NEW;
	/*
	 * The core is about to look for an offload type, and may ask a device to run
	 * the SA. It does not ask for an SA with TFC padding; minesp_notify() takes
	 * that back.
	 */
	x->tfcpad = 1;
	return 0;
}

/* The core's garbage collector calls this a grace period after the last put. */
static void minesp_destroy(struct xfrm_state *x)
{
	struct minesp_sa *sa;

	if (!x->data)	/* and so x->geniv is not ours */
		return;
	sa = minesp_sa(x);
	minesp_seqno_exit(sa);
	minesp_sad_del(sa);
	crypto_free_aead(x->data);
	minesp_net_put(sa->mn);
	kfree_rcu(sa, rcu);
}

static const struct xfrm_type minesp_type = {
	.owner = THIS_MODULE,
	.proto = IPPROTO_ESP,
	.flags = XFRM_TYPE_REPLAY_PROT,
	.init_state = minesp_init_state,
	.destructor = minesp_destroy,
	.input = minesp_input,
	.output = minesp_output,
};

/*
 * The core has added an SA, and tells the key managers. Make the SA valid, if it came by
 * netlink; one that came by PF_KEY is valid already, and got no offload type. A sender
 * reads km.state without a lock, but takes locks to make a bundle of the SA before it
 * looks at x->type_offload. So it sees what is set here.
 */
static int minesp_notify(struct xfrm_state *x, const struct km_event *c)
{
	if ((c->event != XFRM_MSG_NEWSA && c->event != XFRM_MSG_UPDSA) ||
	    x->type != &minesp_type)
		return 0;
	spin_lock_bh(&x->lock);
	x->tfcpad = 0;
	if (x->km.state == MINESP_STATE_NEW) {
		minesp_drop_type_offload(x);
		if (minesp_sa(x)->offload) {
			__module_get(THIS_MODULE);
			x->type_offload = &minesp_type_offload;
		}
		/* Last, for who looks without the lock: xfrm_state_find(). */
		smp_store_release(&x->km.state, XFRM_STATE_VALID);
	}
	spin_unlock_bh(&x->lock);
	return 0;
}

/* The core calls the next two of every key manager: we are none. */
static int minesp_acquire(struct xfrm_state *x, struct xfrm_tmpl *tmpl,
			  struct xfrm_policy *pol)
{
	return -ESRCH;
}

static struct xfrm_policy *minesp_compile_policy(struct sock *sk, int opt,
						 u8 *data, int len, int *dir)
{
	return NULL;	/* *dir holds the error of managers asked before: leave it */
}

static struct xfrm_mgr minesp_mgr = {
	.notify = minesp_notify,
	.acquire = minesp_acquire,
	.compile_policy = minesp_compile_policy,
};

static int minesp_pin_stock(struct minesp_family *f)
{
	const struct xfrm_state_afinfo *afinfo;
	int err = 0;

	/* IPv6 may be disabled, and esp6 would complain. */
	rcu_read_lock();
	afinfo = xfrm_state_afinfo_get_rcu(f->family);
	rcu_read_unlock();
	if (!afinfo)
		return 0;

	/*
	 * If the stock module were loaded after us, it would overwrite our slot, with a
	 * WARN.
	 */
	request_module("xfrm-type-%d-%d", f->family, IPPROTO_ESP);

	rcu_read_lock();
	afinfo = xfrm_state_afinfo_get_rcu(f->family);
	f->stock = READ_ONCE(afinfo->type_esp);
	if (f->stock && !try_module_get(f->stock->owner)) {
		/* It is being unloaded: its slot is not ours to give back. */
		f->stock = NULL;
		err = -EBUSY;
	}
	rcu_read_unlock();
	if (!f->stock && !err)
		pr_info("no stock ESP for %s: load esp%d before minesp, not after\n",
			f->family == AF_INET6 ? "IPv6" : "IPv4",
			f->family == AF_INET6 ? 6 : 4);
	return err;
}

static void minesp_unpin_stock(struct minesp_family *f)
{
	module_put(f->stock ? f->stock->owner : NULL);
}

/**
 * minesp_types_register - make minesp the ESP of every family that there is
 *
 * Return: 0; -EBUSY while the stock module is being unloaded (try again), and
 * nothing has changed then.
 */
int minesp_types_register(void)
{
	int i, err;

	for (i = 0; i < ARRAY_SIZE(families); i++) {
		err = minesp_pin_stock(&families[i]);
		if (err)
			goto unpin;
	}
	xfrm_register_km(&minesp_mgr);
	for (i = 0; i < ARRAY_SIZE(families); i++) {
		struct minesp_family *f = &families[i];

		/*
		 * An SA that is added between the two calls finds no type; the
		 * core then asks modprobe for one, and looks again. It refuses
		 * a family that the host does not speak.
		 */
		if (f->stock)
			xfrm_unregister_type(f->stock, f->family);
		xfrm_register_type(&minesp_type, f->family);
	}
	return 0;

unpin:
	while (i--)
		minesp_unpin_stock(&families[i]);
	return err;
}

/**
 * minesp_types_unregister - give the slots back to the stock types
 */
void minesp_types_unregister(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(families); i++) {
		const struct xfrm_state_afinfo *afinfo;
		struct minesp_family *f = &families[i];
		bool ours;

		rcu_read_lock();
		afinfo = xfrm_state_afinfo_get_rcu(f->family);
		ours = afinfo && READ_ONCE(afinfo->type_esp) == &minesp_type;
		rcu_read_unlock();
		if (ours) {
			xfrm_unregister_type(&minesp_type, f->family);
			if (f->stock)
				xfrm_register_type(f->stock, f->family);
		}
		minesp_unpin_stock(f);
	}
	xfrm_unregister_km(&minesp_mgr);
}
