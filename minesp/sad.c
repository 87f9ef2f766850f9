// SPDX-License-Identifier: GPL-2.0
/*
 * The SAD as RFC 9333 section 3 has it: from the SPI straight to the SA.
 *
 * Each namespace has a table that bits of the SPI index. A slot holds an inbound SA
 * that has received a packet with a right ICV. So outbound SAs stay out of the table,
 * and nobody on the network can fill it. The kernel's look-up finds the SAs that are
 * not in their slots.
 *
 * Lifetime. A reader that has found a struct minesp_sa in a slot may look at it
 * until its RCU section ends: minesp_destroy() frees it a grace period after
 * minesp_sad_del() took it out of the table. The xfrm_state behind it is freed
 * right after the destructor, without a grace period. So @sa->x is only
 * followed under @sa->lock, under which minesp_sad_del() clears it first; and a
 * reference is only taken while there are others, since an SA without any is
 * about to be destroyed.
 *
 * A table that is replaced is freed a grace period later. An SA that is learnt
 * into it meanwhile is lost from it, and learnt again. An SA that dies meanwhile is
 * not removed from it. That is safe: whoever still reads the old table began before
 * the SA died, and the SA is freed a grace period after. The last table goes with its
 * struct minesp_net.
 *
 * The core destroys the SAs of all namespaces one after the other, and whoever
 * removes a network device waits for that with the RTNL held. So minesp_sad_del()
 * waits for nobody: not for RCU, not for memory, and for no lock that is held for
 * longer than a few instructions. In particular not for who reads /proc/net/minesp,
 * which takes RCU for one SA at a time.
 */
#include <linux/mm.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>

#include "minesp.h"

struct minesp_sad {
	u32 mask;
	struct minesp_sa __rcu *slots[];
};

/*
 * An SPI may carry the SA in its upper three bytes and a rekey index in its
 * lowest one (RFC 9333 3.1). The slot takes one bit of the index, so that an SA
 * and its successor both have one.
 */
static struct minesp_sa __rcu **minesp_slot(struct minesp_sad *sad, __be32 spi)
{
	u32 bits = ntohl(spi);

	return &sad->slots[((bits >> 8) << 1 | (bits & 1)) & sad->mask];
}

static struct minesp_sad *minesp_sad_alloc(u32 slots)
{
	struct minesp_sad *sad;

	/*
	 * Up to 8 MB. The namespace's root chooses the size and pays for the memory;
	 * so the log has no warning when there is none.
	 */
	sad = kvzalloc(struct_size(sad, slots, slots),
		       GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (sad)
		sad->mask = slots - 1;
	return sad;
}

/**
 * minesp_sad_resize - change the number of slots, live
 * @mn: the namespace
 * @slots: a power of two
 *
 * Each SA enters the new table with its next packet. Before the first minimal SA there
 * is no table. This function then only notes the size, if there is memory for such a
 * table.
 *
 * Return: 0, or -ENOMEM, and nothing has changed then.
 */
int minesp_sad_resize(struct minesp_net *mn, u32 slots)
{
	struct minesp_sad *sad = minesp_sad_alloc(slots);
	bool used;

	if (!sad)
		return -ENOMEM;
	spin_lock(&mn->sad_lock);
	mn->sad_slots = slots;
	used = rcu_access_pointer(mn->sad) || !xa_empty(&mn->sas);
	if (used)
		sad = rcu_replace_pointer(mn->sad, sad,
					  lockdep_is_held(&mn->sad_lock));
	spin_unlock(&mn->sad_lock);
	/*
	 * Wait, instead of freeing the old table later. Otherwise a user who changes
	 * the size in a loop would pile up tables.
	 */
	if (used)
		synchronize_rcu();
	kvfree(sad);
	return 0;
}

/**
 * minesp_sad_add - add a minimal SA
 * @sa: the SA; not visible to anybody yet
 *
 * The first SA of a namespace makes the table. If there is no memory for it, or if its
 * size changes meanwhile, the kernel's look-up finds the SAs, and the next SA tries
 * again.
 *
 * Return: 0, or -ENOMEM.
 */
int minesp_sad_add(struct minesp_sa *sa)
{
	struct minesp_net *mn = sa->mn;
	struct minesp_sad *sad;
	int err;

	err = xa_alloc_cyclic(&mn->sas, &sa->id, sa, XA_LIMIT(1, INT_MAX),
			      &mn->next_id, GFP_KERNEL_ACCOUNT);
	if (err < 0)
		return err;
	if (rcu_access_pointer(mn->sad))
		return 0;
	sad = minesp_sad_alloc(READ_ONCE(mn->sad_slots));
	if (!sad)
		return 0;
	spin_lock(&mn->sad_lock);
	if (!rcu_access_pointer(mn->sad) && sad->mask == mn->sad_slots - 1) {
		rcu_assign_pointer(mn->sad, sad);
		sad = NULL;
	}
	spin_unlock(&mn->sad_lock);
	kvfree(sad);
	return 0;
}

/**
 * minesp_sad_del - remove a minimal SA
 * @sa: the SA, without any reference; afterwards no reader finds its state, and
 *	after a grace period none finds @sa
 */
void minesp_sad_del(struct minesp_sa *sa)
{
	struct minesp_net *mn = sa->mn;
	struct minesp_sa __rcu **slot;
	struct minesp_sad *sad;
	__be32 spi;

	spin_lock_bh(&sa->lock);
	spi = sa->x->id.spi;
	sa->x = NULL;
	spin_unlock_bh(&sa->lock);

	xa_erase(&mn->sas, sa->id);
	rcu_read_lock();
	sad = rcu_dereference(mn->sad);
	if (sad) {
		slot = minesp_slot(sad, spi);
		unrcu_pointer(cmpxchg(slot, RCU_INITIALIZER(sa), NULL));
	}
	rcu_read_unlock();
}

/* The state of an SA, referenced, if it has references yet. */
static struct xfrm_state *minesp_sad_hold(struct minesp_sa *sa)
{
	struct xfrm_state *x;

