// SPDX-License-Identifier: GPL-2.0
/*
 * Receiving: decrypt a packet, and remove ESP header and trailer.
 */
#include <linux/netdevice.h>
#include <linux/udp.h>

#include "minesp.h"

/*
 * Remove the ESP header and the trailer of a packet with a valid ICV. Return the Next
 * Header, or -EINVAL.
 */
static int minesp_input_trim(struct xfrm_state *x, struct sk_buff *skb)
{
	int hlen = sizeof(struct ip_esp_hdr) + minesp_sa(x)->ivlen;
	int taillen = 2 + crypto_aead_authsize(x->data);
	struct minesp_net *mn = minesp_sa(x)->mn;
	u8 trailer[2];	/* Pad Length, Next Header */

	/* Cannot fail: minesp_input() has checked the length. */
	skb_copy_bits(skb, skb->len - taillen, trailer, sizeof(trailer));
	taillen += trailer[0];
	if (unlikely(hlen + taillen > skb->len)) {
		minesp_stat_inc(mn, MINESP_IN_PAD_LENGTH);
		return -EINVAL;
	}
	/* Cannot fail: minesp_make_writable() has made the memory the packet's own. */
	pskb_trim_unique(skb, skb->len - taillen);
	__skb_pull(skb, hlen);
	/*
	 * Hop-by-hop options cannot follow ESP. Without CONFIG_NETFILTER, IPv4 negates
	 * our return value. 0 would then mean that the packet is gone, and -EINVAL that
	 * no handler wants the packet.
	 */
	if (unlikely(trailer[1] == IPPROTO_HOPOPTS ||
		     (!IS_ENABLED(CONFIG_NETFILTER) && trailer[1] == EINVAL))) {
		minesp_stat_inc(mn, MINESP_IN_NEXT_HEADER);
		return -EINVAL;
	}
	return trailer[1];
}

/*
 * Finish a received packet. @err is the result of the crypto operation. Return the Next
 * Header; an error; or -EINPROGRESS for a dummy packet (RFC 4303, section 2.6), which the
 * caller must free.
 */
static int minesp_input_end(struct xfrm_state *x, struct sk_buff *skb, int err)
{
	int network_hlen = skb_network_header_len(skb);
	struct minesp_net *mn = minesp_sa(x)->mn;
	int next;

	if (unlikely(err)) {
		minesp_stat_inc(mn, err == -EBADMSG ? MINESP_IN_ICV :
				    err == -ENOMEM ? MINESP_IN_NO_MEMORY :
						     MINESP_IN_CRYPTO);
		return err;
	}

	err = minesp_seqno_fresh(x, skb);
	if (unlikely(err))
		return err;

	/* VTI takes packets before decryption, and must see the next ones, too. */
	if (!XFRM_TUNNEL_SKB_CB(skb)->tunnel.ip4)
		minesp_sad_learn(minesp_sa(x), x->id.spi);

	if (x->encap) {
		minesp_udp_input(x, skb);
		network_hlen -= sizeof(struct udphdr);
		/* NAT changed the addresses in the inner checksum (RFC 3948, section 3.1.2). */
		if (x->props.mode == XFRM_MODE_TRANSPORT)
			skb->ip_summed = CHECKSUM_UNNECESSARY;
	}

	next = minesp_input_trim(x, skb);
	if (unlikely(next < 0))
		return next;
	/*
	 * After -EINPROGRESS, xfrm_input() leaves us the packet and its own reference to
	 * the device. The SN of a dummy packet does not enter the replay window, because
	 * only xfrm_input() can do that. So a dummy packet must not count in the SA's
	 * lifetime. Otherwise an attacker could expire the SA by replaying it.
	 */
	if (next == IPPROTO_NONE) {
		minesp_stat_inc(mn, MINESP_IN_DUMMIES);
		dev_put(skb->dev);
		return -EINPROGRESS;
	}
	if (x->props.mode == XFRM_MODE_TUNNEL) {
		skb_reset_transport_header(skb);
	} else {
		skb_set_transport_header(skb, -network_hlen);
		if (unlikely(next == IPPROTO_AH || next == IPPROTO_ESP ||
			     next == IPPROTO_COMP))
			WRITE_ONCE(minesp_sa(x)->nested, true);
	}
	/*
	 * GRO compares hashes, but not secpaths. A value of the SA in the hash keeps GRO
	 * from merging packets of SAs with different selectors.
	 */
	if (x->props.mode == XFRM_MODE_TUNNEL || skb_sec_path(skb)->olen)
		skb->hash ^= minesp_sa(x)->gro_hash;
	minesp_stat_inc(mn, MINESP_IN_PACKETS);
	return next;
}

static void minesp_input_done(crypto_completion_data_t *data, int err)
{
	struct sk_buff *skb = minesp_crypt_end(data);
	struct xfrm_state *x = xfrm_input_state(skb);
	struct minesp_net *mn = minesp_sa(x)->mn;

	err = minesp_input_end(x, skb, err);
	if (err == -EINPROGRESS)
		consume_skb(skb);	/* drops the reference to x */
	else
		xfrm_input_resume(skb, err);
	minesp_async_end(mn);
}

/*
 * esp4_offload and esp6_offload take ESP from GRO without the checks of minesp_gro(). GRO
 * runs before IP has removed Ethernet's padding, has checked the destination address or has
 * removed the headers of tunnels. Headers that nobody has authenticated could then pass for
 * headers from inside ESP. So remove the SA, and give the packet to IP. It comes back
 * with the mark that has led to the SA, as far as the mark is known.
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

/**
 * minesp_input - the xfrm_type's input: decapsulate a packet
 * @x: the SA
 * @skb: the packet, its data and transport header at the ESP header. It may be paged or
 *	 cloned, or have a frag list.
 *
 * xfrm_input() calls this between xfrm_replay_check() and xfrm_replay_recheck(), with
 * bottom halves off.
 *
 * Return: the Next Header; -EINPROGRESS if the packet is gone or in asynchronous crypto; or
 * an error, and the caller drops the packet: -EBADMSG for an invalid ICV, -EINVAL for a
 * packet that is malformed or not fresh, -ENOMEM, or an error of the crypto API.
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
		minesp_direct_end(x, skb, sp);
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
		 * This drops the reference to x. It does so a little later, because
		 * xfrm_input() of 6.1 reads skb->dev afterwards if an outer SA was
		 * asynchronous.
		 */
		dev_consume_skb_irq(skb);
	return err;
}
