/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What differs between the kernels that minesp supports. Nothing else in the
 * module looks at the kernel's version.
 */
#ifndef _MINESP_COMPAT_H
#define _MINESP_COMPAT_H

#include <linux/crypto.h>
#include <linux/hrtimer.h>
#include <linux/version.h>
#include <net/net_namespace.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)
#error "minesp needs Linux 6.1 or newer"
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(7, 4, 0)
#define MINESP_UNTESTED
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
/* 6.3 hands a completion callback its data, not the request. */
#define crypto_completion_data_t void
#define crypto_get_completion_data(data) (data)
#else
/* 6.1.29 has these names, too. */
#define crypto_completion_data_t struct crypto_async_request
#define crypto_get_completion_data(req) ((req)->data)
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
/* 6.11 makes the table that a sysctl's handler is given constant. */
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
 * Up to 6.12 the core fills in x->type_offload before it calls init_state, in 7.3
 * afterwards. What is right for the later order is right for the earlier one, too.
 */
#define MINESP_LATE_OFFLOAD (LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0))

/* 6.13 has the DSCP in place of the TOS, from which it took it before. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0)
#define minesp_dscp(iph) ip4h_dscp(iph)
#else
#define minesp_dscp(iph) ((iph)->tos)
#endif

/* Kernels that can have IPv6 as a module do not export its functions. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 1, 0)
#include <net/ipv6_stubs.h>
#define minesp_ip6_route_input(skb) ipv6_stub->ipv6_route_input(skb)
#else
#define minesp_ip6_route_input(skb) ip6_route_input(skb)
#endif

/*
 * The encap_type with which xfrm_input() takes the SA from the secpath if it does not
 * know the mark that GRO sets there, as it does from 6.7 on. In 7.3 the value means
 * that the packet has been decrypted.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 7, 0)
#define MINESP_GRO_ENCAP_TYPE (-2)
#else
#define MINESP_GRO_ENCAP_TYPE 0
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
/* Before, linux/netdevice.h has what this has. */
#include <net/gso.h>
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0)
/* Before 6.6 a table's end was marked, and its size not passed. */
static inline struct ctl_table_header *
register_net_sysctl_sz(struct net *net, const char *path,
		       struct ctl_table *table, size_t size)
{
	return register_net_sysctl(net, path, table);
}
#endif

#endif
