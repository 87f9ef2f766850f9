// SPDX-License-Identifier: GPL-2.0
/*
 * Files in /proc/net, per network namespace: minesp_stat (counters) and minesp (SAs, see
 * list.c). Packets dropped here also count in /proc/net/xfrm_stat, under a more general
 * name.
 */
#include <linux/proc_fs.h>
#include <linux/seq_file.h>

#include "minesp.h"

static const struct snmp_mib minesp_mib_list[] = {
	/* Decrypted and passed on to xfrm; without dummy packets */
	SNMP_MIB_ITEM("InPackets", MINESP_IN_PACKETS),
	/* Packets whose SA was in the slot of their SPI */
	SNMP_MIB_ITEM("InDirect", MINESP_IN_DIRECT),
	/* Packets left to the kernel's lookup, including those of stock SAs */
	SNMP_MIB_ITEM("InLookup", MINESP_IN_LOOKUP),
	/* Dummy packets with a valid ICV, discarded (RFC 4303, section 2.6); no error */
	SNMP_MIB_ITEM("InDummies", MINESP_IN_DUMMIES),
	/* Dropped: too short for ESP header, IV, trailer and ICV */
	SNMP_MIB_ITEM("InTruncated", MINESP_IN_TRUNCATED),
	/* Dropped: invalid ICV (RFC 4303, section 3.4.4) */
	SNMP_MIB_ITEM("InIcvWrong", MINESP_IN_ICV),
	/* Dropped: valid ICV, but Pad Length exceeds the packet */
	SNMP_MIB_ITEM("InPadLength", MINESP_IN_PAD_LENGTH),
	/*
	 * Dropped: valid ICV, but Next Header is 0 (RFC 8200, section 4.1); without
	 * CONFIG_NETFILTER also 22 (XNS IDP)
	 */
	SNMP_MIB_ITEM("InNextHeader", MINESP_IN_NEXT_HEADER),
	/* Dropped: valid ICV, but the SN is older than rx_max_age_ms */
	SNMP_MIB_ITEM("InTooOld", MINESP_IN_TOO_OLD),
	/* Dropped: valid ICV, but the SN is newer than rx_max_ahead_ms */
	SNMP_MIB_ITEM("InTooNew", MINESP_IN_TOO_NEW),
	/* Dropped: out of memory */
	SNMP_MIB_ITEM("InNoMemory", MINESP_IN_NO_MEMORY),
	/* Dropped: error of the crypto API, such as a full queue */
	SNMP_MIB_ITEM("InCryptoError", MINESP_IN_CRYPTO),
	/* Encrypted, and returned to xfrm for sending */
	SNMP_MIB_ITEM("OutPackets", MINESP_OUT_PACKETS),
	/* Refused with EMSGSIZE: with ESP it would be too long for IP */
	SNMP_MIB_ITEM("OutTooBig", MINESP_OUT_TOO_BIG),
	/* Refused with EBUSY: SN more than sn_ahead ticks ahead of the clock */
	SNMP_MIB_ITEM("OutAhead", MINESP_OUT_AHEAD),
	/* Refused with ENETDOWN: SNs from the clock, and net.minesp.sn_active is 0 */
	SNMP_MIB_ITEM("OutStandby", MINESP_OUT_STANDBY),
	/* SNs from the clock, or offload: no SN left, or the SA is not valid any more */
	SNMP_MIB_ITEM("OutExpired", MINESP_OUT_EXPIRED),
	/* Dropped: out of memory */
	SNMP_MIB_ITEM("OutNoMemory", MINESP_OUT_NO_MEMORY),
	/* Dropped: error of the crypto API, such as a full queue */
	SNMP_MIB_ITEM("OutCryptoError", MINESP_OUT_CRYPTO),
	/* How often an SN was made after the clock had been set back */
	SNMP_MIB_ITEM("ClockSetBack", MINESP_CLOCK_SET_BACK),
	/*
	 * SAs that became stock with net.minesp.enabled=2, because of: an SPI below 256; a
	 * mode other than transport and tunnel; TCP encapsulation; TFC padding;
	 * oseq-may-wrap; an unsupported cipher or authenticator; the length of the key or
	 * the ICV
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
 * minesp_stats_init - create minesp's files in /proc/net of a new namespace
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
 * minesp_stats_exit - undo minesp_stats_init(); waits for readers
 * @net: the namespace
 */
void minesp_stats_exit(struct net *net)
{
	remove_proc_entry("minesp", net->proc_net);
	remove_proc_entry("minesp_stat", net->proc_net);
}
