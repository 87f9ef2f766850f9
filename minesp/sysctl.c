// SPDX-License-Identifier: GPL-2.0
/*
 * The sysctls net.minesp, per network namespace.
 */
#include <linux/log2.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/sysctl.h>
#include <linux/time64.h>

#include "minesp.h"

static int minesp_do_sad_slots(CTL_TABLE *table, int write, void *buffer,
			       size_t *lenp, loff_t *ppos)
{
	struct minesp_net *mn = container_of(table->data, struct minesp_net,
					     sad_slots);
	unsigned int old = READ_ONCE(mn->sad_slots), slots = old;
	struct ctl_table tmp = { .data = &slots, .maxlen = sizeof(slots) };
	int err;

	err = proc_douintvec(&tmp, write, buffer, lenp, ppos);
	/* An empty write, or one at an offset, leaves the value unchanged. */
	if (err || !write || slots == old)
		return err;
	if (!is_power_of_2(slots) || slots < 2 || slots > 1048576)
		return -EINVAL;
	return minesp_sad_resize(mn, slots);
}

static int minesp_do_offload(CTL_TABLE *table, int write, void *buffer,
			     size_t *lenp, loff_t *ppos)
{
	struct minesp_net *mn = container_of(table->data, struct minesp_net,
					     offload);
	unsigned int old = READ_ONCE(mn->offload), offload = old;
	struct ctl_table tmp = *table;
	int err;

	tmp.data = &offload;
	err = proc_douintvec_minmax(&tmp, write, buffer, lenp, ppos);
	if (err || !write || offload == old)
		return err;
	if (offload)
		err = minesp_offload_enable();
	if (!err)
		WRITE_ONCE(mn->offload, offload);
	return err;
}

static int minesp_do_sn_active(CTL_TABLE *table, int write, void *buffer,
			       size_t *lenp, loff_t *ppos)
{
	struct minesp_net *mn = container_of(table->data, struct minesp_net,
					     sn_active);
	unsigned int active = write ? UINT_MAX : READ_ONCE(mn->sn_active);
	struct ctl_table tmp = *table;
	int err;

	tmp.data = &active;
	err = proc_douintvec_minmax(&tmp, write, buffer, lenp, ppos);
	/* UINT_MAX: nothing was written. Writing 1 again is a takeover, too. */
	if (!err && write && active != UINT_MAX)
		minesp_seqno_set_active(mn, active);
	return err;
}

/* extra2 is a pointer. */
static unsigned int sn_tick_us_max = USEC_PER_SEC;
static unsigned int sn_ahead_max = 1000000;
static unsigned int sn_skew_ms_max = 60000;
static unsigned int iv_sender_max = 255;
static unsigned int rx_max_ms_max = 86400000;

#define MINESP_SYSCTL(name, handler, min, max) {			\
	.procname = #name,						\
	.data = (void *)offsetof(struct minesp_net, name),		\
	.maxlen = sizeof(unsigned int),					\
	.mode = 0644,							\
	.proc_handler = handler,					\
	.extra1 = min,							\
	.extra2 = max,							\
}

#define MINESP_NUMBER(name, min, max)					\
	MINESP_SYSCTL(name, proc_douintvec_minmax, min, max)

