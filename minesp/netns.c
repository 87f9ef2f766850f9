// SPDX-License-Identifier: GPL-2.0
/*
 * State of a network namespace: creation and destruction.
 */
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/slab.h>
#include <net/netns/generic.h>

#include "minesp.h"

static int minesp_enabled_set(const char *val, const struct kernel_param *kp)
{
	return param_set_uint_minmax(val, kp, 0, 2);
}

static const struct kernel_param_ops minesp_enabled_ops = {
	.set = minesp_enabled_set,
	.get = param_get_uint,
};

static unsigned int enabled = 2;
module_param_cb(enabled, &minesp_enabled_ops, &enabled, 0644);
MODULE_PARM_DESC(enabled, "Default of net.minesp.enabled in new namespaces: 0 stock, 1 minimal, 2 minimal if possible (default: 2)");

static bool sn_active = true;
module_param(sn_active, bool, 0644);
MODULE_PARM_DESC(sn_active, "Default of net.minesp.sn_active in new namespaces (default: true)");

static unsigned int minesp_net_id __ro_after_init;

/**
 * minesp_net - minesp's part of a network namespace
 * @net: the namespace, alive
 *
 * Return: valid while @net lives. To keep it longer, take a reference (@users).
 */
struct minesp_net *minesp_net(const struct net *net)
{
	return *(struct minesp_net **)net_generic(net, minesp_net_id);
}

/**
 * minesp_net_put - drop a reference, and free @mn with the last one; may sleep
 * @mn: minesp's part of a network namespace
 */
void minesp_net_put(struct minesp_net *mn)
{
	if (!refcount_dec_and_test(&mn->users))
		return;
	kvfree(rcu_access_pointer(mn->sad));
	percpu_ref_exit(&mn->async);
	free_percpu(mn->stats);
	kfree(mn);
}

static void minesp_async_ended(struct percpu_ref *ref)
{
	complete(&container_of(ref, struct minesp_net, async)->async_ended);
}

static int __net_init minesp_net_init(struct net *net)
{
	struct minesp_net *mn;
	int err = -ENOMEM;

	mn = kzalloc(sizeof(*mn), GFP_KERNEL_ACCOUNT);
	if (!mn)
		return err;
	refcount_set(&mn->users, 1);
	init_completion(&mn->async_ended);
	minesp_seqno_net(net, mn);
	/* The defaults, see sysctl.c. Others are 0. */
	mn->enabled = enabled;
	mn->sad_slots = 1024;
	mn->sn_tick_us = 10000;
	mn->sn_ahead = 1000;
	mn->sn_active = sn_active;
	mn->sn_skew_ms = 1000;
	mn->rx_max_age_ms = 30000;
	mn->rx_max_ahead_ms = 30000;
	xa_init_flags(&mn->sas, XA_FLAGS_ALLOC | XA_FLAGS_ACCOUNT);
	spin_lock_init(&mn->sad_lock);
	mutex_init(&mn->active_lock);
	mn->stats = alloc_percpu_gfp(struct minesp_mib, GFP_KERNEL_ACCOUNT);
	if (!mn->stats ||
	    percpu_ref_init(&mn->async, minesp_async_ended, 0,
			    GFP_KERNEL_ACCOUNT))
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
	 * Packets in asynchronous crypto need the namespace's dst_ops, counters and hooks,
	 * but hold the namespace only if they have a socket. So wait for them. From here
	 * on, a packet that needs asynchronous crypto is dropped.
	 */
	percpu_ref_kill(&mn->async);
	wait_for_completion(&mn->async_ended);
	minesp_net_put(mn);
}

struct pernet_operations minesp_net_ops = {
	.init = minesp_net_init,
	.exit = minesp_net_exit,
	.id = &minesp_net_id,
	.size = sizeof(struct minesp_net *),
};
