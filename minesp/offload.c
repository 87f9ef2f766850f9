// SPDX-License-Identifier: GPL-2.0
/*
 * GSO and GRO, for namespaces whose net.minesp.offload is 1.
 *
 * Sending: for an SA with an xfrm_type_offload, the core passes large packets to encap(),
 * which reserves an ESP header. The queue of the device splits them, and passes each
 * segment to xmit(), which encrypts it.
 *
 * Receiving: GRO finds the SA by its SPI before IP sees the packet, and merges decrypted
 * packets. GRO runs before IP has removed Ethernet's padding, has checked the destination
 * address or has removed the headers of tunnels. So minesp_gro() checks these itself.
 *
 * Both need the slot for ESP in inet_offloads and inet6_offloads. Each has one slot, and
 * stock SAs need esp4_offload or esp6_offload in it. minesp takes the slot when offload is
 * first set to 1, pins the stock module, and calls it for packets that are not minimal. The
 * stock module must be loaded before: when it finds the slot taken, it fails, but leaves its
 * xfrm_type_offload registered.
 */
#include <linux/etherdevice.h>
#include <linux/if_arp.h>
#include <linux/if_vlan.h>
#include <linux/in.h>
#include <linux/inetdevice.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/kmod.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/netdevice.h>
#include <net/addrconf.h>
#include <net/gro.h>
#include <net/protocol.h>

#include "minesp.h"

struct minesp_offload_slot {
	unsigned short family;
	const struct net_offload __rcu **offloads;	/* the table */
	const struct net_offload ours;
	const struct net_offload *stock; /* NULL until @ours is in the slot */
	struct module *owner;		/* of @stock, pinned */
};

static struct minesp_offload_slot slots[2];

/* Protects taking the slots. minesp_offload_done never becomes false again. */
static DEFINE_MUTEX(minesp_offload_lock);
static bool minesp_offload_done;

/* Is the packet for an address of this host? An SA may outlive its address. */
static bool minesp_gro_local(const struct sk_buff *skb, u16 family)
{
	const struct net_device *dev = skb->dev;
	const struct inet6_dev *idev;

	if (family == AF_INET)
		return __in_dev_get_rcu(dev) && !ipv4_is_loopback(ip_hdr(skb)->daddr) &&
		       __ip_dev_find(dev_net(dev), ip_hdr(skb)->daddr, false);
	if (!IS_ENABLED(CONFIG_IPV6))
		return false;
	idev = __in6_dev_get(dev);
	return idev && !READ_ONCE(idev->cnf.disable_ipv6) &&
	       ipv6_chk_addr(dev_net(dev), &ipv6_hdr(skb)->daddr, dev, 0);
}

/* May GRO decrypt this packet? If not, IP must process it first. */
static bool minesp_gro_plain(const struct sk_buff *skb, u16 family)
{
	const struct net_device *dev = skb->dev;
	int len = family == AF_INET ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);

	if (skb->pkt_type != PACKET_HOST || secpath_exists(skb))
		return false;
	/* Drivers that use napi_gro_frags() have not set pkt_type yet. */
	if (dev->type == ARPHRD_ETHER &&
	    !ether_addr_equal_64bits(eth_hdr(skb)->h_dest, dev->dev_addr))
		return false;
	/* Padding, a fragment, a tunnel, or a header between IP and ESP */
	if (NAPI_GRO_CB(skb)->flush || NAPI_GRO_CB(skb)->encap_mark ||
	    skb_gro_offset(skb) != skb_network_offset(skb) + len)
		return false;
	/* VLAN */
	if (skb->protocol != htons(family == AF_INET ? ETH_P_IP : ETH_P_IPV6) ||
	    skb_vlan_tag_present(skb))
		return false;
	/* A bridge, bond, macvlan or VRF above the device, or a VRF itself */
	return !rcu_access_pointer(dev->rx_handler) &&
	       !netif_is_l3_slave(dev) && !netif_is_l3_master(dev);
}

/*
 * Decrypt a packet in GRO. Return 0 if it is gone, -ENOENT if the table has no SA with its
 * SPI, and -EINVAL if it must go through IP.
 */
static int minesp_gro(struct sk_buff *skb, u16 family)
{
	struct minesp_net *mn = minesp_net(dev_net(skb->dev));
	int offset = skb_gro_offset(skb);
	const struct ip_esp_hdr *esph;
	struct xfrm_state *x;
	__be32 seq;

	esph = skb_gro_header(skb, offset + sizeof(*esph), offset);
	if (!esph)
		return -ENOENT;
	seq = esph->seq_no;
	x = minesp_sad_find(mn, esph->spi);
	if (!x)
		return -ENOENT;
	if (!READ_ONCE(mn->offload) || !minesp_direct_works() || x->mark.m ||
	    x->if_id || READ_ONCE(minesp_sa(x)->nested) ||
	    !minesp_gro_plain(skb, family) || !pskb_pull(skb, offset))
		goto put;
	if (!minesp_gro_local(skb, family) ||
	    !minesp_direct_prepare(skb, x, seq, family, MINESP_DIRECT_GRO))
		goto push;
	if (family == AF_INET6)
		IP6CB(skb)->nhoff = offsetof(struct ipv6hdr, nexthdr);
	minesp_direct_input(skb, mn, 0);
	return 0;

push:
	skb_push(skb, offset);
put:
	xfrm_state_put(x);
	return -EINVAL;
}

