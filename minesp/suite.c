// SPDX-License-Identifier: GPL-2.0
/*
 * Cipher suites (RFC 8221), keys and IVs.
 */
#include <linux/random.h>
#include <linux/rtnetlink.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <crypto/authenc.h>

#include "minesp.h"

#define USAGE(stock_has, text) \
	MINESP_UNSUPPORTED(-EINVAL, MINESP_STOCK_KEY, stock_has, text)

/*
 * Each row is an AEAD (aead in ip xfrm), a cipher (enc) or an authenticator (auth-trunc).
 * Any cipher works with any authenticator. The core has checked that each name of an SA
 * is of the right kind.
 */
static const struct minesp_alg {
	const char *name;	/* in the crypto API and in ip xfrm */
	u16 icv_bits[2];	/* the valid ICV lengths; none for enc */
	u16 implicit;		/* the ICV length for implicit IVs (RFC 8750), in bits; 0: none */
	u16 key_bits;		/* the only valid key length; 0: the crypto API checks it */
	struct minesp_unsupported usage;	/* for any other ICV or key length */
} algs[] = {
	/* RFC 4106; with the ICV of 16 bytes: MUST in RFC 8221 */
	{ "rfc4106(gcm(aes))", { 128, 128 }, 128, 0,
	  USAGE(true, "AES-GCM: use a key of 20, 28 or 36 bytes (4 of salt) and a 128-bit ICV") },
	/* RFC 7634; SHOULD */
	{ "rfc7539esp(chacha20,poly1305)", { 128, 128 }, 128, 0,
	  USAGE(false, "ChaCha20-Poly1305: use a key of 36 bytes (4 of salt) and a 128-bit ICV") },
	/* RFC 4309; AES-CCM-8: SHOULD for constrained hosts */
	{ "rfc4309(ccm(aes))", { 64, 128 }, 64, 0,
	  USAGE(true, "AES-CCM: use a key of 19, 27 or 35 bytes (3 of salt), 64 or 128-bit ICV") },
	/* RFC 4543, authentication only; MAY */
	{ "rfc4543(gcm(aes))", { 128, 128 }, 0, 0,
	  USAGE(false, "AES-GMAC: use a key of 20, 28 or 36 bytes (4 of salt) and a 128-bit ICV") },
	/* RFC 3602; MUST */
	{ "cbc(aes)", {}, 0, 0,
	  USAGE(false, "AES-CBC: use a key of 16, 24 or 32 bytes") },
	/* RFC 3686 */
	{ "rfc3686(ctr(aes))", {}, 0, 0,
	  USAGE(false, "AES-CTR: use a key of 20, 28 or 36 bytes (4 of nonce)") },
	/* RFC 2410, authentication only; MUST */
	{ "ecb(cipher_null)", {}, 0, 0,
	  USAGE(false, "NULL encryption has no key; use enc 'ecb(cipher_null)' ''") },
	/* RFC 4868; MUST */
	{ "hmac(sha256)", { 128, 128 }, 0, 256,
	  USAGE(true, "HMAC-SHA2-256: use auth-trunc, a key of 32 bytes and a 128-bit ICV") },
	/* RFC 4868; SHOULD */
	{ "hmac(sha512)", { 256, 256 }, 0, 512,
	  USAGE(true, "HMAC-SHA2-512: use auth-trunc, a key of 64 bytes and a 256-bit ICV") },
	/* RFC 3566; SHOULD for constrained hosts */
	{ "xcbc(aes)", { 96, 96 }, 0, 128,
	  USAGE(true, "AES-XCBC: use auth-trunc, a key of 16 bytes and a 96-bit ICV") },
	/* RFC 4494 */
	{ "cmac(aes)", { 96, 96 }, 0, 128,
	  USAGE(true, "AES-CMAC: use auth-trunc, a key of 16 bytes and a 96-bit ICV") },
};

static const struct minesp_unsupported minesp_unsup_enc =
	MINESP_UNSUPPORTED(-EINVAL, MINESP_STOCK_SUITE, false,
			   "no cipher; use enc 'ecb(cipher_null)' '' to authenticate only");

