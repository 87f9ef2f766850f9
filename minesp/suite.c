// SPDX-License-Identifier: GPL-2.0
/*
 * Cipher suites: which ones there are (RFC 8221), keys, and where each IV
 * comes from.
 */
#include "minesp.h"

/*
 * One row, one suite. The crypto API's AEADs for ESP take the IV both as the
 * IV and as the end of the associated data.
 */
static const struct minesp_suite {
	const char *aead;	/* name in the crypto API and in ip xfrm */
	u16 icv_bits[2];	/* which ICVs there are, one or two */
	const char *usage;	/* the answer to any other ICV or key */
} suites[] = {
	/* RFC 4106; with the ICV of 16 bytes: MUST in RFC 8221 */
	{ "rfc4106(gcm(aes))", { 128, 128 }, KBUILD_MODNAME
	  ": AES-GCM: an ICV of 128 bits; a key of 16, 24 or 32 bytes and 4 of salt" },
	/* RFC 7634; SHOULD */
	{ "rfc7539esp(chacha20,poly1305)", { 128, 128 }, KBUILD_MODNAME
	  ": ChaCha20-Poly1305: an ICV of 128 bits; a key of 32 bytes and 4 of salt" },
	/* RFC 4309; AES-CCM-8: SHOULD for constrained hosts */
	{ "rfc4309(ccm(aes))", { 64, 128 }, KBUILD_MODNAME
	  ": AES-CCM: an ICV of 64 or 128 bits; a key of 16, 24 or 32 bytes and 3 of salt" },
	/* RFC 4543, authentication alone; MAY */
	{ "rfc4543(gcm(aes))", { 128, 128 }, KBUILD_MODNAME
	  ": AES-GMAC: an ICV of 128 bits; a key of 16, 24 or 32 bytes and 4 of salt" },
};

/* A text that is not a literal. */
static void minesp_say(struct netlink_ext_ack *extack, const char *text)
{
	if (extack)
		extack->_msg = text;
}

static const struct minesp_suite *minesp_suite_find(const struct xfrm_state *x,
						    struct netlink_ext_ack *extack)
{
	const struct minesp_suite *s;

	if (x->ealg && !x->aalg) {
		NL_SET_ERR_MSG_MOD(extack,
				   "encryption without authentication is refused; use aead 'rfc4106(gcm(aes))'");
		return NULL;
	}
	for (s = suites; x->aead && s < suites + ARRAY_SIZE(suites); s++) {
		if (strcmp(x->aead->alg_name, s->aead))
			continue;
		if (x->aead->alg_icv_len == s->icv_bits[0] ||
		    x->aead->alg_icv_len == s->icv_bits[1])
			return s;
		minesp_say(extack, s->usage);
		return NULL;
	}
	NL_SET_ERR_MSG_MOD(extack,
			   "no such suite; use aead 'rfc4106(gcm(aes))' KEY 128, or extra-flag 0x02000000 for the kernel's own ESP");
	return NULL;
}

/**
 * minesp_suite_init - make the AEAD that an SA asks for, keyed
 * @x: the SA, with its algorithms as the user gave them
 * @extack: receives the reason of a refusal
 *
 * Return: the AEAD, for crypto_free_aead(); or an ERR_PTR: -EOPNOTSUPP for a
 * suite that minimal ESP does not have, the crypto API's error otherwise.
 */
struct crypto_aead *minesp_suite_init(struct xfrm_state *x,
				      struct netlink_ext_ack *extack)
{
	const struct minesp_suite *suite = minesp_suite_find(x, extack);
	struct crypto_aead *aead;
	int err;

	if (!suite)
		return ERR_PTR(-EOPNOTSUPP);

	aead = crypto_alloc_aead(suite->aead, 0, 0);
	if (IS_ERR(aead)) {
		NL_SET_ERR_MSG_MOD(extack,
				   "the kernel's crypto API does not have this suite");
		return aead;
	}
	err = crypto_aead_setkey(aead, x->aead->alg_key,
				 DIV_ROUND_UP(x->aead->alg_key_len, 8));
	if (err) {
		minesp_say(extack, suite->usage);
		goto free;
	}
	err = crypto_aead_setauthsize(aead, x->aead->alg_icv_len / 8);
	if (err)
		goto free;
	return aead;

free:
	crypto_free_aead(aead);
	return ERR_PTR(err);
}

/**
 * minesp_iv - the IV of a packet
 * @sa: the sending SA
 * @sn: the packet's SN
 *
 * Unique under the SA, since its SNs are. Nothing random is drawn for it.
 */
__be64 minesp_iv(const struct minesp_sa *sa, u64 sn)
{
	return cpu_to_be64(sn ^ sa->salt);
}
