// SPDX-License-Identifier: GPL-2.0
/*
 * Loading and unloading.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/init.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <net/net_namespace.h>

#include "minesp.h"

#ifdef MINESP_UNTESTED
#pragma message "minesp has not been tested with a kernel as new as this one"
#endif

static int __init minesp_init(void)
{
	int err;

	/* minesp_exit() needs synchronize_rcu_tasks() to wait for preempted tasks. */
	if (IS_ENABLED(CONFIG_PREEMPTION) && !IS_ENABLED(CONFIG_TASKS_RCU)) {
		pr_info("the kernel lacks CONFIG_TASKS_RCU: the module cannot be unloaded\n");
		__module_get(THIS_MODULE);
	}

	minesp_seqno_load();
	err = register_pernet_subsys(&minesp_net_ops);
	if (err)
		return err;
	err = minesp_protocols_register();
	/* modprobe takes -EEXIST to mean that the module is loaded already. */
	if (err == -EEXIST)
		err = -EBUSY;
	if (err)
		goto netns;
	/* Last: SAs take references to the module from here on, so nothing may fail. */
	err = minesp_types_register();
	if (err)
		goto protocols;
	return 0;

protocols:
	minesp_protocols_unregister();
netns:
	/* Somebody may have written to net.minesp.offload already. */
	minesp_offload_disable();
	unregister_pernet_subsys(&minesp_net_ops);
	return err;
}

static void __exit minesp_exit(void)
{
	minesp_types_unregister();
	minesp_offload_disable();
	minesp_protocols_unregister();
	/*
	 * No minimal SA is left, because each one holds a reference to the module. But
	 * a task may still run the last instructions of our code after that reference is
	 * gone: in minesp_use_stock(), which drops one, and in minesp_output(), when an
	 * asynchronous packet has completed on another CPU. Both run in process context
	 * and may be preempted, so plain RCU does not wait for them. Neither sleeps
	 * before it leaves the module, so RCU tasks does.
	 */
	synchronize_rcu_tasks();
	unregister_pernet_subsys(&minesp_net_ops);
	minesp_crypt_exit();
}

module_init(minesp_init);
module_exit(minesp_exit);
MODULE_DESCRIPTION("Minimal ESP (RFC 9333)");
MODULE_LICENSE("GPL");
MODULE_VERSION(MINESP_VERSION);
