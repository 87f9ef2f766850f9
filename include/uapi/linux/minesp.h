/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * minesp - minimal ESP (RFC 9333): what user space needs to know.
 */
#ifndef _UAPI_LINUX_MINESP_H
#define _UAPI_LINUX_MINESP_H

/*
 * Per-SA choices, in the top byte of XFRMA_SA_EXTRA_FLAGS
 * (ip xfrm state add ... extra-flag 0x...). They beat the namespace's
 * settings under net.minesp, and the kernel dumps them back. The other three
 * bytes belong to the kernel. Without minesp loaded the kernel ignores them.
 */
#define MINESP_XFLAG_MASK	0xff000000

/*
 * Run this SA as minimal ESP, whatever net.minesp.enabled says. Refused with
 * EINVAL together with MINESP_XFLAG_STOCK.
 */
#define MINESP_XFLAG_MINIMAL	0x01000000

/*
 * Run this SA with the kernel's own ESP (esp4/esp6), whatever
 * net.minesp.enabled says.
 */
#define MINESP_XFLAG_STOCK	0x02000000

/*
 * The rest is for minimal SAs: refused with EINVAL for a stock one.
 *
 * SNs come from the clock, or from a counter (RFC 9333 section 4), whatever
 * net.minesp.sn_mode says. Refused with EINVAL together, and without a
 * net.minesp.sn_epoch that the clock has passed.
 */
#define MINESP_XFLAG_CLOCK	0x04000000
#define MINESP_XFLAG_COUNTER	0x08000000

/*
 * Received SNs have to be of about now by the clock, or may be of any age,
 * whatever net.minesp.rx_fresh says. Refused with EINVAL together, and without a
 * net.minesp.sn_epoch.
 */
#define MINESP_XFLAG_FRESH	0x10000000
#define MINESP_XFLAG_ANY_AGE	0x20000000

/*
 * The IV is not sent: it is the SN (RFC 8750). Both ends need it; the kernel's own
 * ESP does not have it. With AES-GCM, AES-CCM with an ICV of 64 bits, and
 * ChaCha20-Poly1305, EOPNOTSUPP otherwise; and only where SNs do not repeat under
 * the key: with SNs from the clock, or with MINESP_XFLAG_NEW_KEY, EINVAL otherwise.
 */
#define MINESP_XFLAG_IMPLICIT_IV	0x40000000

/*
 * Whoever adds the SA promises that its key has never been used, will not be in
 * another SA that sends, and that nobody sets the SN back.
 */
#define MINESP_XFLAG_NEW_KEY	0x80000000

#endif
