// SPDX-License-Identifier: GPL-2.0
/*
 * Tests of output.c: the length of padding, and counting packets in asynchronous crypto.
 */
#include <crypto/internal/aead.h>
#include <kunit/test.h>

#include "minesp.h"

static void minesp_test_resume(struct sock *sk, struct sk_buff *skb, int err);
#define xfrm_output_resume minesp_test_resume

#include "../suite.c"
#include "../crypt.c"
#include "../udp.c"
#include "../output.c"

static void minesp_test_padlen(struct kunit *test)
{
	/* Stream ciphers, DES, AES-CBC */
	static const unsigned int blocksizes[] = { 1, 8, 16 };
	unsigned int i, len, pad, least, block;

	for (i = 0; i < 2 * ARRAY_SIZE(blocksizes); i++) {
		block = max(blocksizes[i / 2], 4U);
		least = i % 2 ? 24 : 0;
		for (len = 0; len < 70000; len++) {
			pad = minesp_padlen(len, blocksizes[i / 2], least);
			KUNIT_ASSERT_GE(test, len + pad + 2, least);
			KUNIT_ASSERT_LT(test, len + pad + 2, max(len + 2, least) + block);
			KUNIT_ASSERT_EQ(test, (len + pad + 2) % block, 0);
		}
	}
}

/* A dummy cipher that completes at once, or later. */
static struct aead_request *later;
static struct sk_buff *resumed;
static unsigned int under_way;

static int minesp_test_encrypt(struct aead_request *req)
{
	if (!(crypto_aead_alg(crypto_aead_reqtfm(req))->base.cra_flags & CRYPTO_ALG_ASYNC))
		return 0;
	later = req;
	return -EINPROGRESS;
}

/* mn->async is in atomic mode, so its count can be read. */
static long minesp_test_async_count(struct minesp_net *mn)
{
	return atomic_long_read(&mn->async.data->count);
}

static void minesp_test_async_ended(struct percpu_ref *ref)
{
}

static void minesp_test_resume(struct sock *sk, struct sk_buff *skb, int err)
{
	resumed = skb;
	under_way = minesp_test_async_count(minesp_sa(skb_dst(skb)->xfrm)->mn);
}

struct minesp_output_test {
	struct minesp_net mn;
	struct minesp_sa sa;
	struct xfrm_state x;
	struct dst_entry dst;
	struct aead_alg alg;
	struct crypto_aead aead;
};

static int minesp_test_output(struct kunit *test)
{
	struct minesp_output_test *t = test->priv;
	struct sk_buff *skb = alloc_skb(512, GFP_KERNEL);
	int err;

	KUNIT_ASSERT_NOT_NULL(test, skb);
	skb_reserve(skb, 256);
	memset(skb_put(skb, 64), 0, 64);
	skb_set_transport_header(skb, -16);
	skb_set_network_header(skb, -36);
	skb_set_mac_header(skb, -27);
	skb_dst_set(skb, &t->dst);
	resumed = NULL;
	err = minesp_output(&t->x, skb);
	if (err == -EINPROGRESS) {
		KUNIT_EXPECT_EQ(test, minesp_test_async_count(&t->mn), 2);
		aead_request_complete(later, 0);
		KUNIT_EXPECT_PTR_EQ(test, resumed, skb);
		KUNIT_EXPECT_EQ(test, under_way, 2);
	}
	skb->_skb_refdst = 0;
	kfree_skb(skb);
	return err;
}

/* A packet in asynchronous crypto counts until its last step is done. */
static void minesp_test_async(struct kunit *test)
{
	struct minesp_output_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, t);
	test->priv = t;
	KUNIT_ASSERT_EQ(test, 0,
			percpu_ref_init(&t->mn.async, minesp_test_async_ended,
					PERCPU_REF_INIT_ATOMIC, GFP_KERNEL));
	t->mn.stats = alloc_percpu(struct minesp_mib);
	KUNIT_ASSERT_TRUE(test, t->mn.stats);
	t->sa.mn = &t->mn;
	t->x.geniv = &t->sa.geniv;
	t->x.data = &t->aead;
	t->x.props.family = AF_INET;
	t->dst.xfrm = &t->x;
	t->alg.encrypt = minesp_test_encrypt;
	t->alg.base.cra_blocksize = 1;
	t->aead.base.__crt_alg = &t->alg.base;
	t->aead.authsize = 16;

	KUNIT_EXPECT_EQ(test, minesp_test_output(test), 0);
	KUNIT_EXPECT_EQ(test, minesp_test_async_count(&t->mn), 1);
	t->alg.base.cra_flags = CRYPTO_ALG_ASYNC;
	KUNIT_EXPECT_EQ(test, minesp_test_output(test), -EINPROGRESS);
	KUNIT_EXPECT_EQ(test, minesp_test_async_count(&t->mn), 1);

	/* After the namespace has gone: asynchronous crypto fails, synchronous works. */
	percpu_ref_kill(&t->mn.async);
	KUNIT_EXPECT_EQ(test, minesp_test_output(test), -ENETDOWN);
	KUNIT_EXPECT_EQ(test, minesp_test_async_count(&t->mn), 0);
	t->alg.base.cra_flags = 0;
	KUNIT_EXPECT_EQ(test, minesp_test_output(test), 0);
	minesp_crypt_exit();
	percpu_ref_exit(&t->mn.async);
	free_percpu(t->mn.stats);
}

static struct kunit_case minesp_output_cases[] = {
	KUNIT_CASE(minesp_test_padlen),
	KUNIT_CASE(minesp_test_async),
	{}
};

static struct kunit_suite minesp_output_suite = {
	.name = "minesp_output",
	.test_cases = minesp_output_cases,
};

kunit_test_suite(minesp_output_suite);
