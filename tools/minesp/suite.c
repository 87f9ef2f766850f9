// SPDX-License-Identifier: GPL-2.0
/*
 * Cipher suites, with strongSwan's names. The key of an AEAD ends with its salt.
 */
#include "minesp.h"

static const struct suite suites[] = {
	{ "aes128gcm16", "rfc4106(gcm(aes))", NULL, 20, 0, 128, true },
	{ "aes192gcm16", "rfc4106(gcm(aes))", NULL, 28, 0, 128, true },
	{ "aes256gcm16", "rfc4106(gcm(aes))", NULL, 36, 0, 128, true },
	{ "chacha20poly1305", "rfc7539esp(chacha20,poly1305)", NULL, 36, 0, 128, true },
	{ "aes128ccm8", "rfc4309(ccm(aes))", NULL, 19, 0, 64, true },
	{ "aes256ccm8", "rfc4309(ccm(aes))", NULL, 35, 0, 64, true },
	{ "aes128ccm16", "rfc4309(ccm(aes))", NULL, 19, 0, 128, false },
	{ "aes256ccm16", "rfc4309(ccm(aes))", NULL, 35, 0, 128, false },
	{ "aes128gmac", "rfc4543(gcm(aes))", NULL, 20, 0, 128, false },
	{ "aes256gmac", "rfc4543(gcm(aes))", NULL, 36, 0, 128, false },
	{ "aes128-sha256", "cbc(aes)", "hmac(sha256)", 16, 32, 128, false },
	{ "aes256-sha256", "cbc(aes)", "hmac(sha256)", 32, 32, 128, false },
	{ "aes256-sha512", "cbc(aes)", "hmac(sha512)", 32, 64, 256, false },
	{ "aes128-aesxcbc", "cbc(aes)", "xcbc(aes)", 16, 16, 96, false },
	{ "aes128-aescmac", "cbc(aes)", "cmac(aes)", 16, 16, 96, false },
	{ "aes128ctr-sha256", "rfc3686(ctr(aes))", "hmac(sha256)", 20, 32, 128, false },
	{ "aes256ctr-sha256", "rfc3686(ctr(aes))", "hmac(sha256)", 36, 32, 128, false },
	{ "null-sha256", "ecb(cipher_null)", "hmac(sha256)", 0, 32, 128, false },
};

const struct suite *suite_find(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(suites); i++)
		if (!strcmp(name, suites[i].name))
			return &suites[i];
	fputs("minesp: the suites are", stderr);
	for (i = 0; i < ARRAY_SIZE(suites); i++)
		fprintf(stderr, " %s", suites[i].name);
	fputc('\n', stderr);
	die("%s: no such suite", safe(name));
}

/* minesp key SUITE: prints a new key, as the configuration file needs it. */
int cmd_key(int argc, char **argv)
{
	unsigned char key[KEY_MAX];
	const struct suite *suite;

	suite = suite_find(only_word(argc, argv, NULL, true));
	random_bytes(key, suite->enc_len + suite->auth_len);
	print_hex(stdout, key, suite->enc_len + suite->auth_len);
	putchar('\n');
	return 0;
}
