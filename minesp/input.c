// SPDX-License-Identifier: GPL-2.0
/*
 * From ESP to plaintext, dummy packets, and the two families' protocol
 * handlers.
 */
#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/udp.h>
#include <net/icmp.h>
#include <net/ip6_route.h>
#include <net/ndisc.h>
#include <net/route.h>

#include "minesp.h"

/*
 * xfrm_input() takes the SA from the secpath, instead of looking it up, if it finds
 * XFRM_GRO there. Kernels that do not know this mark do so if the encap_type is -2.
 */
static int direct_encap_type __read_mostly;

/* Whether this kernel does so. GRO is not used until this is known. */
static enum { DIRECT_UNKNOWN, DIRECT_WORKS, DIRECT_IGNORED } direct __read_mostly;

/**
 * minesp_direct_works - does this kernel take the SA from us?
 */
bool minesp_direct_works(void)
{
	return READ_ONCE(direct) == DIRECT_WORKS;
}

/*
 * Finish a packet after its ICV has been checked. @err is the result of that check.
 * Only read the trailer if the ICV was right. Return -EINPROGRESS for a dummy packet
 * (RFC 4303 2.6), which the caller has to free.
 */
static int minesp_input_end(struct xfrm_state *x, struct sk_buff *skb, int err)
{
	struct crypto_aead *aead = x->data;
	int hlen = sizeof(struct ip_esp_hdr) + minesp_sa(x)->ivlen;
	int taillen = 2 + crypto_aead_authsize(aead);
	struct minesp_net *mn = minesp_sa(x)->mn;
	int network_hlen = skb_network_header_len(skb);
	u8 trailer[2];	/* Pad Length, Next Header */

	if (unlikely(err)) {
		minesp_stat_inc(mn, err == -EBADMSG ? MINESP_IN_ICV :
				    err == -ENOMEM ? MINESP_IN_NO_MEMORY :
						     MINESP_IN_CRYPTO);
		return err;
	}

	err = minesp_seqno_fresh(x, skb);
	if (unlikely(err))
		return err;

	/* A packet that VTI took before decryption must go to VTI the next time, too. */
	if (!XFRM_TUNNEL_SKB_CB(skb)->tunnel.ip4)
		minesp_sad_learn(minesp_sa(x), x->id.spi);

	if (x->encap) {
		minesp_udp_input(x, skb);
		network_hlen -= sizeof(struct udphdr);
		/* The NAT has changed what the inner checksum covers (RFC 3948 3.1.2). */
		if (x->props.mode == XFRM_MODE_TRANSPORT)
			skb->ip_summed = CHECKSUM_UNNECESSARY;
	}

	/* Cannot fail: minesp_input() has seen that a trailer fits. */
	skb_copy_bits(skb, skb->len - taillen, trailer, sizeof(trailer));
	taillen += trailer[0];
	if (unlikely(hlen + taillen > skb->len)) {
		minesp_stat_inc(mn, MINESP_IN_PAD_LENGTH);
		return -EINVAL;
	}
	/* This cannot fail, because minesp_make_writable() has made the packet's memory its own. */
	pskb_trim_unique(skb, skb->len - taillen);
	__skb_pull(skb, hlen);

	/*
	 * No error counter counts a dummy packet. After -EINPROGRESS, xfrm_input()
	 * leaves to us the packet, and the device reference that it took before it
	 * called us.
	 *
	 * Only xfrm_input() can enter an SN in the replay window, so the SN of a dummy
	 * is not entered. Therefore a dummy must not count against the SA's lifetime.
	 * Otherwise an attacker could wear out the SA by replaying a dummy. A replayed
	 * dummy is only discarded again.
	 */
	if (trailer[1] == IPPROTO_NONE) {
		minesp_stat_inc(mn, MINESP_IN_DUMMIES);
		dev_put(skb->dev);
		return -EINPROGRESS;
	}
	/*
	 * Hop-by-hop options cannot follow ESP. Without CONFIG_NETFILTER, IPv4 gets our
	 * return value, negated. It takes 0 to mean that the packet is gone, and
	 * -EINVAL to mean that no handler wants the packet.
	 */
	if (unlikely(trailer[1] == IPPROTO_HOPOPTS ||
		     (!IS_ENABLED(CONFIG_NETFILTER) && trailer[1] == EINVAL))) {
		minesp_stat_inc(mn, MINESP_IN_NEXT_HEADER);
		return -EINVAL;
	}

	if (x->props.mode == XFRM_MODE_TUNNEL) {
		skb_reset_transport_header(skb);
	} else {
		skb_set_transport_header(skb, -network_hlen);
		if (unlikely(trailer[1] == IPPROTO_AH || trailer[1] == IPPROTO_ESP ||
			     trailer[1] == IPPROTO_COMP))
			WRITE_ONCE(minesp_sa(x)->nested, true);
	}
	/*
	 * GRO compares hashes, but not secpaths. A hash for each SA keeps GRO from
	 * merging packets of different SAs, whose selectors may differ.
	 */
	if (x->props.mode == XFRM_MODE_TUNNEL || skb_sec_path(skb)->olen)
		skb->hash ^= minesp_sa(x)->gro_hash;
	minesp_stat_inc(mn, MINESP_IN_PACKETS);
	return trailer[1];
}

