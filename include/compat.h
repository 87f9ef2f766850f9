/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Differences between the supported kernels. No other file of the module checks the
 * kernel's version.
 */
#ifndef _MINESP_COMPAT_H
#define _MINESP_COMPAT_H

#include <linux/crypto.h>
#include <linux/hrtimer.h>
#include <linux/sysctl.h>
#include <linux/version.h>
#include <net/net_namespace.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)
#error "minesp needs Linux 6.1 or newer"
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(7, 4, 0)
#define MINESP_UNTESTED
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
/* Since 6.3, a completion callback gets its data instead of the request. */
#define crypto_completion_data_t void
#define crypto_get_completion_data(data) (data)
#else
/* 6.1.29 has these names, too. The macros hide them, for earlier releases of 6.1. */
#define crypto_completion_data_t struct crypto_async_request
#define crypto_get_completion_data(req) ((req)->data)
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
/* Since 6.11, the handler of a sysctl gets a const table. */
#define CTL_TABLE const struct ctl_table
#else
#define CTL_TABLE struct ctl_table
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
static inline void
hrtimer_setup(struct hrtimer *timer,
	      enum hrtimer_restart (*function)(struct hrtimer *),
	      clockid_t clock, enum hrtimer_mode mode)
{
	hrtimer_init(timer, clock, mode);
	timer->function = function;
}
#endif

/*
 * Up to 6.12, the core sets x->type_offload before it calls init_state; in 7.3, after it.
 * From 6.13 on, assume the later order: the code for it also works with the earlier one.
 */
#define MINESP_LATE_OFFLOAD (LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0))

/* Since 6.13, ip_route_input_noref() takes the DSCP instead of the TOS. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
#define minesp_dscp(iph) ip4h_dscp(iph)
#else
#define minesp_dscp(iph) ((iph)->tos)
#endif

/* Before 7.1, IPv6 can be a module, and the kernel calls it through ipv6_stub. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 1, 0)
#include <net/ipv6_stubs.h>
#define minesp_ip6_route_input(skb) ipv6_stub->ipv6_route_input(skb)
#else
#define minesp_ip6_route_input(skb) ip6_route_input(skb)
#endif

/*
 * The encap_type that makes xfrm_input() take the SA from the secpath in kernels where
 * XFRM_GRO, set there by GRO, does not do so yet. 6.7 and later know XFRM_GRO. In 7.3, -2
 * means that the packet has been decrypted.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 7, 0)
#define MINESP_GRO_ENCAP_TYPE (-2)
#else
#define MINESP_GRO_ENCAP_TYPE 0
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
/* Before 6.5, linux/netdevice.h declares the same. */
#include <net/gso.h>
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0)
/* Before 6.6, a table ends with an empty entry, and its size is not passed. */
static inline struct ctl_table_header *
register_net_sysctl_sz(struct net *net, const char *path,
		       struct ctl_table *table, size_t size)
{
	return register_net_sysctl(net, path, table);
}
#endif

#endif
