// SPDX-License-Identifier: GPL-2.0
/*
 * The xfrm_type for ESP: its registration next to esp4 and esp6, and how SAs are set up
 * and destroyed.
 *
 * esp4_offload and esp6_offload must never see a minimal SA, because they would take
 * x->data for their own. Up to 6.12, the core sets x->type_offload before it calls
 * minesp_init_state(), which clears it. In 7.3 the core sets it afterwards. It calls
 * minesp_notify() when it has added the SA. minesp_notify() clears x->type_offload, or
 * sets our own if net.minesp.offload is set, and only then makes the SA valid.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/kmod.h>
#include <linux/module.h>
#include <linux/random.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/udp.h>

#include "minesp.h"

static struct minesp_family {
	unsigned short family;
	/* NULL where the family is disabled. It lives as long as the module ipv6. */
	const struct xfrm_state_afinfo *afinfo;
	const struct xfrm_type *stock;	/* of esp4 or esp6, which is pinned; or NULL */
} families[] = {
	{ .family = AF_INET },
	{ .family = AF_INET6 },
};

/*
 * Make @x a stock SA: the core calls the stock type directly from here on. The stock
 * module is pinned while minesp is loaded, so __module_get() is safe.
 */
static int minesp_use_stock(struct xfrm_state *x, struct netlink_ext_ack *extack)
{
	const struct xfrm_type *stock =
		families[x->props.family == AF_INET6].stock;
	int err;

	if (!stock)
		return minesp_refuse(extack, -EPROTONOSUPPORT,
				     "no stock ESP (esp4, esp6) is loaded; use extra-flag 0x01000000");
	__module_get(stock->owner);
	x->type = stock;
	err = stock->init_state(x, extack);
	/*
	 * Drop the reference that the core took on minesp. init_state may sleep, so do
	 * this afterwards: minesp_exit() only waits for tasks that do not sleep.
	 */
	module_put(THIS_MODULE);
	return err;
}

/* Features that minimal ESP omits (RFC 9333), and settings that would repeat nonces */
static const struct minesp_unsupported minesp_unsup_spi =
	MINESP_UNSUPPORTED(-EINVAL, MINESP_STOCK_SPI, true,
			   "SPIs 0-255 are reserved; use spi 256 or higher");

static const struct minesp_unsupported minesp_unsup_mode =
	MINESP_UNSUPPORTED(-EOPNOTSUPP, MINESP_STOCK_MODE, true,
			   "no BEET or IPTFS; use mode transport or tunnel");

static const struct minesp_unsupported minesp_unsup_encap =
	MINESP_UNSUPPORTED(-EOPNOTSUPP, MINESP_STOCK_ENCAP, IS_ENABLED(CONFIG_INET_ESPINTCP),
			   "no such encapsulation; use encap espinudp");

static const struct minesp_unsupported minesp_unsup_tfc =
	MINESP_UNSUPPORTED(-EOPNOTSUPP, MINESP_STOCK_TFC, true,
			   "no TFC padding; omit tfcpad");

static const struct minesp_unsupported minesp_unsup_wrap =
	MINESP_UNSUPPORTED(-EINVAL, MINESP_STOCK_WRAP, true,
			   "oseq-may-wrap repeats nonces; rekey, or use flag esn");

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

/* The values of net.minesp.enabled */
enum { MINESP_STOCK, MINESP_MINIMAL, MINESP_PREFER_MINIMAL };

/* Choose the ESP for an SA. Return -EINVAL if its extra-flag bits contradict each other. */
static int minesp_choose(struct xfrm_state *x, struct netlink_ext_ack *extack)
{
	const struct minesp_net *mn = minesp_net(xs_net(x));
	u32 flags = x->props.extra_flags & MINESP_XFLAG_MASK;
	bool copy = minesp_is_copy(x);
	int choice = READ_ONCE(mn->enabled);

	/* A copy keeps the kind of its original: minimal if the bit is set, else stock. */
	if (flags & MINESP_XFLAG_STOCK || (!(flags & MINESP_XFLAG_MINIMAL) && copy))
		choice = MINESP_STOCK;
	else if (flags & MINESP_XFLAG_MINIMAL)
		choice = MINESP_MINIMAL;

	/* A stock SA from before minesp was loaded may have any bits. */
	if (choice == MINESP_STOCK && flags & ~MINESP_XFLAG_STOCK && !copy)
		return minesp_refuse(extack, -EINVAL,
				     "these extra-flag bits need a minimal SA; set 0x01000000, clear 0x02000000");
	/* Stock ESP does not have these features, so it cannot replace minimal ESP. */
	if (choice == MINESP_PREFER_MINIMAL &&
	    (flags || READ_ONCE(mn->sn_mode) || READ_ONCE(mn->rx_fresh)))
		choice = MINESP_MINIMAL;
	return choice;
}

/*
 * Set up @x as a minimal SA. After an error, minesp_destroy() cleans up. If @unsup is set,
 * there is nothing to clean up.
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
	/* Listings of the SA show this bit, and migration copies it. */
	x->props.extra_flags |= MINESP_XFLAG_MINIMAL;
	err = minesp_seqno_init(sa, x, extack);
	if (err)
		return err;
	minesp_iv_init(sa, x);
	/* encap() returns nothing, so it could not refuse an SN far ahead of the clock. */
	sa->offload = READ_ONCE(mn->offload) && !x->encap &&
		      !(x->props.extra_flags & MINESP_XFLAG_CLOCK);

	x->props.header_len = sizeof(struct ip_esp_hdr) + sa->ivlen;
	if (x->encap)
		x->props.header_len += sizeof(struct udphdr);
	if (x->props.mode == XFRM_MODE_TUNNEL)
		x->props.header_len += x->props.family == AF_INET6 ?
			sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	/* The most there can be: padding, Pad Length, Next Header, ICV. */
	x->props.trailer_len = ALIGN(crypto_aead_blocksize(aead), 4) + 1 +
			       crypto_aead_authsize(aead);
	return 0;
}

