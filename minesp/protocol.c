// SPDX-License-Identifier: GPL-2.0
/*
 * The protocol handlers for ESP: they take packets from IP and UDP, and find the SA by its
 * SPI before xfrm_input() looks for it.
 */
#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <net/icmp.h>
#include <net/ip6_route.h>
#include <net/ndisc.h>
#include <net/route.h>

#include "minesp.h"

/*
 * The encap_type with which xfrm_input() takes the SA from the secpath. 0 works where
 * xfrm_input() knows XFRM_GRO there; older kernels need -2. The first packet shows which.
 */
static int direct_encap_type __read_mostly;

/* Does xfrm_input() take the SA from the secpath? GRO is not used until this is known. */
static enum { DIRECT_UNKNOWN, DIRECT_WORKS, DIRECT_IGNORED } direct __read_mostly;

/**
 * minesp_direct_works - does xfrm_input() take the SA from the secpath?
 *
 * Return: true once a packet has shown that it does
 */
bool minesp_direct_works(void)
{
	return READ_ONCE(direct) == DIRECT_WORKS;
}

static unsigned int minesp_daddr_offset(u16 family)
{
	return family == AF_INET6 ? offsetof(struct ipv6hdr, daddr) :
				    offsetof(struct iphdr, daddr);
}

/* Set the control block that xfrm_input() uses for its lookup. */
static void minesp_set_spi_cb(struct sk_buff *skb, u16 family)
{
	XFRM_TUNNEL_SKB_CB(skb)->tunnel.ip4 = NULL;
	XFRM_SPI_SKB_CB(skb)->family = family;
	XFRM_SPI_SKB_CB(skb)->daddroff = minesp_daddr_offset(family);
}

/**
 * minesp_direct_prepare - attach an SA to a packet for xfrm_input()
 * @skb: the packet, without a secpath, its IP header at the network header
 * @x: the SA that the SPI leads to, referenced
 * @seq: the SN of the packet
 * @family: the address family of the packet
 * @flags: MINESP_DIRECT or MINESP_DIRECT_GRO
 *
 * Return: true if @x is the SA of the packet, which owns the reference from then on; false
 * if not, and nothing has changed.
 */
bool minesp_direct_prepare(struct sk_buff *skb, struct xfrm_state *x, __be32 seq,
			   u16 family, u32 flags)
{
	const void *daddr = skb_network_header(skb) + minesp_daddr_offset(family);
	struct sec_path *sp;

	/* xfrm_state_lookup() checks the same. */
	if (READ_ONCE(x->km.state) != XFRM_STATE_VALID ||
	    x->props.family != family ||
	    !xfrm_addr_equal(&x->id.daddr, daddr, family) ||
	    (skb->mark & x->mark.m) != x->mark.v)
		return false;
	sp = secpath_set(skb);
	if (!sp)
		return false;

	sp->xvec[0] = x;
	sp->len = 1;
	sp->olen = 1;	/* with ovec[0] otherwise 0, as secpath_set() made it */
	sp->ovec[0].flags = flags;
	/* For kernels that look up the SA anyway, see minesp_direct_end(). */
	minesp_set_spi_cb(skb, family);
	XFRM_SPI_SKB_CB(skb)->seq = seq;
	return true;
}

/**
 * minesp_direct_input - pass a packet to xfrm_input() together with its SA
 * @skb: the packet, prepared by minesp_direct_prepare()
 * @mn: its namespace
 * @encap_type: UDP_ENCAP_ESPINUDP or 0
 *
 * xfrm_input() skips its lookup, and does everything else.
 *
 * Return: what xfrm_input() returns
 */
int minesp_direct_input(struct sk_buff *skb, struct minesp_net *mn, int encap_type)
{
	minesp_stat_inc(mn, MINESP_IN_DIRECT);
	return minesp_deliver_input(skb, encap_type ?: READ_ONCE(direct_encap_type));
}

