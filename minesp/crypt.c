// SPDX-License-Identifier: GPL-2.0
/*
 * One AEAD operation on one packet, in place.
 */
#include <linux/percpu.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>

#include "minesp.h"

/*
 * The state of one operation. The IV, the request and the scatterlist follow in the same
 * allocation. @aad holds the associated data where they are not contiguous in the packet:
 * with ESN they contain the upper half of the SN, which is not sent (RFC 4303, section
 * 2.2.1). A device may access @aad by DMA, so it has cache lines of its own.
 */
struct minesp_op {
	struct sk_buff *skb;
	size_t size;
	/* SPI, SN, IV of up to 16 bytes */
	__be32 aad[3 + 4] __aligned(ARCH_DMA_MINALIGN);
};

/* Each CPU keeps one for the next packet. The size is enough for the usual suites. */
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
	/* No warning, because the peer chooses the number of fragments. */
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
 * minesp_crypt_exit - free the memory that minesp_crypt() has kept; no packet is in flight
 */
void minesp_crypt_exit(void)
{
	int cpu;

	for_each_possible_cpu(cpu)
		kfree(per_cpu(minesp_spare, cpu));
}

/**
 * minesp_make_writable - make sure that nobody else uses the memory of a packet
 * @skb: the packet. It becomes linear, unless it has a frag list.
 * @taillen: bytes of room that are needed behind the packet
 * @trailer: set to the buffer that has this room
 *
 * skb_cow_data() alone would do. But it allocates up to twice the memory that is needed,
 * and the kernel clears all of it.
 *
 * Pages are always copied. They may belong to a file or to the sender, and the flags of
 * an skb do not say so reliably.
 *
 * Return: the number of buffers, for minesp_crypt(); or -ENOMEM
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
 * @skb: the packet, made writable. It ends with the ICV, or with the room for it.
 * @esph: its complete ESP header, in the linear part together with the IV, if one is sent
 * @nfrags: what minesp_make_writable() returned
 * @seq_hi: the upper half of the SN; 0 without ESN
 * @done: called with bottom halves off when an asynchronous operation is complete. It must
 *	  call minesp_crypt_end() first and minesp_async_end() last.
 * @encrypt: encrypt, or decrypt
 *
 * Return: 0; -EINPROGRESS if @done takes over @skb, and may have done so already; -EBADMSG
 * for an invalid ICV; -ENOMEM, -ENOSPC if the queue of the cipher is full, -ENETDOWN while
 * the namespace ends, or another error of the crypto API.
 */
int minesp_crypt(struct xfrm_state *x, struct sk_buff *skb,
		 struct ip_esp_hdr *esph, int nfrags, __be32 seq_hi,
		 crypto_completion_t done, bool encrypt)
{
	unsigned int sent_ivlen = minesp_sa(x)->ivlen;
	struct crypto_aead *aead = x->data;
	unsigned int ivlen = crypto_aead_ivsize(aead);
	int offset = esph->enc_data + sent_ivlen - skb->data;
	/* An implicit IV is the SN, with all 64 bits (RFC 8750, section 4). */
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

	/* Each part, and the room to align it */
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
	 * The associated data are SPI, SN and IV: the crypto API's AEADs for ESP expect
	 * the IV at the end. Most packets begin with exactly that. Then one entry in the
	 * scatterlist is enough, which is faster.
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
	/* Before the call, because @done may run before it returns. */
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
 * Return: the packet, which is the caller's again
 */
struct sk_buff *minesp_crypt_end(crypto_completion_data_t *data)
{
	struct minesp_op *op = crypto_get_completion_data(data);
	struct sk_buff *skb = op->skb;

	minesp_op_put(op);
	return skb;
}
