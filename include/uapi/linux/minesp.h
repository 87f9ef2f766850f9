/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * minesp - minimal ESP (RFC 9333): interface to user space
 */
#ifndef _UAPI_LINUX_MINESP_H
#define _UAPI_LINUX_MINESP_H

/*
 * Flags of an SA, in the top byte of XFRMA_SA_EXTRA_FLAGS
 * (ip xfrm state add ... extra-flag 0x...). They override the namespace's
 * sysctls net.minesp, and dumps show them. The other three bytes belong to
 * the kernel. Without minesp, the kernel stores these flags and ignores them.
 */
#define MINESP_XFLAG_MASK	0xff000000

/*
 * Minimal ESP, overriding net.minesp.enabled. EINVAL together with
 * MINESP_XFLAG_STOCK.
 */
#define MINESP_XFLAG_MINIMAL	0x01000000

/* Stock ESP (esp4, esp6), overriding net.minesp.enabled. */
#define MINESP_XFLAG_STOCK	0x02000000

/*
 * All flags below are for minimal SAs, and cause EINVAL for a stock SA.
 *
 * SNs from the clock or from a counter (RFC 9333, section 4), overriding
 * net.minesp.sn_mode. EINVAL if both are set. MINESP_XFLAG_CLOCK: EINVAL if
 * net.minesp.sn_epoch is 0 or in the future, or if no SNs are left since then.
 */
#define MINESP_XFLAG_CLOCK	0x04000000
#define MINESP_XFLAG_COUNTER	0x08000000

/*
 * Accept only received SNs that are fresh by the clock, or SNs of any age,
 * overriding net.minesp.rx_fresh. EINVAL if both are set.
 * MINESP_XFLAG_FRESH: EINVAL if net.minesp.sn_epoch is 0.
 */
#define MINESP_XFLAG_FRESH	0x10000000
#define MINESP_XFLAG_ANY_AGE	0x20000000

/*
 * Implicit IV (RFC 8750): the IV is the SN, and is not sent. Both ends need it.
 * Stock ESP does not support it. EOPNOTSUPP unless the suite is AES-GCM,
 * ChaCha20-Poly1305 or AES-CCM with a 64-bit ICV. EINVAL without SNs from the
 * clock or MINESP_XFLAG_NEW_KEY: SNs must not repeat under the key. EINVAL for
 * SNs from the clock if net.minesp.iv_sender is not 0.
 */
#define MINESP_XFLAG_IMPLICIT_IV	0x40000000

/*
 * The user guarantees that the key was never used before, that no other SA
 * will send with it, and that nobody sets the SN back.
 */
#define MINESP_XFLAG_NEW_KEY	0x80000000

#endif
