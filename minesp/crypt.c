// SPDX-License-Identifier: GPL-2.0
/*
 * One AEAD operation on one packet, in place.
 */
#include "minesp.h"

/*
 * One piece of memory holds this struct, the IV, the request and the scatterlist. @aad
 * holds the associated data where it is not part of the packet: with ESN, the upper
 * half of the SN is in its middle but is not sent (RFC 4303 2.2.1).
 */
struct minesp_op {
	struct sk_buff *skb;
	size_t size;
	__be32 aad[3 + 4];	/* SPI, SN, IV of up to 16 bytes */
};

/* Each CPU keeps one for the next packet; this is enough for the usual suites. */
#define MINESP_OP_SIZE	1024
static DEFINE_PER_CPU(struct minesp_op *, minesp_spare);

static struct minesp_op *minesp_op_get(size_t size)
{
	struct minesp_op *op;

	if (likely(size <= MINESP_OP_SIZE)) {
		op = this_cpu_xchg(minesp_spare, NULL);
		if (likely(op))
			return op;
		size = MINESP_OP_SIZE;
	}
	/* The peer chooses the number of fragments: some thousands at most. */
	op = kmalloc(size, GFP_ATOMIC | __GFP_NOWARN);
	if (op)
		op->size = size;
	return op;
}

static void minesp_op_put(struct minesp_op *op)
{
	if (likely(op->size == MINESP_OP_SIZE))
		op = this_cpu_xchg(minesp_spare, op);
	kfree(op);
}

/**
 * minesp_crypt_exit - free what minesp_crypt() has kept; no packet is under way
 */
void minesp_crypt_exit(void)
{
	int cpu;

	for_each_possible_cpu(cpu)
		kfree(per_cpu(minesp_spare, cpu));
}

/**
 * minesp_make_writable - make a packet's memory its own, so that it can be changed
 * @skb: the packet: paged, cloned, fragmented. It becomes linear, unless it has a frag
 *	 list.
 * @taillen: bytes of room to have behind it
 * @trailer: receives the buffer with that room
 *
 * skb_cow_data() does all of it. But it copies to a buffer that is larger than needed, and
 * so twice as large in many cases, and the kernel clears all of it first.
 *
 * Pages may be shared with a file or with their sender, and no flag of the skb says so.
 * So pages are always copied.
 *
 * Return: the number of buffers, for minesp_crypt(); or -ENOMEM.
 */
int minesp_make_writable(struct sk_buff *skb, int taillen, struct sk_buff **trailer)
{
	int room = skb->data_len + taillen - (skb->end - skb->tail);

	if (!skb_has_frag_list(skb)) {
		if (likely(!skb_cloned(skb) && !skb->data_len && room <= 0)) {
			*trailer = skb;
			return 1;
		}
		if (pskb_expand_head(skb, 0, max(room, 0), GFP_ATOMIC))
			return -ENOMEM;
	}
	return skb_cow_data(skb, taillen, trailer);
}

/**
 * minesp_crypt - encrypt or decrypt a packet
 * @x: the SA
 * @skb: the packet, its memory its own. It ends with the ICV, or with the room for it.
 * @esph: its ESP header, complete, and in the linear part with the IV, if one is sent
 * @nfrags: what minesp_make_writable() returned
 * @seq_hi: the upper half of the SN where ESN is used
 * @done: called when an asynchronous operation has ended, bottom halves off;
 *	  it begins with minesp_crypt_end(), and ends with minesp_async_end()
 * @encrypt: or decrypt
 *
 * Return: 0; -EINPROGRESS when @done has been or will be called, and @skb is
 * no longer the caller's; -EBADMSG when the ICV is wrong; -ENOMEM, -ENOSPC
 * (the cipher's queue is full) or another error of the crypto API's.
 */
int minesp_crypt(struct xfrm_state *x, struct sk_buff *skb,
		 struct ip_esp_hdr *esph, int nfrags, __be32 seq_hi,
		 crypto_completion_t done, bool encrypt)
{
	unsigned int sent_ivlen = minesp_sa(x)->ivlen;
	struct crypto_aead *aead = x->data;
	unsigned int ivlen = crypto_aead_ivsize(aead);
	int offset = esph->enc_data + sent_ivlen - skb->data;
	/* An IV that is not sent is the SN, all 64 bits (RFC 8750 4). */
	const __be32 sn[2] = { seq_hi, esph->seq_no };
	struct minesp_net *mn = minesp_sa(x)->mn;
	unsigned int adlen = sizeof(*esph) + ivlen;
	int textlen = skb->len - offset;
	struct aead_request *req;
	struct scatterlist *sg;
	struct minesp_op *op;
	bool async;
	int err;
	u8 *iv;

	/* Room for each part, and for aligning it. */
	op = minesp_op_get(sizeof(*op) + crypto_aead_alignmask(aead) + ivlen +
			   __alignof__(*req) + sizeof(*req) +
			   crypto_aead_reqsize(aead) + __alignof__(*sg) +
			   (1 + nfrags) * sizeof(*sg));
	if (!op)
		return -ENOMEM;
	iv = PTR_ALIGN((u8 *)(op + 1), crypto_aead_alignmask(aead) + 1);
	req = (void *)PTR_ALIGN(iv + ivlen, __alignof__(*req));
	sg = (void *)PTR_ALIGN((u8 *)(req + 1) + crypto_aead_reqsize(aead),
			       __alignof__(*sg));

	op->skb = skb;
	memcpy(iv, sent_ivlen ? (void *)esph->enc_data : sn, ivlen);
	/*
	 * The associated data are SPI, SN, IV. The crypto API's AEADs for ESP take the
	 * IV as the end of them, too. Mostly they are what the packet begins with, and
	 * the ciphers are faster when all is in one piece.
	 */
	if (sent_ivlen && nfrags == 1 && !(x->props.flags & XFRM_STATE_ESN)) {
		sg_init_one(sg, esph, adlen + textlen);
	} else {
		__be32 *aad = op->aad;

		*aad++ = esph->spi;
		if (x->props.flags & XFRM_STATE_ESN) {
			*aad++ = seq_hi;
			adlen += sizeof(seq_hi);
		}
		*aad++ = esph->seq_no;
		memcpy(aad, iv, ivlen);
		sg_init_table(sg, 1 + nfrags);
		sg_set_buf(sg, op->aad, adlen);
		err = skb_to_sgvec(skb, sg + 1, offset, textlen);
		if (unlikely(err < 0))
			goto free;
	}

	aead_request_set_tfm(req, aead);
	aead_request_set_callback(req, 0, done, op);
	aead_request_set_ad(req, adlen);
	async = crypto_aead_alg(aead)->base.cra_flags & CRYPTO_ALG_ASYNC;
	/* Now, as it may be over before the call returns. */
	if (async && unlikely(!percpu_ref_tryget_live(&mn->async))) {
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
	minesp_op_put(op);
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

	minesp_op_put(op);
	return skb;
}
