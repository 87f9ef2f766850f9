#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# noipv6.sh RELEASE: boots a small machine with IPv6 disabled (ipv6.disable=1). Tests
# that minesp loads and unloads without complaints, and that IPv4 SAs work. Prints KTAP.

. "$(dirname "$0")/common.sh"

release=${1:?usage: noipv6.sh RELEASE}

# The test, which runs in the machine
in_device()
{
	n=0
	check()
	{
		if "${@:2}"; then echo "ok $((++n)) $1"; else echo "not ok $((++n)) $1"; fi
	}

	no_ipv6() { [ ! -e /proc/net/if_inet6 ]; }
	quiet() { ! dmesg | grep -E 'esp6|WARNING:|BUG:'; }
	# On lo, one SA serves both directions. Without it, the policies drop packets.
	carries()
	{
		ip xfrm state flush
		ip xfrm state add src 127.0.0.1 dst 127.0.0.1 proto esp spi 0x1001 \
			mode transport aead 'rfc4106(gcm(aes))' "0x$(printf '11%.0s' {1..20})" 128 &&
			ping -c 1 -W 5 127.0.0.1 > /dev/null
	}
	unloads()
	{
		ip xfrm state flush
		for _ in {1..100}; do
			rmmod minesp 2> /dev/null && return
			sleep 0.1	# until the SA is gone
		done
		return 1
	}
	counted() { [ "$(awk '/^(In|Out)Packets/ { n += $2 } END { print n }' /proc/net/minesp_stat)" = 4 ]; }

	echo "1..8"
	check "the kernel has no IPv6" no_ipv6
	check "minesp loads" modprobe minesp
	check "the log has no complaint" quiet
	ip link set lo up
	echo 0 > /proc/sys/net/ipv4/conf/lo/disable_xfrm
	echo 0 > /proc/sys/net/ipv4/conf/lo/disable_policy
	for dir in out in; do
		ip xfrm policy add src 127.0.0.1 dst 127.0.0.1 dir $dir \
			tmpl proto esp mode transport
	done
	check "an SA carries packets" carries
	check "minesp has counted them" counted
	check "minesp unloads" unloads
	check "a stock SA carries packets" carries
	check "the log has no complaint afterwards" quiet
}

script=build/$release/noipv6.sh
{ declare -f in_device; echo in_device; } > "$script"
DEVICE_APPEND=ipv6.disable=1 timeout 120 tools/device.sh "$release" "$script" < /dev/null | tr -d '\r' |
	awk '{ print } /^1\.\./ { planned = substr($0, 4) } /^ok / { passed++ }
	     END { exit !planned || passed != planned }'
