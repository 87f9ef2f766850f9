// SPDX-License-Identifier: GPL-2.0
/*
 * Counters: /proc/net/minesp_stat, per network namespace, 0 at first. They
 * count what minesp itself does; the rest is in /proc/net/xfrm_stat, where each
 * packet that is dropped here is counted as well, under a more general name.
 * And /proc/net/minesp, the list of SAs, which list.c makes.
 */
#include <linux/proc_fs.h>
#include <linux/seq_file.h>

#include "minesp.h"

static const struct snmp_mib minesp_mib_list[] = {
	/* The ICV was right; xfrm goes on with them. Without dummies. */
	SNMP_MIB_ITEM("InPackets", MINESP_IN_PACKETS),
	/* Packets whose SA was in the slot of their SPI. */
	SNMP_MIB_ITEM("InDirect", MINESP_IN_DIRECT),
	/* Packets, of stock SAs too, that were left to the kernel's look-up. */
	SNMP_MIB_ITEM("InLookup", MINESP_IN_LOOKUP),
	/* Discarded dummy packets, their ICV right (RFC 4303 2.6). No error. */
	SNMP_MIB_ITEM("InDummies", MINESP_IN_DUMMIES),
	/* Dropped: too short for ESP header, IV, trailer and ICV. */
	SNMP_MIB_ITEM("InTruncated", MINESP_IN_TRUNCATED),
	/* Dropped: the ICV was wrong (RFC 4303 3.4.4). */
	SNMP_MIB_ITEM("InIcvWrong", MINESP_IN_ICV),
	/* Dropped: the ICV was right, but Pad Length exceeds the packet. */
	SNMP_MIB_ITEM("InPadLength", MINESP_IN_PAD_LENGTH),
	/*
	 * Dropped: the ICV was right, but Next Header is 0 (RFC 8200 4.1); or 22
	 * (XNS IDP), without CONFIG_NETFILTER.
	 */
	SNMP_MIB_ITEM("InNextHeader", MINESP_IN_NEXT_HEADER),
	/* Dropped: the SN is from before rx_max_age_ms; the ICV was right. */
	SNMP_MIB_ITEM("InTooOld", MINESP_IN_TOO_OLD),
	/* Dropped: the SN is from after rx_max_ahead_ms; the ICV was right. */
	SNMP_MIB_ITEM("InTooNew", MINESP_IN_TOO_NEW),
	/* Dropped: no memory. */
	SNMP_MIB_ITEM("InNoMemory", MINESP_IN_NO_MEMORY),
	/* Dropped: the crypto API failed, a full queue included. */
	SNMP_MIB_ITEM("InCryptoError", MINESP_IN_CRYPTO),
	/* Encrypted, and handed back for sending. */
	SNMP_MIB_ITEM("OutPackets", MINESP_OUT_PACKETS),
	/* Refused, EMSGSIZE: with ESP it would exceed what IP can carry. */
	SNMP_MIB_ITEM("OutTooBig", MINESP_OUT_TOO_BIG),
	/* Refused, EBUSY: the SN would be over sn_ahead ticks ahead of the clock. */
	SNMP_MIB_ITEM("OutAhead", MINESP_OUT_AHEAD),
	/* Refused, ENETDOWN, SNs from the clock: net.minesp.sn_active is 0. */
	SNMP_MIB_ITEM("OutStandby", MINESP_OUT_STANDBY),
	/* Refused, SNs from the clock: none are left, or the SA died meanwhile. */
	SNMP_MIB_ITEM("OutExpired", MINESP_OUT_EXPIRED),
	/* Dropped: no memory. */
	SNMP_MIB_ITEM("OutNoMemory", MINESP_OUT_NO_MEMORY),
	/* Dropped: the crypto API failed, a full queue included. */
	SNMP_MIB_ITEM("OutCryptoError", MINESP_OUT_CRYPTO),
	/* How often the clock had been set back since an SN was made before. */
	SNMP_MIB_ITEM("ClockSetBack", MINESP_CLOCK_SET_BACK),
	/*
	 * SAs that became stock, with net.minesp.enabled=2, because of an SPI below 256,
	 * another mode than transport and tunnel, TCP encapsulation, TFC padding,
	 * oseq-may-wrap, a cipher or authenticator that minimal ESP does not have, or the
	 * length of the key or the ICV.
	 */
	SNMP_MIB_ITEM("StockSpi", MINESP_STOCK_SPI),
	SNMP_MIB_ITEM("StockMode", MINESP_STOCK_MODE),
	SNMP_MIB_ITEM("StockEncap", MINESP_STOCK_ENCAP),
	SNMP_MIB_ITEM("StockTfcPad", MINESP_STOCK_TFC),
	SNMP_MIB_ITEM("StockSnWrap", MINESP_STOCK_WRAP),
	SNMP_MIB_ITEM("StockSuite", MINESP_STOCK_SUITE),
	SNMP_MIB_ITEM("StockKey", MINESP_STOCK_KEY),
};

static int minesp_stats_show(struct seq_file *seq, void *v)
{
	struct minesp_net *mn = minesp_net(seq->private);
	const struct snmp_mib *item;
	unsigned long sum;
	int i, cpu;

	for (i = 0; i < ARRAY_SIZE(minesp_mib_list); i++) {
		item = &minesp_mib_list[i];
		sum = 0;
		for_each_possible_cpu(cpu)
			sum += per_cpu_ptr(mn->stats, cpu)->mibs[item->entry];
		seq_printf(seq, "%-24s\t%lu\n", item->name, sum);
	}
	return 0;
}

/**
 * minesp_stats_init - make minesp's files under /proc/net in a new namespace
 * @net: the namespace
 *
 * Return: 0 or -ENOMEM.
 */
int minesp_stats_init(struct net *net)
{
	if (!proc_create_net_single("minesp_stat", 0444, net->proc_net,
				    minesp_stats_show, NULL))
		return -ENOMEM;
	if (!proc_create_net("minesp", 0444, net->proc_net,
			     &minesp_list_seq_ops,
			     sizeof(struct seq_net_private))) {
		remove_proc_entry("minesp_stat", net->proc_net);
		return -ENOMEM;
	}
	return 0;
}

/**
 * minesp_stats_exit - undo minesp_stats_init(), once the last reader is out
 * @net: the namespace
 */
void minesp_stats_exit(struct net *net)
{
	remove_proc_entry("minesp", net->proc_net);
	remove_proc_entry("minesp_stat", net->proc_net);
}
