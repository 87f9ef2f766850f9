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
	u16 icv_bits;
} suites[] = {
	{ "rfc4106(gcm(aes))", 128 },	/* AES-GCM-16: RFC 4106, MUST in RFC 8221 */
};

static const struct minesp_suite *minesp_suite_find(const struct xfrm_state *x,
						    struct netlink_ext_ack *extack)
{
	int i;

	if (x->ealg && !x->aalg) {
		NL_SET_ERR_MSG_MOD(extack,
				   "encryption without authentication is refused; use aead 'rfc4106(gcm(aes))'");
		return NULL;
	}
	for (i = 0; x->aead && i < ARRAY_SIZE(suites); i++) {
		if (strcmp(x->aead->alg_name, suites[i].aead))
			continue;
		if (x->aead->alg_icv_len == suites[i].icv_bits)
			return &suites[i];
		NL_SET_ERR_MSG_MOD(extack,
				   "this suite takes an ICV of 128 bits; extra-flag 0x02000000 chooses the kernel's own ESP");
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
		NL_SET_ERR_MSG_MOD(extack,
				   "the suite refuses this key; AES-GCM takes 16, 24 or 32 bytes and 4 bytes of salt");
		goto free;
	}
	err = crypto_aead_setauthsize(aead, suite->icv_bits / 8);
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
