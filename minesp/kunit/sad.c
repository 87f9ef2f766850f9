// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of sad.c: the slot of an SPI.
 */
#include <kunit/test.h>

#include "../sad.c"

static void minesp_test_slot(struct kunit *test)
{
	static const u32 edges[] = {
		0, 256, 257, 511, 512, 0x7fffffff, 0x80000000, U32_MAX - 1, U32_MAX
	};
	struct minesp_sad *sad;
	u32 slots, spi;
	int i;

	for (slots = 2; slots <= 1048576; slots *= 2) {
		sad = minesp_sad_alloc(slots);
		KUNIT_ASSERT_NOT_NULL(test, sad);
		for (i = 0; i < 1000; i++) {
			spi = i < ARRAY_SIZE(edges) ? edges[i] : get_random_u32();
			KUNIT_ASSERT_GE(test, minesp_slot(sad, htonl(spi)) - sad->slots, 0);
			KUNIT_ASSERT_LT(test, minesp_slot(sad, htonl(spi)) - sad->slots, slots);
			/* An SA and its successor have different slots. */
			KUNIT_ASSERT_PTR_NE(test, minesp_slot(sad, htonl(spi)),
					    minesp_slot(sad, htonl(spi + 1)));
		}
		/*
		 * SAs that count up in the upper three bytes, each with a successor, have
		 * a slot each.
		 */
		for (spi = 0; spi < slots / 2; spi++) {
			for (i = 0; i < 2; i++) {
				struct minesp_sa __rcu **slot;

				slot = minesp_slot(sad, htonl(0xabc00000 + (spi << 8) + i));
				KUNIT_ASSERT_NULL(test, rcu_access_pointer(*slot));
				RCU_INIT_POINTER(*slot, (void *)slot);
			}
		}
		kvfree(sad);
	}
}

static struct kunit_case minesp_sad_cases[] = {
	KUNIT_CASE(minesp_test_slot),
	{}
};

static struct kunit_suite minesp_sad_suite = {
	.name = "minesp_sad",
	.test_cases = minesp_sad_cases,
};

kunit_test_suite(minesp_sad_suite);
