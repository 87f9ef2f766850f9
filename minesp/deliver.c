// SPDX-License-Identifier: GPL-2.0
/*
 * Delivering decrypted packets without xfrm_input()'s queues.
 *
 * xfrm_input() queues a decrypted packet: for a work item in transport mode, for GRO or the
 * backlog in tunnel mode. The queue bounds the stack that nested packets use. But a work
 * item costs more than decrypting a small packet, and a full queue drops packets.
 *
 * Before it queues a packet, xfrm_input() calls the cb_handlers. minesp_deliver_cb() takes
 * a reference to the packet and returns an error, so xfrm_input() drops its own.
 * minesp_deliver_input() then delivers the packet in the same way as the queue does:
 * through PREROUTING in transport mode, and on its device in tunnel mode. Packets that
 * would go to GRO still go there.
 *
 * A CPU delivers one packet at a time. Packets within it use the queues, so the use of
 * stack stays bounded.
 */
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/percpu.h>
#include <net/dst_metadata.h>
#include <net/ip.h>
#include <net/ip6_route.h>
#include <net/l3mdev.h>
#include <net/route.h>

#include "minesp.h"

/*
 * The packet that this CPU has passed to xfrm_input(), and whether it was taken back.
 * Bottom halves are off in minesp_deliver_input(), so the task stays on its CPU. With
 * PREEMPT_RT another task may run in between. It finds @skb set, and uses the queues.
 */
struct minesp_delivery {
	struct sk_buff *skb;
	bool taken;
};

static DEFINE_PER_CPU(struct minesp_delivery, minesp_delivery);

/* The value of @skb while a packet is being delivered, which may be freed already */
#define MINESP_BUSY	((struct sk_buff *)ERR_PTR(-EBUSY))

/**
 * minesp_deliver_cb - the protocol handlers' cb_handler: take a decrypted packet back
 * @skb: the packet
 * @err: 0; or the reason why xfrm_input() drops it
 *
 * Return: 1 for the next handler; -EINPROGRESS if the packet has been taken back
 */
int minesp_deliver_cb(struct sk_buff *skb, int err)
{
	const struct sec_path *sp = skb_sec_path(skb);
	const struct xfrm_state *x;

	if (err || this_cpu_read(minesp_delivery.skb) != skb || sp->len != 1)
		return 1;
	x = sp->xvec[0];
	/* An XFRM interface that has just been added may not have seen the packet. */
	if (x->type->owner != THIS_MODULE || x->if_id)
		return 1;
	/* A packet that came from GRO goes back there. */
	if (sp->olen)
		return 1;
	/* GRO merges the packets of a tunnel, which saves more than the queue costs. */
	if (x->props.mode == XFRM_MODE_TUNNEL && !netif_elide_gro(skb->dev))
		return 1;
	skb_get(skb);
	this_cpu_write(minesp_delivery.taken, true);
	return -EINPROGRESS;
}

/*
 * Netfilter may queue the packet before this. The packet holds its SA and so the module
 * until it is delivered. When it is gone, the caller is in an RCU section, for which
 * minesp_protocols_unregister() waits.
 */
static int minesp_deliver_finish(struct net *net, struct sock *sk,
				 struct sk_buff *skb)
{
	const struct iphdr *iph = ip_hdr(skb);

	/* The dst is that of the ESP packet, unless netfilter has changed the address. */
	if (IS_ENABLED(CONFIG_IPV6) && iph->version == 6) {
		/* As in ip6_rcv_finish(): a VRF sees the packet once more. */
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

/* As xfrm4_transport_finish() and xfrm6_transport_finish(), without a queue */
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
 * minesp_deliver_input - call xfrm_input(), and deliver the packet if it was taken back
 * @skb: the packet
 * @encap_type: for xfrm_input()
 *
 * Bottom halves are off, and the caller is in an RCU section.
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
	/* Before delivery, because skb may be freed and its address used again. */
	this_cpu_write(minesp_delivery.skb, MINESP_BUSY);
	if (this_cpu_read(minesp_delivery.taken))
		minesp_deliver(skb);
	this_cpu_write(minesp_delivery.skb, NULL);
	return err;
}