static void minesp_input_done(crypto_completion_data_t *data, int err)
{
	struct sk_buff *skb = minesp_crypt_end(data);
	struct xfrm_state *x = xfrm_input_state(skb);
	struct minesp_net *mn = minesp_sa(x)->mn;

	err = minesp_input_end(x, skb, err);
	if (err == -EINPROGRESS)
		consume_skb(skb);	/* with the secpath that holds x */
	else
		xfrm_input_resume(skb, err);
	minesp_async_end(mn);
}

/*
 * esp4_offload and esp6_offload take ESP from GRO. GRO runs before IP has cut off
 * Ethernet's padding, before IP has checked that the packet is for this host, and
 * before the packet has left a tunnel. Headers that nobody has authenticated could then
 * pass for headers from inside ESP, and packets that this host has sent could be sent
 * back to be decrypted. So give the packet back without its SA. It comes again by way
 * of IP, with the mark by which its SA was found, as far as the mark is known.
 */
static int minesp_input_without_gro(struct xfrm_state *x, struct sk_buff *skb)
{
	const struct xfrm_mark *set = &x->props.smark;
	struct net_device *dev = skb->dev;

	skb->mark = (skb->mark & ~set->m) | (x->mark.v & set->m);
	__skb_push(skb, skb->data - skb_mac_header(skb) - skb->mac_len);
	secpath_reset(skb);
	netif_receive_skb(skb);
	dev_put(dev);	/* xfrm_input()'s reference */
	return -EINPROGRESS;
}

/*
 * Clear what minesp_direct_prepare() has told xfrm_input(), which has used it. Set the
 * SA's mark only now, as xfrm_input() does: it looks up SAs within this one by the mark
 * that the packet came with. A packet from GRO keeps XFRM_GRO, so that xfrm_input()
 * gives it back to GRO.
 */
