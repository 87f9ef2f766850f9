/* SPDX-License-Identifier: GPL-2.0 */
/* What traffic.c calls before and after it sends. count.c knows the addresses. */
#define MARK_BEGIN 0x7ff00000
#define MARK_END (MARK_BEGIN + 64)
