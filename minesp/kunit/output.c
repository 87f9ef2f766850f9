// SPDX-License-Identifier: GPL-2.0
/*
 * output.c: how much padding.
 */
#include <kunit/test.h>

#include "../suite.c"
#include "../crypt.c"
#include "../output.c"

static void minesp_test_padlen(struct kunit *test)
{
	/* Those of ciphers that are a stream, of DES, of AES-CBC */
	static const unsigned int blocksizes[] = { 1, 8, 16 };
	unsigned int i, len, pad, block;

	for (i = 0; i < ARRAY_SIZE(blocksizes); i++) {
		block = max(blocksizes[i], 4U);
		for (len = 0; len < 70000; len++) {
			pad = minesp_padlen(len, blocksizes[i]);
			KUNIT_ASSERT_LT(test, pad, block);
			KUNIT_ASSERT_EQ(test, (len + pad + 2) % block, 0);
		}
	}
}

static struct kunit_case minesp_output_cases[] = {
	KUNIT_CASE(minesp_test_padlen),
	{}
};

static struct kunit_suite minesp_output_suite = {
	.name = "minesp_output",
	.test_cases = minesp_output_cases,
};

kunit_test_suite(minesp_output_suite);