/**
 * minesp_direct_end - undo the marks of minesp_direct_prepare()
 * @x: the SA that xfrm_input() has found
 * @skb: the packet
 * @sp: its secpath
 *
 * Set the SA's output mark only now, as xfrm_input() does after its lookup. A packet from
 * GRO keeps XFRM_GRO, so that xfrm_input() returns it to GRO.
 */
void minesp_direct_end(struct xfrm_state *x, struct sk_buff *skb,
		       struct sec_path *sp)
{
	if (unlikely(sp->len == 2)) {
		/*
		 * xfrm_input() has ignored the flags, and has looked up the SA itself.
		 * Drop our reference, and use the other way from now on.
		 */
		xfrm_state_put(sp->xvec[0]);
		sp->xvec[0] = x;
		sp->len = 1;
		if (MINESP_GRO_ENCAP_TYPE)
			WRITE_ONCE(direct_encap_type, MINESP_GRO_ENCAP_TYPE);
		else
			WRITE_ONCE(direct, DIRECT_IGNORED);
	} else if (unlikely(READ_ONCE(direct) == DIRECT_UNKNOWN)) {
		WRITE_ONCE(direct, DIRECT_WORKS);
	}
	sp->olen = sp->ovec[0].flags == MINESP_DIRECT_GRO;
	sp->ovec[0].flags = sp->olen ? XFRM_GRO : 0;
	skb->mark = xfrm_smark_get(skb->mark, x);
}

/*
 * Find the SA by the SPI. If the table does not have it, xfrm_input() looks it up, and the
 * packet is delivered in the same way, so that later packets do not overtake it. -EINVAL
 * passes the packet to the next handler.
 *
 * The core calls this for ESP that a UDP socket with UDP_ENCAP has received. @spi is 0.
 */
static int minesp_rcv_direct(struct sk_buff *skb, int nexthdr, __be32 spi,
			     int encap_type)
{
	u16 family = ip_hdr(skb)->version == 6 ? AF_INET6 : AF_INET;
	struct minesp_net *mn = minesp_net(dev_net(skb->dev));
	struct xfrm_state *x;
	__be32 seq;

	/*
	 * XFRM_GRO refers to the first SA of a secpath, so the secpath must be empty. If
	 * it is not, XFRM interfaces must check the policies for the outer packet.
	 */
	if (xfrm_parse_spi(skb, IPPROTO_ESP, &spi, &seq) || secpath_exists(skb))
		return -EINVAL;
	/*
	 * Where xfrm_input() needs -2 as the encap_type, it cannot get that of UDP
	 * encapsulation, too.
	 */
	if (likely(READ_ONCE(direct) != DIRECT_IGNORED) &&
	    (!encap_type || !READ_ONCE(direct_encap_type))) {
		x = minesp_sad_find(mn, spi);
		/* Asynchronous crypto needs a dst that is referenced. */
		if (x && skb_dst_force(skb) &&
		    minesp_direct_prepare(skb, x, seq, family, MINESP_DIRECT))
			return minesp_direct_input(skb, mn, encap_type);
		if (x)
			xfrm_state_put(x);
	}
	minesp_stat_inc(mn, MINESP_IN_LOOKUP);
	minesp_set_spi_cb(skb, family);
	return minesp_deliver_input(skb, encap_type);
}

/* The same for ESP directly in IP */
static int minesp_rcv(struct sk_buff *skb)
{
	return minesp_rcv_direct(skb, IPPROTO_ESP, 0, 0);
}

/* Leave a decrypted packet to the next handler. */
static int minesp_skip_cb(struct sk_buff *skb, int err)
{
	return 1;
}

/*
 * Does the ICMP message quote a packet of an SA of this host, minimal or stock? XFRM
 * interfaces handle the messages for their own SAs.
 */
static bool minesp_icmp_for_us(struct sk_buff *skb, const void *daddr,
			       const struct ip_esp_hdr *esph, u16 family)
{
	struct xfrm_state *x;
	bool plain;

	x = xfrm_state_lookup(dev_net(skb->dev), skb->mark, daddr, esph->spi,
			      IPPROTO_ESP, family);
	if (!x)
		return false;
	plain = !x->if_id;
	xfrm_state_put(x);
	return plain;
}

