// SPDX-License-Identifier: GPL-2.0
/*
 * An AEAD that completes later, to test users of asynchronous AEADs. While this module
 * is loaded, the kernel prefers this AEAD for one algorithm name. The AEAD passes the
 * work to the synchronous AEAD that the kernel would otherwise choose.
 *
 * As with hardware that has more than one engine, several requests are processed at the
 * same time, on any CPU. They complete in any order, with bottom halves off.
 */
#include <crypto/internal/aead.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

/* The crypto API's context of a user's request */
struct async_aead_request {
	struct work_struct work;
	struct list_head node;		/* in async_aead_held */
	struct aead_request *req;
	bool encrypt;
	struct aead_request sub;	/* for the synchronous AEAD; its context follows */
};

#define ASYNC_AEAD_ENGINES	4

static struct workqueue_struct *async_aead_wq;
static LIST_HEAD(async_aead_held);
/* Protects the list and the counters. Held from reading @hold until acting on it. */
static DEFINE_SPINLOCK(async_aead_lock);

static char *alg = "rfc4106(gcm(aes))";
module_param(alg, charp, 0444);
MODULE_PARM_DESC(alg, "The AEAD's name in the crypto API (default: rfc4106(gcm(aes)))");

static unsigned int limit = UINT_MAX;
module_param(limit, uint, 0644);
MODULE_PARM_DESC(limit, "How many requests may wait; one more is refused: -ENOSPC (default: no limit)");

static bool early;
module_param(early, bool, 0644);
MODULE_PARM_DESC(early, "Complete before the call returns -EINPROGRESS, as another CPU may (default: N)");

static bool sync;
module_param(sync, bool, 0644);
MODULE_PARM_DESC(sync, "Return the result at once, as a driver may that has a fallback (default: N)");

static unsigned int waiting;
module_param(waiting, uint, 0444);
MODULE_PARM_DESC(waiting, "How many requests wait now");

static unsigned long encrypted, decrypted;
module_param(encrypted, ulong, 0444);
MODULE_PARM_DESC(encrypted, "How many requests to encrypt have completed by a callback");
module_param(decrypted, ulong, 0444);
MODULE_PARM_DESC(decrypted, "How many requests to decrypt have completed by a callback");

static bool hold;

static int hold_set(const char *val, const struct kernel_param *kp)
{
	struct async_aead_request *r, *next;
	int err = param_set_bool(val, kp);

	spin_lock_bh(&async_aead_lock);
	if (!hold) {
		/* A request may be freed as soon as it is queued. */
		list_for_each_entry_safe(r, next, &async_aead_held, node) {
			list_del(&r->node);
			queue_work(async_aead_wq, &r->work);
		}
	}
	spin_unlock_bh(&async_aead_lock);
	return err;
}

static const struct kernel_param_ops hold_ops = {
	.flags = KERNEL_PARAM_OPS_FL_NOARG,
	.set = hold_set,
	.get = param_get_bool,
};

module_param_cb(hold, &hold_ops, &hold, 0644);
MODULE_PARM_DESC(hold, "Keep requests, until it is N again; not when loading, since the kernel tests the AEAD then (default: N)");

/* Does the work. The caller must not use the request afterwards. */
static void async_aead_complete(struct async_aead_request *r)
{
	struct aead_request *req = r->req;
	int err = r->encrypt ? crypto_aead_encrypt(&r->sub) : crypto_aead_decrypt(&r->sub);

	/* Before the callback, so that a test that sees its effect sees the counters. */
	spin_lock_bh(&async_aead_lock);
	waiting--;
	if (r->encrypt)
		encrypted++;
	else
		decrypted++;
	spin_unlock_bh(&async_aead_lock);

	local_bh_disable();
	aead_request_complete(req, err);
	local_bh_enable();
}

static void async_aead_work(struct work_struct *work)
{
	async_aead_complete(container_of(work, struct async_aead_request, work));
}

/* Accepts a request, or returns -ENOSPC. */
static int async_aead_begin(struct async_aead_request *r)
{
	bool now = false;

	INIT_WORK(&r->work, async_aead_work);
	spin_lock_bh(&async_aead_lock);
	if (waiting >= limit) {
		spin_unlock_bh(&async_aead_lock);
		return -ENOSPC;
	}
	waiting++;
	if (hold)
		list_add_tail(&r->node, &async_aead_held);
	else if (early)
		now = true;
	else
		queue_work(async_aead_wq, &r->work);
	spin_unlock_bh(&async_aead_lock);

	if (now)
		async_aead_complete(r);
	return -EINPROGRESS;
}

