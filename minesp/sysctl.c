// SPDX-License-Identifier: GPL-2.0
/*
 * Settings: net.minesp, per network namespace.
 */
#include <linux/log2.h>
#include <linux/sysctl.h>
#include <net/net_namespace.h>

#include "minesp.h"

static int minesp_do_sad_slots(CTL_TABLE *table, int write, void *buffer,
			       size_t *lenp, loff_t *ppos)
{
	struct minesp_net *mn = container_of(table->data, struct minesp_net,
					     sad_slots);
	unsigned int slots = READ_ONCE(mn->sad_slots);
	struct ctl_table tmp = { .data = &slots, .maxlen = sizeof(slots) };
	int err;

	err = proc_douintvec(&tmp, write, buffer, lenp, ppos);
	if (err || !write)
		return err;
	if (!is_power_of_2(slots) || slots < MINESP_SAD_SLOTS_MIN ||
	    slots > MINESP_SAD_SLOTS_MAX)
		return -EINVAL;
	return minesp_sad_resize(mn, slots);
}

/* .data is the offset in struct minesp_net, until it is added to a real one. */
static const struct ctl_table minesp_sysctls[] = {
	{
		/*
		 * Whether ESP SAs are minimal (1) or stock (0), unless their
		 * own extra-flag says. Changing it changes no SA that is there.
		 * Default: the module parameter "enabled", 1 unless set.
		 */
		.procname = "enabled",
		.data = (void *)offsetof(struct minesp_net, enabled),
		.maxlen = sizeof(int),
		.mode = 0644,
		.proc_handler = proc_dointvec_minmax,
		.extra1 = SYSCTL_ZERO,
		.extra2 = SYSCTL_ONE,
	},
	{
		/*
		 * Slots of the table that finds inbound SAs straight from the
		 * SPI (RFC 9333 3): a power of two from 2 to 1048576, default
		 * 1024, 8 bytes each. Twice the number of inbound SAs is ample.
		 * Changes at once, and no packet is lost by it.
		 */
		.procname = "sad_slots",
		.data = (void *)offsetof(struct minesp_net, sad_slots),
		.maxlen = sizeof(unsigned int),
		.mode = 0644,
		.proc_handler = minesp_do_sad_slots,
	},
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