static void minesp_input_direct(struct xfrm_state *x, struct sk_buff *skb,
				struct sec_path *sp)
{
	if (unlikely(sp->len == 2)) {
		/*
		 * xfrm_input() has ignored the mark, and has looked up the SA again.
		 * Drop the first reference, and do it in another way from now on.
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

/**
 * minesp_input - the xfrm_type's input: take a packet out of ESP
 * @x: the SA
 * @skb: data and transport header at the ESP header. Paged, cloned, fragmented:
 *	 all welcome.
 *
 * xfrm_input() calls this between its two checks of the replay window, with bottom
 * halves off.
 *
 * Return: the Next Header; -EINPROGRESS, the packet then being gone or on its
 * way; or an error, and the caller drops the packet: -EBADMSG when the ICV is
 * wrong, -EINVAL when the packet is malformed or not fresh, -ENOMEM, the crypto
 * API's errors.
 */
int minesp_input(struct xfrm_state *x, struct sk_buff *skb)
{
	struct crypto_aead *aead = x->data;
	unsigned int hlen = sizeof(struct ip_esp_hdr) + minesp_sa(x)->ivlen;
	const struct xfrm_offload *xo = xfrm_offload(skb);
	struct sec_path *sp = skb_sec_path(skb);
	struct sk_buff *trailer;
	int err;

	if (sp->olen && (sp->ovec[0].flags & MINESP_DIRECT) == MINESP_DIRECT)
		minesp_input_direct(x, skb, sp);
	else if (xo && xo->flags & XFRM_GRO)
		return minesp_input_without_gro(x, skb);

	if (skb->len < hlen + 2 + crypto_aead_authsize(aead) ||
	    !pskb_may_pull(skb, hlen)) {
		minesp_stat_inc(minesp_sa(x)->mn, MINESP_IN_TRUNCATED);
		return -EINVAL;
	}

	err = minesp_make_writable(skb, 0, &trailer);
	if (likely(err >= 0)) {
		/* The device's checksum covers the ciphertext. */
		skb->ip_summed = CHECKSUM_NONE;
		err = minesp_crypt(x, skb, ip_esp_hdr(skb), err,
				   XFRM_SKB_CB(skb)->seq.input.hi,
				   minesp_input_done, false);
	}
	if (err == -EINPROGRESS)
		return err;
	err = minesp_input_end(x, skb, err);
	if (err == -EINPROGRESS)
		/*
		 * This frees the secpath, too, which holds x. It does so a little
		 * later, because xfrm_input() of 6.1 still reads skb->dev if an outer
		 * SA was asynchronous.
		 */
		dev_consume_skb_irq(skb);
	return err;
}

static unsigned int minesp_daddr_offset(u16 family)
{
	return family == AF_INET6 ? offsetof(struct ipv6hdr, daddr) :
				    offsetof(struct iphdr, daddr);
}

/* Set what xfrm_input() needs to look up an SA by the packet's SPI. */
static void minesp_set_spi_cb(struct sk_buff *skb, u16 family)
{
	XFRM_TUNNEL_SKB_CB(skb)->tunnel.ip4 = NULL;
	XFRM_SPI_SKB_CB(skb)->family = family;
	XFRM_SPI_SKB_CB(skb)->daddroff = minesp_daddr_offset(family);
}

/**
 * minesp_direct_prepare - give a packet its SA, as GRO does
 * @skb: the packet, without a secpath, and with its IP header at the network header
 * @x: the SA that its SPI leads to, referenced
 * @seq: the packet's SN
 * @family: of the packet
 * @flags: MINESP_DIRECT or MINESP_DIRECT_GRO
 *
 * Return: true, and @x is the packet's; or false when the SA is not the packet's, and
 * nothing has changed then.
 */
bool minesp_direct_prepare(struct sk_buff *skb, struct xfrm_state *x, __be32 seq,
			   u16 family, u32 flags)
{
	const void *daddr = skb_network_header(skb) + minesp_daddr_offset(family);
	struct sec_path *sp;

	/* The kernel's look-up checks the same. */
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
	/* A kernel may look up the SA all the same, see minesp_input_direct(). */
	minesp_set_spi_cb(skb, family);
	XFRM_SPI_SKB_CB(skb)->seq = seq;
	return true;
}

/**
 * minesp_direct_input - hand a packet to xfrm_input() together with its SA
 * @skb: the packet, prepared by minesp_direct_prepare()
 * @mn: its namespace
 * @encap_type: UDP_ENCAP_ESPINUDP or 0
 *
 * xfrm_input() skips its look-up, and does everything else.
 *
 * Return: what xfrm_input() returns
 */
int minesp_direct_input(struct sk_buff *skb, struct minesp_net *mn, int encap_type)
{
	minesp_stat_inc(mn, MINESP_IN_DIRECT);
	return minesp_deliver_input(skb, encap_type ?: READ_ONCE(direct_encap_type));
}

/*
 * Find the SA by the SPI. -EINVAL passes the packet to the next handler.
 *
 * If the table does not have the SA, call xfrm_input() to look it up. The packet is
 * then delivered in the same way as the packets that follow it, so they do not overtake
 * it.
 */
static int minesp_rcv_direct(struct sk_buff *skb, u16 family, int encap_type)
{
	struct minesp_net *mn = minesp_net(dev_net(skb->dev));
	struct xfrm_state *x;
	__be32 spi, seq;

	/*
	 * XFRM_GRO refers to the first SA of a secpath, so there must be no secpath
	 * yet. With one, XFRM interfaces have to check the policies for the outer
	 * packet.
	 */
	if (xfrm_parse_spi(skb, IPPROTO_ESP, &spi, &seq) || secpath_exists(skb))
		return -EINVAL;
	/*
	 * On kernels that need an encap_type of -2, there is no room for that of ESP in
	 * UDP.
	 */
	if (likely(READ_ONCE(direct) != DIRECT_IGNORED) &&
	    (!encap_type || !READ_ONCE(direct_encap_type))) {
		x = minesp_sad_find(mn, spi);
		/*
		 * Asynchronous crypto may outlive the RCU section that protects the
		 * dst.
		 */
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

static int minesp4_rcv_direct(struct sk_buff *skb)
{
	return minesp_rcv_direct(skb, AF_INET, 0);
}

static int minesp6_rcv_direct(struct sk_buff *skb)
{
	return minesp_rcv_direct(skb, AF_INET6, 0);
}

/* The same for ESP in UDP, which a socket has received */
static int minesp4_rcv_encap(struct sk_buff *skb, int nexthdr, __be32 spi,
			     int encap_type)
{
	return minesp_rcv_direct(skb, AF_INET, encap_type);
}

static int minesp6_rcv_encap(struct sk_buff *skb, int nexthdr, __be32 spi,
			     int encap_type)
{
	return minesp_rcv_direct(skb, AF_INET6, encap_type);
}

/* What a protocol handler does at a step in which it takes no part. */
static int minesp_skip_input(struct sk_buff *skb, int nexthdr, __be32 spi,
			     int encap_type)
{
	return -EINVAL;
}

static int minesp_skip_cb(struct sk_buff *skb, int err)
{
	return 1;
}

/*
 * Whether an ICMP message quotes a packet of an SA here, minimal or stock. XFRM
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

static int minesp_skip(struct sk_buff *skb)
{
	return -EINVAL;
}

/*
 * There are three protocol handlers in each family. The first one finds the SA by the
 * SPI. Its priority is above that of XFRM interfaces, which only handle decrypted
 * packets, and below that of VTI, which takes packets before decryption. It leaves to
 * the other handlers what it does not take. The second one takes back decrypted packets
 * that do not belong to an XFRM interface, and delivers them. The third one replaces
 * esp4 and esp6 on a host that has neither.
 */
#define MINESP_PROTOCOLS(v)						\
static struct xfrm##v##_protocol minesp##v##_protocols[] = { {		\
	.handler = minesp##v##_rcv_direct,				\
	.input_handler = minesp##v##_rcv_encap,				\
	.cb_handler = minesp_skip_cb,					\
	.err_handler = minesp##v##_err,					\
	.priority = 50,							\
}, {									\
	.handler = minesp_skip,						\
	.input_handler = minesp_skip_input,				\
	.cb_handler = minesp_deliver_cb,				\
	.err_handler = minesp##v##_err,					\
	.priority = 5,							\
}, {									\
	.handler = xfrm##v##_rcv,					\
	.input_handler = xfrm_input,					\
	.cb_handler = minesp_skip_cb,					\
	.err_handler = minesp##v##_err,					\
	.priority = -1,							\
} }

MINESP_PROTOCOLS(4);
MINESP_PROTOCOLS(6);

/**
 * minesp_protocols_register - take part in receiving ESP
 *
 * Return: 0, or a negative error, and nothing is registered then.
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
 * Deregistering a handler that was never registered is harmless.
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