/* .data is an offset in struct minesp_net. minesp_sysctl_init() adds the address. */
static const struct ctl_table minesp_sysctls[] = {
	/*
	 * ESP of new SAs: 0 stock; 1 minimal, and unsupported SAs are refused; 2 minimal,
	 * and unsupported SAs become stock, with a warning. The SA's extra-flag overrides
	 * it. With 2, an SA with features that stock ESP lacks (by its extra-flag, sn_mode
	 * or rx_fresh) is refused if it is unsupported. Default: the module parameter
	 * "enabled", which is 2 by default.
	 */
	MINESP_NUMBER(enabled, SYSCTL_ZERO, SYSCTL_TWO),
	/*
	 * Number of slots in the table that maps an SPI directly to its inbound SA (RFC
	 * 9333, section 3): a power of two, 2 to 1048576, default 1024, 8 bytes each.
	 * Twice the number of inbound SAs is enough. Resizing loses no packet.
	 */
	MINESP_SYSCTL(sad_slots, minesp_do_sad_slots, NULL, NULL),
	/*
	 * Use GSO and GRO (1) or not (0, default). 1 is faster, but changes the packets
	 * that firewalls, tc and packet sockets see, see offload.rst. A sending SA keeps the
	 * value from when it was added. Writing 1 loads esp4_offload and esp6_offload. It
	 * fails with EOPNOTSUPP on a kernel without them, and with EBUSY while one of them
	 * is being unloaded.
	 */
	MINESP_SYSCTL(offload, minesp_do_offload, SYSCTL_ZERO, SYSCTL_ONE),
	/*
	 * SNs come from the clock (1) or a counter (0, default) (RFC 9333, section 4). The
	 * SA's extra-flag overrides it. An SA keeps this setting and those below from when
	 * it was added, except sn_active and sn_skew_ms.
	 */
	MINESP_NUMBER(sn_mode, SYSCTL_ZERO, SYSCTL_ONE),
	/*
	 * Length of a tick, the step of SNs from the clock, in microseconds: 1 to 1000000,
	 * default 10000. Do not change it for a key in use.
	 */
	MINESP_NUMBER(sn_tick_us, SYSCTL_ONE, &sn_tick_us_max),
	/*
	 * Time of SN 0, in seconds since 1970: when the key was made. With 0 (default), SAs
	 * with SNs from the clock or freshness are refused. Do not change it for a key in
	 * use.
	 */
	MINESP_NUMBER(sn_epoch, SYSCTL_ZERO, NULL),
	/*
	 * How many ticks SNs may run ahead of the clock, so that more than one packet per
	 * tick can be sent: 1 to 1000000, default 1000. Do not lower it for a key in use.
	 */
	MINESP_NUMBER(sn_ahead, SYSCTL_ONE, &sn_ahead_max),
	/*
	 * SAs with SNs from the clock send (1), or fail with ENETDOWN (0) on a gateway that
	 * stands by while another one has the same SAs. It takes effect at once, for all
	 * SAs in the namespace. After a write of 0 has returned, no SN is made from the
	 * clock. After a write of 1, SNs are above all that the other gateway can have
	 * sent. Default: the module parameter "sn_active", which is 1 by default.
	 */
	MINESP_SYSCTL(sn_active, minesp_do_sn_active, SYSCTL_ZERO, SYSCTL_ONE),
	/*
	 * How far the other gateway's clock may be ahead of ours, plus how long the other
	 * gateway may go on sending after 1 is written to sn_active, in milliseconds: 0 to
	 * 60000, default 1000. The first packet can leave that much later, plus a tick.
	 */
	MINESP_NUMBER(sn_skew_ms, SYSCTL_ZERO, &sn_skew_ms_max),
	/*
	 * Sender ID (RFC 6054): the highest byte of the IV with SNs from the clock, 1 to 255,
	 * or 0 (default) for none. It keeps nonces distinct if several hosts send with one
	 * key at the same time. An SA with an implicit IV and SNs from the clock is refused
	 * with it. AES-CBC ignores it, because its IVs are random.
	 */
	MINESP_NUMBER(iv_sender, SYSCTL_ZERO, &iv_sender_max),
	/*
	 * Accept only SNs that are fresh by our clock, with the peer's tick and epoch set
	 * here (1), or SNs of any age (0, default). The SA's extra-flag overrides it.
	 */
	MINESP_NUMBER(rx_fresh, SYSCTL_ZERO, SYSCTL_ONE),
	/*
	 * How much older than our clock a fresh SN may be, in milliseconds: 0 to 86400000,
	 * default 30000. Must cover delay and the difference of the clocks.
	 */
	MINESP_NUMBER(rx_max_age_ms, SYSCTL_ZERO, &rx_max_ms_max),
	/*
	 * How much newer than our clock a fresh SN may be, in milliseconds: 0 to 86400000,
	 * default 30000. Must cover the peer's sn_ahead and the difference of the clocks.
	 */
	MINESP_NUMBER(rx_max_ahead_ms, SYSCTL_ZERO, &rx_max_ms_max),
	{}
};

/**
 * minesp_sysctl_init - register net.minesp in a new namespace
 * @net: the namespace
 * @mn: the namespace's values, already set to their defaults
 *
 * Return: 0 or -ENOMEM.
 */
int minesp_sysctl_init(struct net *net, struct minesp_net *mn)
{
	struct ctl_table *table, *t;

	table = kmemdup(minesp_sysctls, sizeof(minesp_sysctls),
			GFP_KERNEL_ACCOUNT);
	if (!table)
		return -ENOMEM;
	for (t = table; t->procname; t++)
		t->data = (void *)mn + (unsigned long)t->data;
	mn->sysctl = register_net_sysctl_sz(net, "net/minesp", table,
					    ARRAY_SIZE(minesp_sysctls) - 1);
	if (!mn->sysctl) {
		kfree(table);
		return -ENOMEM;
	}
	return 0;
}

/**
 * minesp_sysctl_exit - undo minesp_sysctl_init()
 * @mn: the namespace's values; must stay valid until this returns, for readers
 */
void minesp_sysctl_exit(struct minesp_net *mn)
{
	const struct ctl_table *table = mn->sysctl->ctl_table_arg;

	unregister_net_sysctl_table(mn->sysctl);
	kfree(table);
}
