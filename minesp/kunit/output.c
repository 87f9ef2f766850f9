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
	unsigned int i, len, pad, block;

	/* Those of ciphers that are a stream, of AES-CBC, of DES */
	for (i = 0; i < 3; i++) {
		unsigned int blocksize = (const unsigned int []){ 1, 16, 8 }[i];

		block = max(blocksize, 4);
		for (len = 0; len < 70000; len++) {
			pad = minesp_padlen(len, blocksize);
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