static int async_aead_crypt(struct aead_request *req, bool encrypt)
{
	struct crypto_aead **sub = crypto_aead_ctx(crypto_aead_reqtfm(req));
	struct async_aead_request *r = aead_request_ctx(req);

	r->req = req;
	r->encrypt = encrypt;
	aead_request_set_tfm(&r->sub, *sub);
	aead_request_set_callback(&r->sub, req->base.flags & CRYPTO_TFM_REQ_MAY_SLEEP, NULL, NULL);
	aead_request_set_crypt(&r->sub, req->src, req->dst, req->cryptlen, req->iv);
	aead_request_set_ad(&r->sub, req->assoclen);

	if (READ_ONCE(sync))
		return encrypt ? crypto_aead_encrypt(&r->sub) : crypto_aead_decrypt(&r->sub);
	return async_aead_begin(r);
}

static int async_aead_encrypt(struct aead_request *req)
{
	return async_aead_crypt(req, true);
}

static int async_aead_decrypt(struct aead_request *req)
{
	return async_aead_crypt(req, false);
}

static int async_aead_setkey(struct crypto_aead *tfm, const u8 *key, unsigned int keylen)
{
	struct crypto_aead **sub = crypto_aead_ctx(tfm);

	return crypto_aead_setkey(*sub, key, keylen);
}

static int async_aead_setauthsize(struct crypto_aead *tfm, unsigned int authsize)
{
	struct crypto_aead **sub = crypto_aead_ctx(tfm);

	return crypto_aead_setauthsize(*sub, authsize);
}

static int async_aead_init_tfm(struct crypto_aead *tfm)
{
	struct crypto_aead **sub = crypto_aead_ctx(tfm);

	/* The mask excludes this AEAD, which is asynchronous. */
	*sub = crypto_alloc_aead(alg, 0, CRYPTO_ALG_ASYNC);
	if (IS_ERR(*sub))
		return PTR_ERR(*sub);
	crypto_aead_set_reqsize(tfm, sizeof(struct async_aead_request) +
				     crypto_aead_reqsize(*sub));
	return 0;
}

static void async_aead_exit_tfm(struct crypto_aead *tfm)
{
	struct crypto_aead **sub = crypto_aead_ctx(tfm);

	crypto_free_aead(*sub);
}

static struct aead_alg async_aead_alg = {
	.setkey = async_aead_setkey,
	.setauthsize = async_aead_setauthsize,
	.encrypt = async_aead_encrypt,
	.decrypt = async_aead_decrypt,
	.init = async_aead_init_tfm,
	.exit = async_aead_exit_tfm,
	.base = {
		.cra_priority = 10000,
		.cra_flags = CRYPTO_ALG_ASYNC,
		/* The synchronous AEAD gets this IV, so align it for any AEAD. */
		.cra_alignmask = 15,
		.cra_ctxsize = sizeof(struct crypto_aead *),
		.cra_module = THIS_MODULE,
	},
};

static int __init async_aead_init(void)
{
	struct crypto_alg *base = &async_aead_alg.base;
	struct crypto_aead *sub;
	int err;

	sub = crypto_alloc_aead(alg, 0, CRYPTO_ALG_ASYNC);
	if (IS_ERR(sub))
		return PTR_ERR(sub);
	async_aead_alg.ivsize = crypto_aead_ivsize(sub);
	async_aead_alg.maxauthsize = crypto_aead_maxauthsize(sub);
	async_aead_alg.chunksize = crypto_aead_chunksize(sub);
	base->cra_blocksize = crypto_aead_blocksize(sub);
	crypto_free_aead(sub);
	if (strscpy(base->cra_name, alg, sizeof(base->cra_name)) < 0 ||
	    snprintf(base->cra_driver_name, sizeof(base->cra_driver_name), "async-%s", alg) >=
	    sizeof(base->cra_driver_name))
		return -ENAMETOOLONG;

	async_aead_wq = alloc_workqueue("async_aead", WQ_UNBOUND, ASYNC_AEAD_ENGINES);
	if (!async_aead_wq)
		return -ENOMEM;
	err = crypto_register_aead(&async_aead_alg);
	if (err)
		destroy_workqueue(async_aead_wq);
	return err;
}

/* The AEAD has no users any more. The last callbacks may still be returning. */
static void __exit async_aead_exit(void)
{
	crypto_unregister_aead(&async_aead_alg);
	destroy_workqueue(async_aead_wq);
}

module_init(async_aead_init);
module_exit(async_aead_exit);
MODULE_DESCRIPTION("An AEAD that completes later, for tests");
MODULE_LICENSE("GPL");
