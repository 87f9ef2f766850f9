// SPDX-License-Identifier: GPL-2.0
/*
 * Settings: net.minesp, per network namespace.
 */
#include <linux/log2.h>
#include <linux/sysctl.h>

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
	/* An empty write leaves it alone, and so does one with an offset. */
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
	/* As with sad_slots. */
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
	/* As with sad_slots; but writing 1 again is not without effect. */
	if (!err && write && active != UINT_MAX)
		minesp_seqno_set_active(mn, active);
	return err;
}

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

/* .data is the offset in struct minesp_net, until it is added to a real one. */
static const struct ctl_table minesp_sysctls[] = {
	/*
	 * Whether new ESP SAs are stock (0); minimal, and refused if they ask for
	 * what minimal ESP does not have (1); or then stock, with a warning (2).
	 * An SA's own extra-flag goes first. With 2, an SA that asks for what only
	 * minimal ESP has, by its extra-flag, sn_mode or rx_fresh, is refused as
	 * with 1. Default: the module parameter "enabled", 2 unless set.
	 */
	MINESP_NUMBER(enabled, SYSCTL_ZERO, SYSCTL_TWO),
	/*
	 * Slots of the table that finds inbound SAs straight from the SPI (RFC
	 * 9333 3): a power of two from 2 to 1048576, default 1024, 8 bytes
	 * each. Twice the number of inbound SAs is ample. Changes at once, and
	 * no packet is lost by it.
	 */
	MINESP_SYSCTL(sad_slots, minesp_do_sad_slots, NULL, NULL),
	/*
	 * Whether packets take the ways of GSO and GRO (1) or not (0, default). 1 is
	 * faster, and firewalls, tc and packet sockets then see other packets: see
	 * offload.rst. What is sent goes by what was set when its SA was added. Loads
	 * esp4_offload and esp6_offload. Setting it to 1 fails with EOPNOTSUPP on a
	 * kernel without them, and with EBUSY while one of them is being unloaded.
	 */
	MINESP_SYSCTL(offload, minesp_do_offload, SYSCTL_ZERO, SYSCTL_ONE),
	/*
	 * Whether SNs come from the clock (1) or a counter (0, default), unless
	 * the SA's own extra-flag says (RFC 9333 4). An SA keeps this and all
	 * that follow, but for sn_active and sn_skew_ms, as they were when it was
	 * added.
	 */
	MINESP_NUMBER(sn_mode, SYSCTL_ZERO, SYSCTL_ONE),
	/*
	 * A tick, the step of SNs from the clock, in microseconds: 1 to
	 * 1000000, default 10000. Belongs to the key: so do not change it under
	 * one.
	 */
	MINESP_NUMBER(sn_tick_us, SYSCTL_ONE, &sn_tick_us_max),
	/*
	 * When SN 0 was, in seconds since 1970: when the key was made. Default
	 * 0: none, and SNs do not come from the clock. Belongs to the key.
	 */
	MINESP_NUMBER(sn_epoch, SYSCTL_ZERO, NULL),
	/*
	 * How far SNs may run ahead of the clock, in ticks, so that packets can
	 * leave faster than one a tick: 1 to 1000000, default 1000. Not to be
	 * made less under one key.
	 */
	MINESP_NUMBER(sn_ahead, SYSCTL_ONE, &sn_ahead_max),
	/*
	 * Whether SAs with SNs from the clock send (1), or refuse it with ENETDOWN (0):
	 * for a gateway that stands by while another one has the same SAs. It applies to
	 * the whole namespace at once, also to SAs that exist. When a write of 0 has
	 * returned, no SN is made from the clock. After a write of 1, SNs are above all
	 * that the other gateway can have sent. Default: the module parameter
	 * "sn_active", 1 unless set.
	 */
	MINESP_SYSCTL(sn_active, minesp_do_sn_active, SYSCTL_ZERO, SYSCTL_ONE),
	/*
	 * By how much the clock of the other gateway may be ahead of ours, and how long it
	 * may go on sending, in milliseconds, when sn_active is set to 1: 0 to 60000,
	 * default 1000. The first packet leaves that much later, plus up to a tick.
	 */
	MINESP_NUMBER(sn_skew_ms, SYSCTL_ZERO, &sn_skew_ms_max),
	/*
	 * The highest byte of the IVs of SAs with SNs from the clock (RFC 6054): 1 to
	 * 255, or 0, default. Hosts that send with one key at the same time make
	 * different nonces by it. Not for implicit IVs, which are refused with it.
	 * AES-CBC ignores it, because its IVs are random.
	 */
	MINESP_NUMBER(iv_sender, SYSCTL_ZERO, &iv_sender_max),
	/*
	 * Whether an SN has to be of about now by our own clock, with the
	 * peer's tick and epoch set here (1), or not (0, default), unless the
	 * SA's own extra-flag says.
	 */
	MINESP_NUMBER(rx_fresh, SYSCTL_ZERO, SYSCTL_ONE),
	/*
	 * By how much an SN may be older than that, in milliseconds: 0 to
	 * 86400000, default 30000. Covers clocks that differ, and delay.
	 */
	MINESP_NUMBER(rx_max_age_ms, SYSCTL_ZERO, &rx_max_ms_max),
	/*
	 * By how much an SN may be newer, in milliseconds: likewise. Covers
	 * clocks that differ, and the peer's sn_ahead.
	 */
	MINESP_NUMBER(rx_max_ahead_ms, SYSCTL_ZERO, &rx_max_ms_max),
	{}
};

/**
 * minesp_sysctl_init - make net.minesp in a new namespace
 * @net: the namespace
 * @mn: holds the values, already at their defaults
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
 * @mn: still holding the values: a reader may be looking at them
 */
void minesp_sysctl_exit(struct minesp_net *mn)
{
	const struct ctl_table *table = mn->sysctl->ctl_table_arg;

	unregister_net_sysctl_table(mn->sysctl);
	kfree(table);
}
