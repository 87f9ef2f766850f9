// SPDX-License-Identifier: GPL-2.0
/*
 * One AEAD operation on one packet, in place.
 */
#include "minesp.h"

/*
 * In one piece of memory: this, the IV, the request, the scatterlist. The
 * associated data lies here rather than in the packet, since with ESN it has
 * the upper half of the SN, which is not sent, in its middle (RFC 4303 2.2.1).
 */
struct minesp_op {
	struct sk_buff *skb;
	__be32 aad[3 + 4];	/* SPI, SN, IV of up to 16 bytes */
};

/**
 * minesp_async_end - the last that is done for a packet of asynchronous crypto
 * @mn: its namespace, which may be gone afterwards
 *
 * And the last that is done for a namespace: then none may begin any more.
 */
void minesp_async_end(struct minesp_net *mn)
{
	if (atomic_dec_and_test(&mn->async))
		wake_up_var(&mn->async);
}

/**
 * minesp_crypt - encrypt or decrypt a packet
 * @x: the SA
 * @skb: linear or with a frag list, and all of it writable; the ESP header is
 *	 at the transport header, complete, and in the linear part with the IV,
 *	 if one is sent.
 *	 The packet ends with the ICV, or with the room for it.
 * @nfrags: what skb_cow_data() returned
 * @seq_hi: the upper half of the SN where ESN is used
 * @done: called when an asynchronous operation has ended, bottom halves off;
 *	  it begins with minesp_crypt_end(), and ends with minesp_async_end()
 * @encrypt: or decrypt
 *
 * Return: 0; -EINPROGRESS when @done has been or will be called, and @skb is
 * no longer the caller's; -EBADMSG when the ICV is wrong; -ENOMEM, -ENOSPC
 * (the cipher's queue is full) or another error of the crypto API's.
 */
int minesp_crypt(struct xfrm_state *x, struct sk_buff *skb, int nfrags,
		 __be32 seq_hi, crypto_completion_t done, bool encrypt)
{
	const struct ip_esp_hdr *esph = ip_esp_hdr(skb);
	unsigned int sent_ivlen = minesp_sa(x)->ivlen;
	struct crypto_aead *aead = x->data;
	unsigned int ivlen = crypto_aead_ivsize(aead);
	int offset = skb_transport_offset(skb) + sizeof(*esph) + sent_ivlen;
	/* An IV that is not sent is the SN, all 64 bits (RFC 8750 4). */
	const __be32 sn[2] = { seq_hi, esph->seq_no };
	int textlen = skb->len - offset;
	struct minesp_net *mn = minesp_sa(x)->mn;
	struct aead_request *req;
	struct scatterlist *sg;
	struct minesp_op *op;
	bool async;
	__be32 *aad;
	int err;
	u8 *iv;

	/*
	 * Room for each part, and for aligning it. The peer chooses the number of
	 * fragments, up to some thousands that IP makes one packet of.
	 */
	op = kmalloc(sizeof(*op) + crypto_aead_alignmask(aead) + ivlen +
		     __alignof__(*req) + sizeof(*req) +
		     crypto_aead_reqsize(aead) + __alignof__(*sg) +
		     (1 + nfrags) * sizeof(*sg), GFP_ATOMIC | __GFP_NOWARN);
	if (!op)
		return -ENOMEM;
	iv = PTR_ALIGN((u8 *)(op + 1), crypto_aead_alignmask(aead) + 1);
	req = (void *)PTR_ALIGN(iv + ivlen, __alignof__(*req));
	sg = (void *)PTR_ALIGN((u8 *)(req + 1) + crypto_aead_reqsize(aead),
			       __alignof__(*sg));

	op->skb = skb;
	aad = op->aad;
	*aad++ = esph->spi;
	if (x->props.flags & XFRM_STATE_ESN)
		*aad++ = seq_hi;
	*aad++ = esph->seq_no;
	/*
	 * The crypto API's AEADs for ESP take the IV both as the IV and as the
	 * end of the associated data.
	 */
	memcpy(iv, sent_ivlen ? (void *)esph->enc_data : sn, ivlen);
	memcpy(aad, iv, ivlen);

	sg_init_table(sg, 1 + nfrags);
	sg_set_buf(sg, op->aad, (u8 *)aad - (u8 *)op->aad + ivlen);
	err = skb_to_sgvec(skb, sg + 1, offset, textlen);
	if (unlikely(err < 0))
		goto free;

	aead_request_set_tfm(req, aead);
	aead_request_set_callback(req, 0, done, op);
	aead_request_set_ad(req, sg->length);
	async = crypto_aead_alg(aead)->base.cra_flags & CRYPTO_ALG_ASYNC;
	/* Now, as it may be over before the call returns. */
	if (async && unlikely(!atomic_inc_not_zero(&mn->async))) {
		err = -ENETDOWN;
		goto free;
	}
	if (encrypt) {
		aead_request_set_crypt(req, sg, sg,
				       textlen - crypto_aead_authsize(aead), iv);
		err = crypto_aead_encrypt(req);
	} else {
		aead_request_set_crypt(req, sg, sg, textlen, iv);
		err = crypto_aead_decrypt(req);
	}
	if (err == -EINPROGRESS)
		return err;
	if (async)
		minesp_async_end(mn);
free:
	kfree(op);
	return err;
}

/**
 * minesp_crypt_end - take the packet back from an asynchronous operation
 * @data: what the completion callback was given
 *
 * Return: the packet, which is the caller's again.
 */
struct sk_buff *minesp_crypt_end(crypto_completion_data_t *data)
{
	struct minesp_op *op = crypto_get_completion_data(data);
	struct sk_buff *skb = op->skb;

	kfree(op);
	return skb;
}
