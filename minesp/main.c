// SPDX-License-Identifier: GPL-2.0
/*
 * Loading and unloading.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/rcupdate.h>

#include "minesp.h"

#ifdef MINESP_UNTESTED
#pragma message "minesp has not been tested with a kernel as new as this one"
#endif

static int __init minesp_init(void)
{
	int err;

	/* minesp_exit() could not wait for tasks on such a kernel. */
	if (IS_ENABLED(CONFIG_PREEMPTION) && !IS_ENABLED(CONFIG_TASKS_RCU)) {
		pr_info("cannot be unloaded on a kernel without CONFIG_TASKS_RCU\n");
		__module_get(THIS_MODULE);
	}

	minesp_seqno_load();
	err = minesp_netns_register();
	if (err)
		return err;
	err = minesp_protocols_register();
	/* The module loader takes -EEXIST to mean that minesp is loaded already. */
	if (err == -EEXIST)
		err = -EBUSY;
	if (err)
		goto netns;
	/*
	 * Do this last: SAs hold the module from here on, so nothing may fail
	 * afterwards.
	 */
	err = minesp_types_register();
	if (err)
		goto protocols;
	return 0;

protocols:
	minesp_protocols_unregister();
netns:
	/* Somebody may have written to net.minesp.offload already. */
	minesp_offload_disable();
	minesp_netns_unregister();
	return err;
}

static void __exit minesp_exit(void)
{
	minesp_types_unregister();
	minesp_offload_disable();
	minesp_protocols_unregister();
	/*
	 * No minimal SA is left, because each one holds a reference to the module. But
	 * a task may still run the last instructions of our code after the reference
	 * that it relied on is gone. There are two such cases: minesp_use_stock() gives
	 * up a reference, and a sender's SA may go away when its packet completes on
	 * another CPU. Both run in process context and may be preempted there, so plain
	 * RCU does not wait for them. Neither sleeps after that point, so RCU tasks
	 * does.
	 */
	synchronize_rcu_tasks();
	minesp_netns_unregister();
	minesp_crypt_exit();
}

module_init(minesp_init);
module_exit(minesp_exit);
MODULE_DESCRIPTION("Minimal ESP (RFC 9333)");
MODULE_LICENSE("GPL");
MODULE_VERSION(MINESP_VERSION);