static const struct minesp_unsupported minesp_unsup_auth =
	MINESP_UNSUPPORTED(-EOPNOTSUPP, MINESP_STOCK_SUITE, true,
			   "no authenticator; use auth-trunc too, or aead 'rfc4106(gcm(aes))'");

static const struct minesp_unsupported minesp_unsup_cipher =
	MINESP_UNSUPPORTED(-EOPNOTSUPP, MINESP_STOCK_SUITE, true,
			   "weak or unsupported cipher (RFC 8221); use aead 'rfc4106(gcm(aes))'");

static const struct minesp_unsupported minesp_unsup_authenticator =
	MINESP_UNSUPPORTED(-EOPNOTSUPP, MINESP_STOCK_SUITE, true,
			   "weak or unsupported authenticator; use auth-trunc 'hmac(sha256)'");

/* The suite of an SA. With an AEAD, both rows are the same. */
struct minesp_suite {
	const struct minesp_alg *enc, *auth;
	unsigned int icv_bits;
};

static const struct minesp_alg *minesp_alg(const char *name)
{
	const struct minesp_alg *alg;

	for (alg = algs; alg < algs + ARRAY_SIZE(algs); alg++)
		if (!strcmp(alg->name, name))
			return alg;
	return NULL;
}

static const struct minesp_unsupported *
minesp_suite_find(struct minesp_suite *s, const struct xfrm_state *x)
{
	if (x->aead) {
		s->enc = minesp_alg(x->aead->alg_name);
		s->auth = s->enc;
		s->icv_bits = x->aead->alg_icv_len;
	} else {
		if (!x->ealg)
			return &minesp_unsup_enc;
		if (!x->aalg)
			return &minesp_unsup_auth;
		s->enc = minesp_alg(x->ealg->alg_name);
		s->auth = minesp_alg(x->aalg->alg_name);
		s->icv_bits = x->aalg->alg_trunc_len;
	}
	if (!s->enc)
		return &minesp_unsup_cipher;
	if (!s->auth)
		return &minesp_unsup_authenticator;
	if (s->icv_bits != s->auth->icv_bits[0] &&
	    s->icv_bits != s->auth->icv_bits[1])
		return &s->auth->usage;
	return NULL;
}

/* Set both keys, in the format of authenc. */
static int minesp_setkeys(struct crypto_aead *aead, const struct xfrm_state *x)
{
	unsigned int authlen = DIV_ROUND_UP(x->aalg->alg_key_len, 8);
	unsigned int enclen = DIV_ROUND_UP(x->ealg->alg_key_len, 8);
	struct {
		struct rtattr attr;
		struct crypto_authenc_key_param param;
		u8 keys[];
	} *blob;
	size_t size = struct_size(blob, keys, authlen + enclen);
	int err;

	blob = kmalloc(size, GFP_KERNEL);
	if (!blob)
		return -ENOMEM;
	blob->attr.rta_type = CRYPTO_AUTHENC_KEYA_PARAM;
	blob->attr.rta_len = RTA_LENGTH(sizeof(blob->param));
	blob->param.enckeylen = cpu_to_be32(enclen);
	memcpy(blob->keys, x->aalg->alg_key, authlen);
	memcpy(blob->keys + authlen, x->ealg->alg_key, enclen);
	err = crypto_aead_setkey(aead, (u8 *)blob, size);
	kfree_sensitive(blob);
	return err;
}

/**
 * minesp_suite_init - allocate the AEAD of an SA, and set its key
 * @x: the SA, with the user's algorithms and keys
 * @unsup: set if minimal ESP does not support the suite, else NULL
 * @extack: set for other errors
 *
 * Return: the AEAD, to be freed with crypto_free_aead(); or an ERR_PTR: -EOPNOTSUPP for a
 * suite that minimal ESP does not support, -EINVAL for a suite without a cipher or for a
 * wrong length of key or ICV, -ENOMEM, or an error of the crypto API.
 */
