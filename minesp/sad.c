// SPDX-License-Identifier: GPL-2.0
/*
 * The SAD: a table that leads from an SPI directly to its inbound SA (RFC 9333, section 3).
 *
 * Each namespace has a table, which is indexed by bits of the SPI. A slot holds an inbound
 * SA that has received a packet with a valid ICV. So outbound SAs stay out of the table,
 * and nobody on the network can fill it. The kernel's lookup finds all other SAs.
 *
 * Lifetime: a reader may access a struct minesp_sa that it found in a slot until its RCU
 * section ends, because minesp_destroy() frees it a grace period after minesp_sad_del().
 * The xfrm_state is freed without a grace period. So sa->x is only accessed under
 * sa->lock, and minesp_sad_del() clears it under that lock. A reference to the xfrm_state
 * is only taken while its refcount is not zero.
 *
 * A table that is replaced is freed after a grace period. An SA that enters the old table
 * meanwhile is learnt again from its next packet. An SA that is destroyed meanwhile may
 * stay in the old table. This is safe, because the readers of the old table began before
 * it was replaced, and the SA is freed after their RCU sections. The last table is freed
 * with its struct minesp_net.
 *
 * The core destroys the SAs of all namespaces one after the other, and tasks that remove
 * a network device wait for this with the RTNL held. So minesp_sad_del() never waits for
 * RCU, for memory or for a lock that is held for long. A reader of /proc/net/minesp holds
 * the RCU read lock for one SA at a time.
 */
#include <linux/mm.h>
#include <linux/slab.h>

#include "minesp.h"

struct minesp_sad {
	u32 mask;
	struct minesp_sa __rcu *slots[];
};

/*
 * An SPI may have the number of the SA in its upper three bytes, and a rekey index in the
 * lowest one (RFC 9333, section 3.1). The slot depends on one bit of the index, so an SA and
 * its successor get different slots.
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
	 * Up to 8 MB, charged to the namespace, whose root chooses the size. No warning,
	 * because this root must not be able to fill the log.
	 */
	sad = kvzalloc(struct_size(sad, slots, slots),
		       GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	if (sad)
		sad->mask = slots - 1;
	return sad;
}

/**
 * minesp_sad_resize - resize the table of a namespace while it is in use
 * @mn: the namespace
 * @slots: a power of two
 *
 * Each SA enters the new table with its next packet. Before the first minimal SA there
 * is no table, and only the size is stored.
 *
 * Return: 0; or -ENOMEM, and nothing has changed.
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
	/* Not kvfree_rcu(): a loop of writes would pile up tables. */
	if (used)
		synchronize_rcu();
	kvfree(sad);
	return 0;
}

/**
 * minesp_sad_add - add a minimal SA
 * @sa: the SA, not visible to anybody yet
 *
 * The first SA of a namespace allocates the table. If this fails, or if the size changes
 * meanwhile, the kernel's lookup finds the SA, and the next SA tries again.
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
 * @sa: the SA, whose refcount is zero
 *
 * No reader reaches @sa->x any more when this returns, and none has @sa a grace period
 * later.
 */
void minesp_sad_del(struct minesp_sa *sa)
{
	struct minesp_net *mn = sa->mn;
	struct minesp_sad *sad;
	__be32 spi;

	spin_lock_bh(&sa->lock);
	spi = sa->x->id.spi;
	sa->x = NULL;
	spin_unlock_bh(&sa->lock);

	/* xa_alloc_cyclic() sets sa->id even if it fails. Another SA may have this id. */
	xa_cmpxchg(&mn->sas, sa->id, sa, NULL, 0);
	rcu_read_lock();
	sad = rcu_dereference(mn->sad);
	if (sad)
		unrcu_pointer(cmpxchg(minesp_slot(sad, spi),
				      RCU_INITIALIZER(sa), NULL));
	rcu_read_unlock();
}

/**
 * minesp_sad_hold - take a reference on the state of an SA
 * @sa: the SA
 *
 * Return: the state; or NULL if it is being destroyed.
 */
struct xfrm_state *minesp_sad_hold(struct minesp_sa *sa)
{
	struct xfrm_state *x;

	spin_lock_bh(&sa->lock);
	x = sa->x;
	if (x && !refcount_inc_not_zero(&x->refcnt))
		x = NULL;
	spin_unlock_bh(&sa->lock);
	return x;
}

/* Is the SA dead, or being destroyed? */
static bool minesp_sad_gone(struct minesp_sa *sa)
{
	bool gone;

	spin_lock(&sa->lock);
	gone = !sa->x || READ_ONCE(sa->x->km.state) != XFRM_STATE_VALID;
	spin_unlock(&sa->lock);
	return gone;
}

/**
 * minesp_sad_learn - put an SA into its slot, unless another SA that is alive is there
 * @sa: the SA, referenced by a packet with a valid ICV
 * @spi: its SPI
 *
 * Bottom halves are off.
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
 * minesp_sad_find - find an SA by its SPI
 * @mn: the namespace
 * @spi: the SPI
 *
 * Bottom halves are off.
 *
 * Return: a referenced SA with this SPI; or NULL for the kernel's lookup. The caller must
 * check the address and the mark, because several addresses may use one SPI.
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

/**
 * minesp_sad_slot - the slot of an SA
 * @sa: the SA
 * @spi: its SPI
 * @direct: set to whether the SA is in the slot
 *
 * The caller is in an RCU section.
 *
 * Return: the number of the slot; or -1 without a table.
 */
long minesp_sad_slot(const struct minesp_sa *sa, __be32 spi, bool *direct)
{
	struct minesp_sad *sad = rcu_dereference(sa->mn->sad);
	struct minesp_sa __rcu **slot;

	*direct = false;
	if (!sad)
		return -1;
	slot = minesp_slot(sad, spi);
	*direct = rcu_access_pointer(*slot) == sa;
	return slot - sad->slots;
}