static struct sk_buff *minesp_gro_receive(struct list_head *head,
					  struct sk_buff *skb,
					  const struct minesp_offload_slot *s)
{
	int err = minesp_gro(skb, s->family);

	if (!err)
		return ERR_PTR(-EINPROGRESS);
	/* The stock function would remove the SAs that a packet has already passed. */
	if (err == -ENOENT && (!secpath_exists(skb) || xfrm_offload(skb)))
		return s->stock->callbacks.gro_receive(head, skb);
	NAPI_GRO_CB(skb)->same_flow = 0;
	NAPI_GRO_CB(skb)->flush = 1;
	return NULL;
}

/* The xfrm_type_offload's encap: reserve the ESP header of a packet, often a large one. */
static void minesp_encap(struct xfrm_state *x, struct sk_buff *skb)
{
	struct xfrm_offload *xo = xfrm_offload(skb);
	struct ip_esp_hdr *esph = ip_esp_hdr(skb);

	xo->proto = *skb_mac_header(skb);
	*skb_mac_header(skb) = IPPROTO_ESP;
	minesp_seqno_encap(x, skb, xo);
	skb_push(skb, -skb_network_offset(skb));
	memset(esph, 0, sizeof(*esph) + minesp_sa(x)->ivlen);
	esph->spi = x->id.spi;
}

static void minesp_xmit_done(crypto_completion_data_t *data, int err)
{
	struct sk_buff *skb = minesp_crypt_end(data);
	struct xfrm_state *x = xfrm_input_state(skb);
	struct minesp_net *mn = minesp_sa(x)->mn;
	struct net_device *dev = skb->dev;

	/* Closing a device waits for RCU readers, so it stays usable if it is running. */
	rcu_read_lock();
	if (minesp_output_end(x, skb, err)) {
		XFRM_INC_STATS(xs_net(x), LINUX_MIB_XFRMOUTSTATEPROTOERROR);
		kfree_skb(skb);
	} else if (!netif_running(dev)) {
		dev_core_stats_tx_dropped_inc(dev);
		kfree_skb(skb);
	} else {
		skb_push(skb, skb->data - skb_mac_header(skb));
		secpath_reset(skb);
		xfrm_dev_resume(skb);
	}
	rcu_read_unlock();
	dev_put(dev);
	minesp_async_end(mn);
}

/*
 * The xfrm_type_offload's xmit: encrypt a packet, or a segment of one. Its data is at the
 * plaintext, its transport header at the ESP header.
 *
 * When a segment fails, validate_xmit_xfrm() frees it and the later ones, but leaks the
 * earlier ones, and with them the SA. So count and drop the segment here, and tell the core
 * that it is in asynchronous crypto. The core then sends the other segments.
 */
static int minesp_xmit(struct xfrm_state *x, struct sk_buff *skb,
		       netdev_features_t features)
{
	const struct xfrm_offload *xo = xfrm_offload(skb);
	bool segment = xo->flags & XFRM_GSO_SEGMENT;
	struct net_device *dev = skb->dev;
	int err;

	/* GRE leaves its checksum to the device, but it must be there before encryption. */
	if (unlikely(skb->ip_summed == CHECKSUM_PARTIAL)) {
		err = skb_checksum_help(skb);
		if (err)
			goto drop;
	}
	/* The inner headers are about to become ciphertext. */
	skb->encapsulation = 0;

	/* For minesp_xmit_done(): the packet no longer has a dst, which held the device. */
	dev_hold(dev);
	err = minesp_encrypt(x, skb, xo->proto, true, minesp_xmit_done);
	if (err == -EINPROGRESS)
		return err;
	dev_put(dev);
	if (!err) {
		secpath_reset(skb);
		return 0;
	}
drop:
	if (!segment)
		return err;
	XFRM_INC_STATS(xs_net(x), LINUX_MIB_XFRMOUTSTATEPROTOERROR);
	kfree_skb(skb);
	return -EINPROGRESS;
}

const struct xfrm_type_offload minesp_type_offload = {
	.owner = THIS_MODULE,
	.encap = minesp_encap,
	.xmit = minesp_xmit,
};

