// SPDX-License-Identifier: GPL-2.0
/*
 * From plaintext to ESP.
 */
#include <linux/ipv6.h>
#include <net/ip.h>

#include "minesp.h"

/* RFC 4303 2.4: the trailer ends on a block of the cipher, and on 4 bytes. */
static unsigned int minesp_padlen(unsigned int len, unsigned int blocksize)
{
	return -(len + 2) & (ALIGN(blocksize, 4) - 1);
}

/**
 * minesp_output_end - finish a packet that has been encrypted, or has not, and count it
 * @x: the SA
 * @skb: the packet
 * @err: 0, or what minesp_crypt() or minesp_make_writable() returned
 *
 * Return: @err
 */
int minesp_output_end(struct xfrm_state *x, struct sk_buff *skb, int err)
{
	struct minesp_net *mn = minesp_sa(x)->mn;

	if (likely(!err)) {
		if (x->encap)
			minesp_udp_checksum(x, skb);
		minesp_stat_inc(mn, MINESP_OUT_PACKETS);
	} else if (err == -ENOMEM) {
		minesp_stat_inc(mn, MINESP_OUT_NO_MEMORY);
	} else {
		minesp_stat_inc(mn, MINESP_OUT_CRYPTO);
	}
	return err;
}

static void minesp_output_done(crypto_completion_data_t *data, int err)
{
	struct sk_buff *skb = minesp_crypt_end(data);
	/* The packet's dst still holds the SA. */
	struct xfrm_state *x = skb_dst(skb)->xfrm;
	struct minesp_net *mn = minesp_sa(x)->mn;

	err = minesp_output_end(x, skb, err);
	xfrm_output_resume(skb_to_full_sk(skb), skb, err);
	minesp_async_end(mn);
}

/**
 * minesp_encrypt - put a packet into ESP
 * @x: the SA
 * @skb: the packet, data at the plaintext, transport header where the ESP header goes, or
 *	 the UDP header before it,
 *	 network header at the outer IP header. Paged, cloned, fragmented: all
 *	 welcome. Bottom halves may be on.
 * @next: Next Header
 * @xmit: the packet comes by way of minesp_encap(), which has changed the IP header
 * @done: for minesp_crypt()
 *
 * Return: 0, the data then being at the outer IP header; -EINPROGRESS, the
 * packet then being on its way; or an error, and the caller frees the packet:
 * -EMSGSIZE when no IP packet can be that long, -ENOSPC when the cipher
 * is congested, -ENOMEM, those of minesp_seqno_next(), the crypto API's.
 */
int minesp_encrypt(struct xfrm_state *x, struct sk_buff *skb, u8 next, bool xmit,
		   crypto_completion_t done)
{
	const struct minesp_sa *sa = minesp_sa(x);
	struct crypto_aead *aead = x->data;
	struct ip_esp_hdr *esph;
	struct sk_buff *trailer;
	int len, padlen, taillen;
	int nfrags, err, i;
	u8 *tail;
	u64 sn;

	padlen = minesp_padlen(skb->len, crypto_aead_blocksize(aead));
	taillen = padlen + 2 + crypto_aead_authsize(aead);

	/* IPv6 does not count its own header in the length. */
	len = skb->len - skb_network_offset(skb) + taillen;
	if (x->props.family == AF_INET6)
		len -= sizeof(struct ipv6hdr);
	if (unlikely(len > U16_MAX)) {
		minesp_stat_inc(sa->mn, MINESP_OUT_TOO_BIG);
		return -EMSGSIZE;
	}

	/*
	 * Make the packet linear, our own, and long enough for the trailer. Mostly it
	 * is.
	 */
	nfrags = minesp_make_writable(skb, taillen, &trailer);
	if (unlikely(nfrags < 0))
		return minesp_output_end(x, skb, nfrags);

	err = xmit ? minesp_seqno_xmit(x, skb, &sn) :
		     minesp_seqno_next(x, skb, &sn);
	if (unlikely(err))
		return err;

	/* RFC 4303 2.4: pad bytes 1, 2, 3, ... */
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
 * minesp_output - the xfrm_type's output
 * @x: the SA
 * @skb: what xfrm_output() prepares: see minesp_encrypt(), and the core's SN in the control
 *	 block, mac header at the byte that says what follows the IP header
 *
 * Return: as minesp_encrypt(), but NET_XMIT_DROP when the cipher is congested
 */
int minesp_output(struct xfrm_state *x, struct sk_buff *skb)
{
	int err = minesp_encrypt(x, skb, *skb_mac_header(skb), false,
				 minesp_output_done);

	/*
	 * A full queue of the cipher is congestion, not an error. Only this function
	 * may say so, because xfrm_output_resume() takes a value above 0 to mean that
	 * the packet has not been transformed yet.
	 */
	return err == -ENOSPC ? NET_XMIT_DROP : err;
}