struct crypto_aead *minesp_suite_init(const struct xfrm_state *x,
				      const struct minesp_unsupported **unsup,
				      struct netlink_ext_ack *extack)
{
	char name[CRYPTO_MAX_ALG_NAME];
	struct crypto_aead *aead;
	struct minesp_suite s;
	bool other_key;
	int err;

	*unsup = minesp_suite_find(&s, x);
	if (*unsup)
		return ERR_PTR((*unsup)->err);
	if (x->props.extra_flags & MINESP_XFLAG_IMPLICIT_IV &&
	    s.icv_bits != s.auth->implicit) {
		err = minesp_refuse(extack, -EOPNOTSUPP,
				    "implicit IV needs AES-GCM, ChaCha20-Poly1305 or AES-CCM with 64-bit ICV");
		return ERR_PTR(err);
	}

	if (x->aead)
		strscpy(name, s.enc->name, sizeof(name));
	else
		snprintf(name, sizeof(name), "authenc%s(%s,%s)",
			 x->props.flags & XFRM_STATE_ESN ? "esn" : "",
			 s.auth->name, s.enc->name);
	aead = crypto_alloc_aead(name, 0, 0);
	if (IS_ERR(aead)) {
		if (PTR_ERR(aead) == -ENOENT)
			minesp_refuse(extack, -ENOENT,
				      "the kernel lacks part of this suite; check CONFIG_CRYPTO_AUTHENC");
		return aead;
	}

	if (x->aead)
		err = crypto_aead_setkey(aead, x->aead->alg_key,
					 DIV_ROUND_UP(x->aead->alg_key_len, 8));
	else
		err = minesp_setkeys(aead, x);
	other_key = s.auth->key_bits &&
		    s.auth->key_bits != x->aalg->alg_key_len;
	if (err == -EINVAL) {
		minesp_set_extack(extack, err,
				  other_key ? s.auth->usage.text : s.enc->usage.text);
	} else if (!err && other_key) {
		*unsup = &s.auth->usage;
		err = s.auth->usage.err;
	}
	if (!err)
		err = crypto_aead_setauthsize(aead, s.icv_bits / 8);
	if (err) {
		crypto_free_aead(aead);
		return ERR_PTR(err);
	}
	return aead;
}

/**
 * minesp_iv_init - prepare an SA for minesp_iv()
 * @sa: the SA
 * @x: its state, with the AEAD and the final extra_flags
 *
 * AES-CBC needs unpredictable IVs (RFC 3602, section 3): a PRF of the SN, under a random
 * key. Other ciphers need IVs that are unique under the key. A counter SN repeats when the
 * key is added again, so it is XORed with a random number. An SN from the clock does not
 * repeat. Its highest byte is 0, see MINESP_SN_MAX. There, the IV holds the sender ID. An
 * implicit IV is the SN.
 */
void minesp_iv_init(struct minesp_sa *sa, const struct xfrm_state *x)
{
	unsigned int ivlen = crypto_aead_ivsize(x->data);

	sa->ivlen = x->props.extra_flags & MINESP_XFLAG_IMPLICIT_IV ? 0 : ivlen;
	if (ivlen == sizeof(sa->iv_key) ||
	    !(x->props.extra_flags & MINESP_XFLAG_CLOCK))
		get_random_bytes(&sa->iv_key, sizeof(sa->iv_key));
	else
		sa->iv_key.key[0] = (u64)sa->seqno->iv_sender << 56;
}

/**
 * minesp_iv - make the IV of a packet
 * @sa: the sending SA
 * @sn: the packet's SN
 * @iv: set to sa->ivlen bytes
 */
void minesp_iv(const struct minesp_sa *sa, u64 sn, u8 *iv)
{
	__be64 words[2] = { cpu_to_be64(sn ^ sa->iv_key.key[0]) };

	if (sa->ivlen == sizeof(words)) {
		words[0] = cpu_to_be64(siphash_2u64(sn, 0, &sa->iv_key));
		words[1] = cpu_to_be64(siphash_2u64(sn, 1, &sa->iv_key));
	}
	memcpy(iv, words, sa->ivlen);
}
