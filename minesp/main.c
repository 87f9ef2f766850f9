// SPDX-License-Identifier: GPL-2.0
/*
 * Loading, unloading, and network namespaces.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/wait_bit.h>
#include <net/netns/generic.h>

#include "minesp.h"

#ifdef MINESP_UNTESTED
#pragma message "minesp has not been tested with a kernel as new as this one"
#endif

static bool enabled = true;
module_param(enabled, bool, 0644);
MODULE_PARM_DESC(enabled, "net.minesp.enabled of the namespaces made from now on (default: Y)");

static unsigned int minesp_net_id __ro_after_init;

/**
 * minesp_net - minesp's part of a network namespace
 * @net: the namespace, alive
 *
 * The caller keeps @net alive, or takes a reference of its own (@users).
 */
struct minesp_net *minesp_net(const struct net *net)
{
	return *(struct minesp_net **)net_generic(net, minesp_net_id);
}

/**
 * minesp_net_put - give up a reference; the last one frees
 * @mn: what minesp_net() gave. The caller may sleep.
 */
void minesp_net_put(struct minesp_net *mn)
{
	if (!refcount_dec_and_test(&mn->users))
		return;
	kvfree(rcu_access_pointer(mn->sad));
	free_percpu(mn->stats);
	kfree(mn);
}

static int __net_init minesp_net_init(struct net *net)
{
	struct minesp_net *mn;
	int err = -ENOMEM;

	mn = kzalloc(sizeof(*mn), GFP_KERNEL_ACCOUNT);
	if (!mn)
		return err;
	refcount_set(&mn->users, 1);
	atomic_set(&mn->async, 1);
	minesp_seqno_net(net, mn);
	/* The defaults; sysctl.c explains them. */
	mn->enabled = enabled;
	mn->sad_slots = 1024;
	mn->sn_tick_us = 10000;
	mn->sn_ahead = 1000;
	mn->rx_max_age_ms = 30000;
	mn->rx_max_ahead_ms = 30000;
	xa_init_flags(&mn->sas, XA_FLAGS_ALLOC);
	spin_lock_init(&mn->sad_lock);
	mn->stats = alloc_percpu_gfp(struct minesp_mib, GFP_KERNEL_ACCOUNT);
	if (!mn->stats)
		goto put;
	*(struct minesp_net **)net_generic(net, minesp_net_id) = mn;
	err = minesp_stats_init(net);
	if (err)
		goto put;
	err = minesp_sysctl_init(net, mn);
	if (err)
		goto stats;
	return 0;

stats:
	minesp_stats_exit(net);
put:
	minesp_net_put(mn);
	return err;
}

static void __net_exit minesp_net_exit(struct net *net)
{
	struct minesp_net *mn = minesp_net(net);

	minesp_sysctl_exit(mn);
	minesp_stats_exit(net);
	/*
	 * A packet whose crypto is under way needs the namespace to its end, for
	 * dst_ops, counters, hooks; and unless it has a socket it holds none of
	 * that. One that comes yet, from a policy's queue or from an SA of
	 * another kind, is dropped.
	 */
	minesp_async_end(mn);
	wait_var_event(&mn->async, !atomic_read(&mn->async));
	minesp_net_put(mn);
}

static struct pernet_operations minesp_net_ops = {
	.init = minesp_net_init,
	.exit = minesp_net_exit,
	.id = &minesp_net_id,
	.size = sizeof(struct minesp_net *),
};

static int __init minesp_init(void)
{
	int err;

	/* See minesp_exit(): this kernel could not wait for tasks there. */
	if (IS_ENABLED(CONFIG_PREEMPTION) && !IS_ENABLED(CONFIG_TASKS_RCU)) {
		pr_info("cannot be unloaded on a kernel without CONFIG_TASKS_RCU\n");
		__module_get(THIS_MODULE);
	}

	minesp_seqno_load();
	err = register_pernet_subsys(&minesp_net_ops);
	if (err)
		return err;
	err = minesp_protocols_register();
	if (err)
		goto pernet;
	/* Last: from here on SAs hold the module, so nothing may fail after. */
	err = minesp_types_register();
	if (err)
		goto protocols;
	return 0;

protocols:
	minesp_protocols_unregister();
pernet:
	unregister_pernet_subsys(&minesp_net_ops);
	return err;
}

static void __exit minesp_exit(void)
{
	minesp_types_unregister();
	minesp_protocols_unregister();
	/*
	 * No minimal SA is left: each one holds a reference on the module. But
	 * a task may still be on the last instructions of our code, after the
	 * reference went that it relied on: minesp_hand_over() gives one up,
	 * and a sender whose packet completed on another CPU may find its SA
	 * gone. Both run in process context and may be preempted there, so RCU
	 * proper does not wait for them. Neither sleeps after that point.
	 */
	synchronize_rcu_tasks();
	unregister_pernet_subsys(&minesp_net_ops);
}

module_init(minesp_init);
module_exit(minesp_exit);
MODULE_DESCRIPTION("Minimal ESP (RFC 9333)");
MODULE_LICENSE("GPL");
