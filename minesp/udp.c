// SPDX-License-Identifier: GPL-2.0
/*
 * UDP encapsulation of ESP, to pass a NAT (RFC 3948).
 *
 * The IKE daemon's socket, with its option UDP_ENCAP, receives these packets. It keeps
 * IKE messages and keepalives, and passes ESP to the protocol handlers. The UDP header
 * stays in front of the transport header.
 */
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <net/ip6_checksum.h>

#include "minesp.h"

/**
 * minesp_udp_header - write the UDP header
 * @x: the SA
 * @skb: the packet, with trailer and ICV, its transport header where the UDP header goes
 *
 * A key manager may change the ports at the same time. A packet may then have one old and
 * one new port.
 *
 * Return: where the ESP header goes
 */
struct ip_esp_hdr *minesp_udp_header(const struct xfrm_state *x,
				     struct sk_buff *skb)
{
	struct udphdr *uh = udp_hdr(skb);

	uh->source = READ_ONCE(x->encap->encap_sport);
	uh->dest = READ_ONCE(x->encap->encap_dport);
	uh->len = htons(skb->len - skb_transport_offset(skb));
	uh->check = 0;
	return (struct ip_esp_hdr *)(uh + 1);
}

/**
 * minesp_udp_checksum - complete the UDP header of an encrypted packet
 * @x: the SA
 * @skb: the packet
 *
 * With IPv4 the checksum is zero (RFC 3948, section 2.1), which IPv6 does not allow
 * (RFC 8200, section 8.1).
 */
void minesp_udp_checksum(const struct xfrm_state *x, struct sk_buff *skb)
{
	const struct ipv6hdr *ip6h = ipv6_hdr(skb);
	int offset = skb_transport_offset(skb);
	int len = skb->len - offset;
	__sum16 sum;

	if (x->props.family != AF_INET6)
		return;
	sum = csum_ipv6_magic(&ip6h->saddr, &ip6h->daddr, len, IPPROTO_UDP,
			      skb_checksum(skb, offset, len, 0));
	udp_hdr(skb)->check = sum ?: CSUM_MANGLED_0;
}

/*
 * Is this the newest packet with a valid ICV? A daemon may add an SA again with its replay
 * window. udp_sn is 0 then, so check the window, too.
 */
static bool minesp_udp_newest(struct xfrm_state *x, const struct sk_buff *skb)
{
	struct minesp_sa *sa = minesp_sa(x);
	u64 sn = minesp_sn(skb);
	bool newest;

	spin_lock_bh(&x->lock);
	newest = sn > max(sa->udp_sn, minesp_rseq(x));
	if (newest)
		sa->udp_sn = sn;
	/* Without a replay window, the peer may start again at SN 1. */
	if (!(x->replay_esn ? x->replay_esn->replay_window : x->props.replay_window))
		newest = true;
	spin_unlock_bh(&x->lock);
	return newest;
}

/**
 * minesp_udp_input - report a changed NAT mapping to the key managers
 * @x: the SA
 * @skb: a packet with a valid ICV
 *
 * Neither a replay nor a late packet may move the peer of the SA. A replay can come here
 * while the original is still being decrypted.
 */
void minesp_udp_input(struct xfrm_state *x, const struct sk_buff *skb)
{
	const struct udphdr *uh = (void *)(skb_transport_header(skb) - sizeof(*uh));
	u16 family = x->props.family;
	xfrm_address_t saddr;

	if (!minesp_udp_newest(x, skb))
		return;
	memset(&saddr, 0, sizeof(saddr));
	if (family == AF_INET6)
		saddr.in6 = ipv6_hdr(skb)->saddr;
	else
		saddr.a4 = ip_hdr(skb)->saddr;
	if (!xfrm_addr_equal(&saddr, &x->props.saddr, family) ||
	    uh->source != READ_ONCE(x->encap->encap_sport))
		km_new_mapping(x, &saddr, uh->source);
}