	spin_lock_bh(&sa->lock);
	x = sa->x;
	if (x && !refcount_inc_not_zero(&x->refcnt))
		x = NULL;
	spin_unlock_bh(&sa->lock);
	return x;
}

/* Whether the SA is dead, or about to be destroyed */
static bool minesp_sad_gone(struct minesp_sa *sa)
{
	bool gone;

	spin_lock(&sa->lock);
	gone = !sa->x || READ_ONCE(sa->x->km.state) != XFRM_STATE_VALID;
	spin_unlock(&sa->lock);
	return gone;
}

/**
 * minesp_sad_learn - enter an SA that has received a packet with a right ICV
 * @sa: the SA, referenced by the packet
 * @spi: its SPI
 *
 * The caller has bottom halves off. Keep the slot's current owner while that SA is
 * alive.
 */
void minesp_sad_learn(struct minesp_sa *sa, __be32 spi)
{
	struct minesp_sa __rcu **slot;
	struct minesp_sad *sad;
	struct minesp_sa *old;

	rcu_read_lock();
	sad = rcu_dereference(sa->mn->sad);
	if (sad) {
		slot = minesp_slot(sad, spi);
		old = rcu_dereference(*slot);
		if (unlikely(old != sa) && (!old || minesp_sad_gone(old)))
			unrcu_pointer(cmpxchg(slot, RCU_INITIALIZER(old),
					      RCU_INITIALIZER(sa)));
	}
	rcu_read_unlock();
}

/**
 * minesp_sad_find - the SA in the slot of an SPI
 * @mn: the namespace
 * @spi: the SPI
 *
 * Called with bottom halves off.
 *
 * Return: the SA, referenced, and not necessarily that of the packet: an SPI
 * may be in use with several addresses; or NULL: ask the kernel.
 */
struct xfrm_state *minesp_sad_find(struct minesp_net *mn, __be32 spi)
{
	struct xfrm_state *x = NULL;
	struct minesp_sad *sad;
	struct minesp_sa *sa;

