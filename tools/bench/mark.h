/* SPDX-License-Identifier: GPL-2.0 */
/* traffic.c calls these addresses before and after it sends, and count.c watches them. */
#define MARK_BEGIN 0x7ff00000
#define MARK_END (MARK_BEGIN + 64)
