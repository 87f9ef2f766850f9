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

	/* See minesp_exit(): this kernel could not wait for tasks there. */
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
	/* Last: from here on SAs hold the module, so nothing may fail after. */
	err = minesp_types_register();
	if (err)
		goto protocols;
	return 0;

protocols:
	minesp_protocols_unregister();
netns:
	minesp_netns_unregister();
	return err;
}

static void __exit minesp_exit(void)
{
	minesp_types_unregister();
	minesp_offload_disable();
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
	minesp_netns_unregister();
	minesp_crypt_exit();
}

module_init(minesp_init);
module_exit(minesp_exit);
MODULE_DESCRIPTION("Minimal ESP (RFC 9333)");
MODULE_LICENSE("GPL");
MODULE_VERSION(MINESP_VERSION);