/* Split a large packet of minesp_encap(). Its data is at the ESP header. */
static struct sk_buff *minesp_gso_segment(struct sk_buff *skb,
					  netdev_features_t features,
					  const struct minesp_offload_slot *s)
{
	struct xfrm_offload *xo = xfrm_offload(skb);
	struct xfrm_state *x = xo ? xfrm_input_state(skb) : NULL;
	const struct net_offload *ops;
	int hlen;

	if (!x || x->type_offload != &minesp_type_offload)
		return s->stock->callbacks.gso_segment(skb, features);

	hlen = sizeof(struct ip_esp_hdr) + minesp_sa(x)->ivlen;
	if (!(skb_shinfo(skb)->gso_type & SKB_GSO_ESP) ||
	    !pskb_may_pull(skb, hlen) || ip_esp_hdr(skb)->spi != x->id.spi)
		return ERR_PTR(-EINVAL);
	__skb_pull(skb, hlen);
	/* Software encrypts each segment, so it must be linear, with a complete checksum. */
	features &= ~(NETIF_F_SG | NETIF_F_CSUM_MASK | NETIF_F_SCTP_CRC);
	skb->encap_hdr_csum = 1;
	xo->flags |= XFRM_GSO_SEGMENT;

	if (x->props.mode == XFRM_MODE_TUNNEL)
		return skb_eth_gso_segment(skb, features,
					   xo->proto == IPPROTO_IPV6 ?
					   htons(ETH_P_IPV6) : htons(ETH_P_IP));
	skb->transport_header += hlen;
	ops = rcu_dereference(s->offloads[xo->proto]);
	if (!ops || !ops->callbacks.gso_segment)
		return ERR_PTR(-EPROTONOSUPPORT);
	return ops->callbacks.gso_segment(skb, features);
}

#define MINESP_OFFLOAD(v, i)						\
static struct sk_buff *minesp##v##_gro_receive(struct list_head *head,	\
					       struct sk_buff *skb)	\
{									\
	return minesp_gro_receive(head, skb, &slots[i]);		\
}									\
									\
static struct sk_buff *minesp##v##_gso_segment(struct sk_buff *skb,	\
					       netdev_features_t features) \
{									\
	return minesp_gso_segment(skb, features, &slots[i]);		\
}

MINESP_OFFLOAD(4, 0)
MINESP_OFFLOAD(6, 1)

static struct minesp_offload_slot slots[2] = {
	{
		.family = AF_INET,
		.offloads = inet_offloads,
		.ours.callbacks.gro_receive = minesp4_gro_receive,
		.ours.callbacks.gso_segment = minesp4_gso_segment,
	}, {
		.family = AF_INET6,
		.offloads = inet6_offloads,
		.ours.callbacks.gro_receive = minesp6_gro_receive,
		.ours.callbacks.gso_segment = minesp6_gso_segment,
	},
};

static int minesp_offload_take(struct minesp_offload_slot *s)
{
	const struct xfrm_state_afinfo *afinfo;
	const struct xfrm_type_offload *type;
	int err = 0;

	rcu_read_lock();
	afinfo = xfrm_state_afinfo_get_rcu(s->family);
	if (!afinfo)	/* IPv6 is disabled */
		goto unlock;
	type = READ_ONCE(afinfo->type_offload_esp);
	if (!type || !rcu_access_pointer(s->offloads[IPPROTO_ESP])) {
		err = -EOPNOTSUPP;
	} else if (!try_module_get(type->owner)) {
		err = -EBUSY;
	} else {
		s->owner = type->owner;
		/* The stock module is pinned, so nobody else changes the slot. */
		s->stock = rcu_dereference(s->offloads[IPPROTO_ESP]);
		/* Our callbacks use s->stock, so set it first. */
		rcu_assign_pointer(s->offloads[IPPROTO_ESP], &s->ours);
	}
unlock:
	rcu_read_unlock();
	return err;
}

/**
 * minesp_offload_enable - take the slots for ESP in the tables of GSO and GRO
 *
 * This may sleep, and stays in effect until minesp is unloaded.
 *
 * Return: 0; -EOPNOTSUPP without esp4_offload or esp6_offload; or -EBUSY while one of them
 * is being unloaded
 */
int minesp_offload_enable(void)
{
	struct minesp_offload_slot *s;
	int err = 0;

	if (READ_ONCE(minesp_offload_done))
		return 0;
	/* Without the lock: what modprobe runs may write to net.minesp.offload, too. */
	for (s = slots; s < slots + ARRAY_SIZE(slots); s++)
		request_module("xfrm-offload-%d-%d", s->family, IPPROTO_ESP);

	mutex_lock(&minesp_offload_lock);
	for (s = slots; !minesp_offload_done && !err &&
	     s < slots + ARRAY_SIZE(slots); s++)
		if (!s->stock)
			err = minesp_offload_take(s);
	if (!err)
		WRITE_ONCE(minesp_offload_done, true);
	mutex_unlock(&minesp_offload_lock);
	return err;
}

/**
 * minesp_offload_disable - give the slots back
 *
 * Later calls of minesp_offload_enable() return 0 and do nothing.
 */
void minesp_offload_disable(void)
{
	struct minesp_offload_slot *s;

	mutex_lock(&minesp_offload_lock);
	WRITE_ONCE(minesp_offload_done, true);
	mutex_unlock(&minesp_offload_lock);
	for (s = slots; s < slots + ARRAY_SIZE(slots); s++)
		if (s->stock)
			rcu_assign_pointer(s->offloads[IPPROTO_ESP], s->stock);
	/* After this, no CPU is in our callbacks, or in stock ones that we called. */
	synchronize_net();
	for (s = slots; s < slots + ARRAY_SIZE(slots); s++)
		if (s->stock)
			module_put(s->owner);
}
