#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# make demo: sets up what is missing, builds, boots a virtual machine with the
# newest supported kernel, and shows there what the second half of this file
# does: two hosts, one with minesp, the other with the standard esp4, and
# traffic between them. Every command is printed before it runs.

. "$(dirname "$0")/common.sh"

if [ "${1:-}" != steps ]; then
	tools/setup.sh || die "set-up failed"
	release=$(releases | tail -n 1)
	step "building minesp for $release"
	build "$release" 2>&1 | grep -v -e 'Skipping BTF' -e '^$'
	[ -e "build/$release/minesp/minesp.ko" ] || die "the build failed: see above"
	step "booting $release in a virtual machine; this takes a minute"
	timeout -k 10 600 tools/vm.sh "$release" tools/demo.sh steps < /dev/null ||
		die "the demo failed: see above, and build/console-$release"
	exit
fi

say()
{
	printf '\n# %s\n' "$*"
}

# Prints a command, and runs it.
run()
{
	echo "$ $*"
	eval "$@" || die "failed: $*"
}

say "The module. It stands beside esp4 and esp6, and takes over new ESP SAs."
run insmod "$MINESP_KO"
run "lsmod | grep -e ^minesp -e ^esp"

say "Two hosts, as network namespaces, and a wire between them."
run ip netns add sensor
run ip netns add gateway
run ip -n sensor link add eth0 type veth peer name eth0 netns gateway
run ip -n sensor address add 192.0.2.1/24 dev eth0
run ip -n gateway address add 192.0.2.2/24 dev eth0
run ip -n sensor link set eth0 up
run ip -n gateway link set eth0 up

say "The sensor keeps minimal ESP, the default. The gateway stays with esp4."
run ip netns exec sensor sysctl net.minesp.enabled
run ip netns exec gateway sysctl -w net.minesp.enabled=0

say "The same SAs and policies as without minesp. A key for each direction:" \
	"16 bytes for AES-GCM and 4 bytes of salt."
run 'key() { echo 0x$(od -An -N20 -tx1 /dev/urandom | tr -d " \n"); }'
run 'there=$(key) back=$(key)'
for host in sensor gateway; do
	run "ip -n $host xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1001 reqid 1 mode transport replay-window 32 aead 'rfc4106(gcm(aes))' \$there 128"
	run "ip -n $host xfrm state add src 192.0.2.2 dst 192.0.2.1 proto esp spi 0x1002 reqid 1 mode transport replay-window 32 aead 'rfc4106(gcm(aes))' \$back 128"
done
run ip -n sensor xfrm policy add src 192.0.2.1 dst 192.0.2.2 dir out tmpl proto esp reqid 1 mode transport
run ip -n sensor xfrm policy add src 192.0.2.2 dst 192.0.2.1 dir in tmpl proto esp reqid 1 mode transport
run ip -n gateway xfrm policy add src 192.0.2.2 dst 192.0.2.1 dir out tmpl proto esp reqid 1 mode transport
run ip -n gateway xfrm policy add src 192.0.2.1 dst 192.0.2.2 dir in tmpl proto esp reqid 1 mode transport

say "A ping, and what tcpdump sees of it on the wire: ESP, and nothing else."
run "ip netns exec gateway tcpdump -l -n -i eth0 -c 6 not arp > /tmp/wire 2> /tmp/tcpdump &"
for _ in $(seq 100); do
	grep -q listening /tmp/tcpdump && break
	sleep 0.1
done
run ip netns exec sensor ping -c 3 -i 0.2 192.0.2.2
wait
run cat /tmp/wire

say "Both sides count 3 packets each way. extra_flag 1000000 marks the SAs" \
	"that are minimal."
run "ip -n sensor -s xfrm state | grep -v -e limit -e expire -e aead"
run "ip -n gateway -s xfrm state | grep -v -e limit -e expire -e aead"

say "What minesp itself counts, on the sensor and on the gateway."
run ip netns exec sensor cat /proc/net/minesp_stat
run "ip netns exec gateway grep Packets /proc/net/minesp_stat"

say "What minesp does not do it refuses, and says why."
echo '$ ip -n sensor xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1003 mode beet aead ...'
ip -n sensor xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1003 \
	mode beet aead 'rfc4106(gcm(aes))' "$(key)" 128 && die "it was not refused"

say "That was it. README says how to do the same on a host of your own."