static int minesp4_err(struct sk_buff *skb, u32 info)
{
	const struct iphdr *iph = (const struct iphdr *)skb->data;
	const struct icmphdr *icmph = icmp_hdr(skb);
	bool redirect = icmph->type == ICMP_REDIRECT;

	if (!redirect && (icmph->type != ICMP_DEST_UNREACH ||
			  icmph->code != ICMP_FRAG_NEEDED))
		return 0;
	if (!minesp_icmp_for_us(skb, &iph->daddr,
				(const void *)(skb->data + iph->ihl * 4), AF_INET))
		return -ENOENT;
	if (redirect)
		ipv4_redirect(skb, dev_net(skb->dev), 0, IPPROTO_ESP);
	else
		ipv4_update_pmtu(skb, dev_net(skb->dev), info, 0, IPPROTO_ESP);
	return 0;
}

static int minesp6_err(struct sk_buff *skb, struct inet6_skb_parm *opt,
		       u8 type, u8 code, int offset, __be32 info)
{
	const struct ipv6hdr *ip6h = (const struct ipv6hdr *)skb->data;
	struct net *net = dev_net(skb->dev);

	if (type != ICMPV6_PKT_TOOBIG && type != NDISC_REDIRECT)
		return 0;
	if (!minesp_icmp_for_us(skb, &ip6h->daddr,
				(const void *)(skb->data + offset), AF_INET6))
		return -ENOENT;
	if (type == NDISC_REDIRECT)
		ip6_redirect(skb, net, skb->dev->ifindex, 0,
			     sock_net_uid(net, NULL));
	else
		ip6_update_pmtu(skb, net, info, 0, 0, sock_net_uid(net, NULL));
	return 0;
}

/*
 * Each family has two handlers. The first one finds the SA by the SPI. It comes after VTI,
 * which takes packets before decryption, and before XFRM interfaces, which only take
 * decrypted packets. The second one comes after XFRM interfaces. It passes on the packets
 * that the first one has left, as esp4 and esp6 do, and takes back decrypted packets to
 * deliver them.
 */
#define MINESP_PROTOCOLS(v)						\
static struct xfrm##v##_protocol minesp##v##_protocols[] = { {		\
	.handler = minesp_rcv,						\
	.input_handler = minesp_rcv_direct,				\
	.cb_handler = minesp_skip_cb,					\
	.err_handler = minesp##v##_err,					\
	.priority = 50,							\
}, {									\
	.handler = xfrm##v##_rcv,					\
	.input_handler = xfrm_input,					\
	.cb_handler = minesp_deliver_cb,				\
	.err_handler = minesp##v##_err,					\
	.priority = 5,							\
} }

MINESP_PROTOCOLS(4);
MINESP_PROTOCOLS(6);

/**
 * minesp_protocols_register - register the protocol handlers
 *
 * Return: 0; or a negative error, and nothing is registered.
 */
int minesp_protocols_register(void)
{
	int i, err = 0;

	for (i = 0; i < ARRAY_SIZE(minesp4_protocols) && !err; i++) {
		err = xfrm4_protocol_register(&minesp4_protocols[i],
					      IPPROTO_ESP);
		if (!err && IS_ENABLED(CONFIG_IPV6))
			err = xfrm6_protocol_register(&minesp6_protocols[i],
						      IPPROTO_ESP);
	}
	if (err)
		minesp_protocols_unregister();
	return err;
}

/**
 * minesp_protocols_unregister - undo minesp_protocols_register()
 *
 * Deregistering a handler that was never registered is harmless, although the core may log
 * an error.
 */
void minesp_protocols_unregister(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(minesp4_protocols); i++) {
		if (IS_ENABLED(CONFIG_IPV6))
			xfrm6_protocol_deregister(&minesp6_protocols[i],
						  IPPROTO_ESP);
		xfrm4_protocol_deregister(&minesp4_protocols[i], IPPROTO_ESP);
	}
}