	rcu_read_lock();
	sad = rcu_dereference(mn->sad);
	sa = sad ? rcu_dereference(*minesp_slot(sad, spi)) : NULL;
	if (sa)
		x = minesp_sad_hold(sa);
	rcu_read_unlock();
	if (x && unlikely(x->id.spi != spi)) {
		xfrm_state_put(x);
		x = NULL;
	}
	return x;
}

/*
 * /proc/net/minesp: the minimal SAs of a namespace, for a person to read; the
 * whole truth is in ip -s xfrm state. One line each, after a heading:
 *
 * SPI		hexadecimal
 * slot		where the table has a place for the SPI; - without a table
 * direct	whether the SA is in it; outbound SAs never are
 * SN		how the SN is made when sending
 * last-sent	the SN of the last packet sent, 0 for none
 * last-rcvd	the highest SN received, 0 for none
 * ESN		whether SNs have 64 bits
 * fresh	whether received SNs have to be of about now
 * tick-us	for SNs from the clock, and freshness; - for neither
 * epoch	likewise, in seconds since 1970
 * ahead	how many ticks SNs may run ahead of the clock
 * sender	the highest byte of an IV, see net.minesp.iv_sender
 * source	the address of the SA's sender
 * destination	that of its receiver
 * suite	as the crypto API names it
 */
/* The next SA from position @pos on; the heading is at 0, and an SA at its id. */
static void *minesp_sad_seq_at(struct seq_file *seq, loff_t *pos)
{
	unsigned long id = *pos;
	struct minesp_sa *sa;

	if (!id)
		return SEQ_START_TOKEN;
	if (*pos > INT_MAX)
		return NULL;
	sa = xa_find(&minesp_net(seq_file_net(seq))->sas, &id, INT_MAX,
		     XA_PRESENT);
	*pos = id;
	return sa;
}

/*
 * A user who may list the SAs with ip xfrm state may also read this file. The file's
 * mode cannot express that, because the root of a user namespace does not own the files
 * in /proc/net.
 */
static void *minesp_sad_seq_start(struct seq_file *seq, loff_t *pos)
	__acquires(RCU)
{
	rcu_read_lock();
	if (!file_ns_capable(seq->file, seq_file_net(seq)->user_ns,
			     CAP_NET_ADMIN))
		return ERR_PTR(-EPERM);
	return minesp_sad_seq_at(seq, pos);
}

static void *minesp_sad_seq_next(struct seq_file *seq, void *v, loff_t *pos)
{
	/* There may be many SAs, so let grace periods end in between. */
	rcu_read_unlock();
	cond_resched();
	rcu_read_lock();
	++*pos;
	return minesp_sad_seq_at(seq, pos);
}

static void minesp_sad_seq_stop(struct seq_file *seq, void *v)
	__releases(RCU)
{
	rcu_read_unlock();
}

static const char *minesp_yes(bool yes)
{
	return yes ? "yes" : "no";
}

static int minesp_sad_seq_show(struct seq_file *seq, void *v)
{
	struct minesp_net *mn = minesp_net(seq_file_net(seq));
	const struct minesp_seqno *s;
	struct minesp_sa *sa = v;
	struct minesp_sad *sad;
	struct xfrm_state *x;
	u64 sent, rcvd;
	long slot = -1;
	bool direct = false;

	if (v == SEQ_START_TOKEN) {
		seq_puts(seq, "SPI        slot    direct SN      last-sent  last-rcvd  ESN fresh tick-us epoch      ahead   sender source           destination      suite\n");
		return 0;
	}

	x = minesp_sad_hold(sa);
	if (!x)
		return SEQ_SKIP;
	/* Skip an SA that is still being set up. The core does not list it, either. */
	if (list_empty(&x->km.all)) {
		xfrm_state_put(x);
		return SEQ_SKIP;
	}
	sad = rcu_dereference(mn->sad);
	if (sad) {
		struct minesp_sa __rcu **p = minesp_slot(sad, x->id.spi);

		slot = p - sad->slots;
		direct = rcu_access_pointer(*p) == sa;
	}
	spin_lock_bh(&x->lock);
	s = sa->seqno;
	sent = minesp_oseq(x);
	rcvd = minesp_rseq(x);
	spin_unlock_bh(&x->lock);
	seq_printf(seq, "0x%08x %-7ld %-6s %-7s %-10llu %-10llu ",
		   ntohl(x->id.spi), slot, minesp_yes(direct),
		   x->props.extra_flags & MINESP_XFLAG_CLOCK ? "clock" :
							       "counter",
		   sent, rcvd);
	seq_printf(seq, "%-3s %-5s ", minesp_yes(x->props.flags & XFRM_STATE_ESN),
		   minesp_yes(x->props.extra_flags & MINESP_XFLAG_FRESH));
	if (s)
		seq_printf(seq, "%-7u %-10u %-7u %-6u ",
			   (u32)div_u64(s->tick, NSEC_PER_USEC),
			   (u32)div_u64(s->epoch, NSEC_PER_SEC), s->ahead, s->iv_sender);
	else
		seq_puts(seq, "-       -          -       -      ");
	if (x->props.family == AF_INET6)
		seq_printf(seq, "%-16pI6c %-16pI6c", &x->props.saddr.in6, &x->id.daddr.in6);
	else
		seq_printf(seq, "%-16pI4 %-16pI4", &x->props.saddr.a4, &x->id.daddr.a4);
	seq_printf(seq, " %s\n", crypto_tfm_alg_name(crypto_aead_tfm(x->data)));
	xfrm_state_put(x);
	return 0;
}

const struct seq_operations minesp_sad_seq_ops = {
	.start = minesp_sad_seq_start,
	.next = minesp_sad_seq_next,
	.stop = minesp_sad_seq_stop,
	.show = minesp_sad_seq_show,
};