/* Make @x a stock SA because of @unsup, and report that. */
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
	 * Stock ESP refuses these for the same reason, but its message does not name it:
	 * "Kernel was unable to initialize cryptographic operations".
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
	bool copy = minesp_is_copy(x);
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
	/* The core frees a copy that is refused, and warns if the copy is not dead. */
	if (err)
		x->km.state = XFRM_STATE_DEAD;
	/* The core makes a copy valid itself, and sets no offload type for it. */
	if (err || copy || (!MINESP_LATE_OFFLOAD && !minesp_sa(x)->offload))
		return err;
	x->km.state = MINESP_STATE_NEW;
	/*
	 * The core may now offer the SA to a device. It does not offer an SA with TFC
	 * padding. minesp_notify() resets this.
	 */
	x->tfcpad = 1;
	return 0;
}

/* The core calls this a grace period after the last reference is gone. */
static void minesp_destroy(struct xfrm_state *x)
{
	struct minesp_sa *sa;

	/* Setting up the SA has failed early, and x->geniv is not ours. */
	if (!x->data)
		return;
	sa = minesp_sa(x);
	minesp_seqno_exit(sa);
	minesp_sad_del(sa);
	crypto_free_aead(x->data);
	memzero_explicit(&sa->iv_key, sizeof(sa->iv_key));
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
 * The core calls this when it has added an SA. Make an SA that came by netlink valid. An SA
 * that came by PF_KEY is valid already, and has no offload type. Senders read km.state
 * without a lock. But they take locks to build a bundle before they read x->type_offload,
 * so they see the value that is set here.
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
		/* Last, because xfrm_state_find() reads the state without the lock. */
		smp_store_release(&x->km.state, XFRM_STATE_VALID);
	}
	spin_unlock_bh(&x->lock);
	return 0;
}

/* The core requires the next two callbacks, but minesp is not a key manager. */
static int minesp_acquire(struct xfrm_state *x, struct xfrm_tmpl *tmpl,
			  struct xfrm_policy *pol)
{
	return -ESRCH;
}

static struct xfrm_policy *minesp_compile_policy(struct sock *sk, int opt,
						 u8 *data, int len, int *dir)
{
	return NULL;	/* *dir keeps the error of the managers called before */
}

static struct xfrm_mgr minesp_mgr = {
	.notify = minesp_notify,
	.acquire = minesp_acquire,
	.compile_policy = minesp_compile_policy,
};

static int minesp_pin_stock(struct minesp_family *f)
{
	int err = 0;

	/* Where IPv6 is disabled, esp6 would log an error. */
	rcu_read_lock();
	f->afinfo = xfrm_state_afinfo_get_rcu(f->family);
	rcu_read_unlock();
	if (!f->afinfo)
		return 0;

	/* Loaded later, the stock module would overwrite minesp's slot, with a WARN. */
	request_module("xfrm-type-%d-%d", f->family, IPPROTO_ESP);

	rcu_read_lock();
	f->stock = READ_ONCE(f->afinfo->type_esp);
	if (f->stock && !try_module_get(f->stock->owner)) {
		/* It is being unloaded, and clears the slot itself. */
		f->stock = NULL;
		err = -EBUSY;
	}
	rcu_read_unlock();
	if (!f->stock && !err)
		pr_info("no stock ESP for %s; to have it, load esp%d before minesp\n",
			f->family == AF_INET6 ? "IPv6" : "IPv4",
			f->family == AF_INET6 ? 6 : 4);
	return err;
}

/**
 * minesp_types_register - register the ESP types of IPv4 and IPv6
 *
 * Return: 0; or -EBUSY while a stock module is being unloaded. Nothing is registered then.
 */
int minesp_types_register(void)
{
	int i, err = 0;

	xfrm_register_km(&minesp_mgr);
	for (i = 0; i < ARRAY_SIZE(families) && !err; i++)
		err = minesp_pin_stock(&families[i]);
	if (err) {
		minesp_types_unregister();
		return err;
	}
	for (i = 0; i < ARRAY_SIZE(families); i++) {
		struct minesp_family *f = &families[i];

		/*
		 * Between the two calls the core finds no type for a new SA. It then
		 * calls request_module() and looks again. Registering fails for a family
		 * that is disabled, which is fine.
		 */
		if (f->stock)
			xfrm_unregister_type(f->stock, f->family);
		xfrm_register_type(&minesp_type, f->family);
	}
	return 0;
}

/**
 * minesp_types_unregister - undo minesp_types_register(), or the part that it has done
 */
void minesp_types_unregister(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(families); i++) {
		struct minesp_family *f = &families[i];

		if (f->afinfo && READ_ONCE(f->afinfo->type_esp) == &minesp_type) {
			xfrm_unregister_type(&minesp_type, f->family);
			if (f->stock)
				xfrm_register_type(f->stock, f->family);
		}
		module_put(f->stock ? f->stock->owner : NULL);
	}
	xfrm_unregister_km(&minesp_mgr);
}
