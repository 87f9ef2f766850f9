// SPDX-License-Identifier: GPL-2.0
/*
 * Sending: add ESP header and trailer to a packet, and encrypt it.
 */
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <net/ip.h>

#include "minesp.h"

/*
 * The trailer ends on a block of the cipher, and on 4 bytes (RFC 4303, section 2.4). @least
 * is the least length of plaintext and trailer without the ICV.
 */
static unsigned int minesp_padlen(unsigned int len, unsigned int blocksize, unsigned int least)
{
	return ALIGN(max(len + 2, least), ALIGN(blocksize, 4)) - len - 2;
}

/**
 * minesp_output_end - complete the UDP header of an encrypted packet, and count the packet
 * @x: the SA
 * @skb: the packet
 * @err: what minesp_crypt() or minesp_make_writable() returned
 *
 * Return: @err
 */
int minesp_output_end(struct xfrm_state *x, struct sk_buff *skb, int err)
{
	if (!err && x->encap)
		minesp_udp_checksum(x, skb);
	minesp_stat_inc(minesp_sa(x)->mn, likely(!err) ? MINESP_OUT_PACKETS :
					  err == -ENOMEM ? MINESP_OUT_NO_MEMORY :
							   MINESP_OUT_CRYPTO);
	return err;
}

static void minesp_output_done(crypto_completion_data_t *data, int err)
{
	struct sk_buff *skb = minesp_crypt_end(data);
	/* The dst of the packet holds the SA. */
	struct xfrm_state *x = skb_dst(skb)->xfrm;
	struct minesp_net *mn = minesp_sa(x)->mn;

	err = minesp_output_end(x, skb, err);
	xfrm_output_resume(skb_to_full_sk(skb), skb, err);
	minesp_async_end(mn);
}

/**
 * minesp_encrypt - add ESP header and trailer to a packet, and encrypt it
 * @x: the SA
 * @skb: the packet. Its data is at the plaintext, its network header at the outer IP
 *	 header, and its transport header where the ESP header goes, or the UDP header
 *	 before it. It may be paged or cloned, or have a frag list.
 * @next: the Next Header
 * @xmit: the packet went through minesp_encap(), which has set the protocol in the IP header
 * @done: for minesp_crypt()
 *
 * Bottom halves may be on.
 *
 * Return: 0, with the packet's data at the outer IP header; -EINPROGRESS if the packet is
 * in asynchronous crypto; or an error, and the caller frees the packet: -EMSGSIZE if it
 * would be longer than IP allows, -ENOSPC if the queue of the cipher is full, -ENOMEM, or an
 * error of minesp_seqno_next() or of the crypto API.
 */
int minesp_encrypt(struct xfrm_state *x, struct sk_buff *skb, u8 next, bool xmit,
		   crypto_completion_t done)
{
	const struct minesp_sa *sa = minesp_sa(x);
	struct crypto_aead *aead = x->data;
	struct ip_esp_hdr *esph;
	struct sk_buff *trailer;
	int len, least, padlen, taillen;
	int nfrags, err, i;
	u8 *tail;
	u64 sn;

	/* Linux discards ESP in UDP over IPv6 that is shorter than an IPv6 header. */
	least = 0;
	if (x->encap && x->props.family == AF_INET6)
		least = max_t(int, 0, sizeof(struct ipv6hdr) - sizeof(*esph) -
			      sa->ivlen - crypto_aead_authsize(aead));
	padlen = minesp_padlen(skb->len, crypto_aead_blocksize(aead), least);
	taillen = padlen + 2 + crypto_aead_authsize(aead);

	/* The length in an IPv6 header does not include that header. */
	len = skb->len - skb_network_offset(skb) + taillen;
	if (x->props.family == AF_INET6)
		len -= sizeof(struct ipv6hdr);
	if (unlikely(len > U16_MAX)) {
		minesp_stat_inc(sa->mn, MINESP_OUT_TOO_BIG);
		return -EMSGSIZE;
	}

	/* Most packets are writable already, and have room for the trailer. */
	nfrags = minesp_make_writable(skb, taillen, &trailer);
	if (unlikely(nfrags < 0))
		return minesp_output_end(x, skb, nfrags);

	err = xmit ? minesp_seqno_xmit(x, skb, &sn) :
		     minesp_seqno_next(x, skb, &sn);
	if (unlikely(err))
		return err;

	/* Padding is 1, 2, 3, ... (RFC 4303, section 2.4). */
	tail = pskb_put(skb, trailer, taillen);
	for (i = 0; i < padlen; i++)
		tail[i] = i + 1;
	tail[padlen] = padlen;
	tail[padlen + 1] = next;

	esph = x->encap ? minesp_udp_header(x, skb) : ip_esp_hdr(skb);
	esph->spi = x->id.spi;
	esph->seq_no = htonl(lower_32_bits(sn));
	minesp_iv(sa, sn, esph->enc_data);

	skb_push(skb, -skb_network_offset(skb));
	if (xmit && x->props.family == AF_INET6) {
		ipv6_hdr(skb)->payload_len =
			htons(skb->len - sizeof(struct ipv6hdr));
	} else if (xmit) {
		ip_hdr(skb)->tot_len = htons(skb->len);
		ip_send_check(ip_hdr(skb));
	} else {
		*skb_mac_header(skb) = x->encap ? IPPROTO_UDP : IPPROTO_ESP;
	}
	err = minesp_crypt(x, skb, esph, nfrags, htonl(upper_32_bits(sn)), done, true);
	if (err == -EINPROGRESS)
		return err;
	return minesp_output_end(x, skb, err);
}

/**
 * minesp_output - the xfrm_type's output: encapsulate a packet
 * @x: the SA
 * @skb: the packet, as minesp_encrypt() expects it. The SN of the core is in its control
 *	 block, and its mac header is at the field that says what follows the IP header.
 *
 * Return: as minesp_encrypt(), but NET_XMIT_DROP if the queue of the cipher is full
 */
int minesp_output(struct xfrm_state *x, struct sk_buff *skb)
{
	int err = minesp_encrypt(x, skb, *skb_mac_header(skb), false,
				 minesp_output_done);

	/*
	 * A full queue of the cipher is congestion. minesp_output_done() must not say
	 * so, because xfrm_output_resume() takes a value above 0 to mean that the packet
	 * has not been transformed yet.
	 */
	return err == -ENOSPC ? NET_XMIT_DROP : err;
}
