// SPDX-License-Identifier: GPL-2.0
/*
 * Settings: net.minesp, per network namespace. An SA takes them over when it
 * is added; changing them changes no SA that is there.
 */
#include <linux/sysctl.h>
#include <net/net_namespace.h>

#include "minesp.h"

/* .data is the offset in struct minesp_net, until it is added to a real one. */
static const struct ctl_table minesp_sysctls[] = {
	{
		/*
		 * Whether ESP SAs are minimal (1) or stock (0), unless their
		 * own extra-flag says. Default: the module parameter "enabled",
		 * 1 unless set.
		 */
		.procname = "enabled",
		.data = (void *)offsetof(struct minesp_net, enabled),
		.maxlen = sizeof(int),
		.mode = 0644,
		.proc_handler = proc_dointvec_minmax,
		.extra1 = SYSCTL_ZERO,
		.extra2 = SYSCTL_ONE,
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
