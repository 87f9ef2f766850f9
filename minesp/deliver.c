// SPDX-License-Identifier: GPL-2.0
/*
 * Delivering a packet that has been taken out of ESP, without a queue.
 *
 * xfrm_input() puts such a packet into a queue: in transport mode into that of a work
 * item, in tunnel mode into that of GRO or, on a device without GRO, into the backlog.
 * The queue keeps packets within packets from using up the stack. But a work item costs
 * more than decrypting a small packet, and each of the queues loses packets when it is
 * full.
 *
 * Before it queues the packet, xfrm_input() calls the protocol handlers.
 * minesp_deliver_cb() takes a reference, and returns an error. So xfrm_input() gives up
 * the packet, and minesp_deliver_input() delivers it when xfrm_input() has returned.
 * The packet takes the same way as from the queue: by PREROUTING in transport mode, by
 * the device that it came from in tunnel mode. A packet that would go to GRO still goes
 * there.
 *
 * The stack is safe, because a CPU delivers one packet at a time. A packet within that
 * packet goes to xfrm_input()'s queues.
 */
#include <linux/ip.h>
#include <linux/module.h>
#include <linux/netfilter.h>
#include <net/dst_metadata.h>
#include <net/ip6_route.h>
#include <net/l3mdev.h>
#include <net/route.h>

#include "minesp.h"

/*
 * The packet that a CPU hands to xfrm_input(), and whether it has been taken back.
 * Bottom halves are off in minesp_deliver_input(), so the task stays on its CPU. With
 * PREEMPT_RT another one may come in between. It then finds @skb set, and leaves both
 * alone.
 */
struct minesp_delivery {
	struct sk_buff *skb;
	bool taken;
};

static DEFINE_PER_CPU(struct minesp_delivery, minesp_delivery);

/* In @skb: the CPU delivers a packet, which may be gone already. */
#define MINESP_BUSY	((struct sk_buff *)ERR_PTR(-EBUSY))

/**
 * minesp_deliver_cb - the protocol handlers' cb_handler: take the packet back
 * @skb: the packet, without ESP
 * @err: 0, or why xfrm_input() drops it
 *
 * Return: 1 to ask the next handler; -EINPROGRESS when the packet has been taken.
 */
int minesp_deliver_cb(struct sk_buff *skb, int err)
{
	const struct sec_path *sp = skb_sec_path(skb);
	const struct xfrm_state *x;

	if (err || this_cpu_read(minesp_delivery.skb) != skb || sp->len != 1)
		return 1;
	x = sp->xvec[0];
	if (x->type->owner != THIS_MODULE)
		return 1;
	/* A packet that came from GRO goes back there. */
	if (sp->olen)
		return 1;
	/* With GRO the packets of a tunnel become fewer. That pays for the queue. */
	if (x->props.mode == XFRM_MODE_TUNNEL && !netif_elide_gro(skb->dev))
		return 1;
	skb_get(skb);
	this_cpu_write(minesp_delivery.taken, true);
	return -EINPROGRESS;
}

static int minesp_deliver_finish(struct net *net, struct sock *sk,
				 struct sk_buff *skb)
{
	const struct iphdr *iph = ip_hdr(skb);

	/* The route is that of the ESP packet, unless netfilter has changed the address. */
	if (IS_ENABLED(CONFIG_IPV6) && iph->version == 6) {
		/* As ip6_rcv_finish() does: a VRF gets to see the packet once more. */
		skb = l3mdev_ip6_rcv(skb);
		if (!skb)
			return NET_RX_SUCCESS;
		if (unlikely(!skb_valid_dst(skb)))
			minesp_ip6_route_input(skb);
	} else if (unlikely(!skb_valid_dst(skb)) &&
		   ip_route_input_noref(skb, iph->daddr, iph->saddr,
					minesp_dscp(iph), skb->dev)) {
		kfree_skb(skb);
		return NET_RX_DROP;
	}
	return dst_input(skb);
}

/* What xfrm4_transport_finish() and xfrm6_transport_finish() do. */
static void minesp_deliver(struct sk_buff *skb)
{
	const struct xfrm_state *x = xfrm_input_state(skb);
	u8 protocol = XFRM_MODE_SKB_CB(skb)->protocol;

	nf_reset_ct(skb);
	if (x->props.mode == XFRM_MODE_TUNNEL) {
		skb_dst_drop(skb);
		netif_receive_skb(skb);
		return;
	}

	__skb_push(skb, -skb_network_offset(skb));
	if (x->props.family == AF_INET6) {
		skb_network_header(skb)[IP6CB(skb)->nhoff] = protocol;
		ipv6_hdr(skb)->payload_len =
			htons(skb->len - sizeof(struct ipv6hdr));
		NF_HOOK(NFPROTO_IPV6, NF_INET_PRE_ROUTING, dev_net(skb->dev),
			NULL, skb, skb->dev, NULL, minesp_deliver_finish);
	} else {
		ip_hdr(skb)->protocol = protocol;
		ip_hdr(skb)->tot_len = htons(skb->len);
		ip_send_check(ip_hdr(skb));
		NF_HOOK(NFPROTO_IPV4, NF_INET_PRE_ROUTING, dev_net(skb->dev),
			NULL, skb, skb->dev, NULL, minesp_deliver_finish);
	}
}

/**
 * minesp_deliver_input - call xfrm_input(), and deliver the packet if it is taken back
 * @skb: the packet. Bottom halves are off, and the caller is in an RCU section.
 * @encap_type: for xfrm_input()
 *
 * Return: what xfrm_input() returns
 */
int minesp_deliver_input(struct sk_buff *skb, int encap_type)
{
	int err;

	if (this_cpu_cmpxchg(minesp_delivery.skb, NULL, skb))
		return xfrm_input(skb, IPPROTO_ESP, 0, encap_type);

	this_cpu_write(minesp_delivery.taken, false);
	err = xfrm_input(skb, IPPROTO_ESP, 0, encap_type);
	/* First, as the packet may be gone, and another one have its address. */
	this_cpu_write(minesp_delivery.skb, MINESP_BUSY);
	if (this_cpu_read(minesp_delivery.taken))
		minesp_deliver(skb);
	this_cpu_write(minesp_delivery.skb, NULL);
	return err;
}
