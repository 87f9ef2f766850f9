// SPDX-License-Identifier: GPL-2.0
/*
 * /proc/net/minesp: what minesp keeps for the minimal SAs of a namespace. "ip -s xfrm state"
 * has all else. One line for each SA, after a heading:
 *
 * SPI		hexadecimal
 * slot		the slot of its SPI in the table; -1 without a table
 * direct	whether the SA is in its slot; outbound SAs never are
 * SN		clock or counter: how SNs are made when sending
 * last-sent	the SN of the last packet sent; 0 for none
 * last-rcvd	the highest SN received; 0 for none
 * ESN		whether SNs have 64 bits
 * fresh	whether received SNs must be fresh
 * tick-us	the tick of the SA, in microseconds; - for counter SNs without freshness
 * epoch	the time of SN 0, in seconds since 1970; - likewise
 * ahead	how many ticks SNs may run ahead of the clock; - likewise
 * sender	the sender ID, see net.minesp.iv_sender; - likewise
 * source	the address of the SA's sender
 * destination	the address of its receiver
 * suite	the crypto API's name of the suite
 */
#include <linux/capability.h>
#include <linux/math64.h>
#include <linux/sched.h>
#include <linux/seq_file_net.h>
#include <linux/string_helpers.h>

#include "minesp.h"

/* Return the SA at or after *pos. The heading is at 0, and an SA at its id. */
static void *minesp_list_at(struct seq_file *seq, loff_t *pos)
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
 * Reading needs CAP_NET_ADMIN, as "ip xfrm state" does. The file's mode cannot express
 * that, because the root of a user namespace does not own the files in /proc/net.
 */
static void *minesp_list_start(struct seq_file *seq, loff_t *pos)
	__acquires(RCU)
{
	rcu_read_lock();
	if (!file_ns_capable(seq->file, seq_file_net(seq)->user_ns,
			     CAP_NET_ADMIN))
		return ERR_PTR(-EPERM);
	return minesp_list_at(seq, pos);
}

static void *minesp_list_next(struct seq_file *seq, void *v, loff_t *pos)
{
	/* There may be many SAs: let grace periods end between them. */
	rcu_read_unlock();
	cond_resched();
	rcu_read_lock();
	++*pos;
	return minesp_list_at(seq, pos);
}

static void minesp_list_stop(struct seq_file *seq, void *v)
	__releases(RCU)
{
	rcu_read_unlock();
}

static int minesp_list_show(struct seq_file *seq, void *v)
{
	const struct minesp_seqno *s;
	struct minesp_sa *sa = v;
	struct xfrm_state *x;
	u64 sent, rcvd;
	bool direct;
	long slot;

	if (v == SEQ_START_TOKEN) {
		seq_puts(seq, "SPI        slot    direct SN      last-sent  last-rcvd  ESN fresh tick-us epoch      ahead   sender source           destination      suite\n");
		return 0;
	}

	x = minesp_sad_hold(sa);
	if (!x)
		return SEQ_SKIP;
	/* The SA is still being set up, and the core does not list it either. */
	if (list_empty(&x->km.all)) {
		xfrm_state_put(x);
		return SEQ_SKIP;
	}
	slot = minesp_sad_slot(sa, x->id.spi, &direct);
	s = sa->seqno;
	spin_lock_bh(&x->lock);
	sent = minesp_oseq(x);
	rcvd = minesp_rseq(x);
	spin_unlock_bh(&x->lock);
	seq_printf(seq, "0x%08x %-7ld %-6s %-7s %-10llu %-10llu %-3s %-5s ",
		   ntohl(x->id.spi), slot, str_yes_no(direct),
		   x->props.extra_flags & MINESP_XFLAG_CLOCK ? "clock" :
							       "counter",
		   sent, rcvd, str_yes_no(x->props.flags & XFRM_STATE_ESN),
		   str_yes_no(x->props.extra_flags & MINESP_XFLAG_FRESH));
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

const struct seq_operations minesp_list_seq_ops = {
	.start = minesp_list_start,
	.next = minesp_list_next,
	.stop = minesp_list_stop,
	.show = minesp_list_show,
};
