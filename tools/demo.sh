#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# make demo: sets up what is missing, builds, boots a virtual machine with the newest
# supported kernel, and runs the second half of this file there. First, two hosts
# exchange traffic: one has minesp, the other has the stock esp4. Then a sensor, which
# is another virtual machine, loses power and starts again with the same keys. The demo
# prints every command before it runs it.

. "$(dirname "$0")/roots.sh"

# The SAs of the sensor that loses power: SPI, the gateway's address, key
clock_sa="0x2001 192.0.2.2 0x$(printf '11%.0s' {1..20})"
counter_sa="0x2002 192.0.2.3 0x$(printf '22%.0s' {1..20})"
sa()
{
	echo "xfrm state add src 192.0.2.1 dst $2 proto esp spi $1 mode transport" \
		"replay-window 32 aead 'rfc4106(gcm(aes))' $3 128 ${*:4}"
}

# Prints the sensor's script. The sensor adds two SAs, one with SNs from the clock since
# epoch $1, the other with a counter, and sends ten packets a second on each.
sensor()
{
	cat <<-END
		modprobe -a virtio_pci virtio_net minesp
		cd /proc/sys/net/minesp
		echo $1 > sn_epoch
		echo 100000 > sn_tick_us
		echo 20 > sn_ahead
		ip -batch - <<-IP
			link set eth0 up
			addr add 192.0.2.1/24 dev eth0
			neigh replace 192.0.2.2 lladdr 02:00:00:00:00:02 dev eth0
			neigh replace 192.0.2.3 lladdr 02:00:00:00:00:02 dev eth0
			xfrm policy add dst 192.0.2.2 dir out tmpl proto esp mode transport
			xfrm policy add dst 192.0.2.3 dir out tmpl proto esp mode transport
			$(sa $clock_sa extra-flag 0x04000000)
			$(sa $counter_sa extra-flag 0x08000000)
		IP
		exec 9<> <(:)
		while :; do
			echo x > /dev/udp/192.0.2.2/9
			echo x > /dev/udp/192.0.2.3/9
			read -t 0.1 -u 9
		done 2> /dev/null
	END
}

# Prints QEMU's option for one end of the wire between the two machines.
wire()
{
	echo "dgram,id=n0,local.type=unix,local.path=$dir/$1,remote.type=unix,remote.path=$dir/$2"
}

# Runs on this host. Twice, starts the sensor and later kills it without a warning, each
# time when the gateway asks for it.
power()
{
	local life pid

	for life in 1 2; do
		until [ -e "$dir/on$life" ]; do
			sleep 0.2
		done
		rm -f "$dir/sensor"
		[ $life = 2 ] || sensor "$(date +%s)" > "$dir/sensor.sh"
		setsid tools/device.sh "$release" "$dir/sensor.sh" \
			-device virtio-net-pci,netdev=n0 -netdev "$(wire sensor gateway)" \
			> "$dir/sensor.log" &
		pid=$!
		trap 'kill -KILL -- -$pid; exit' TERM
		until [ -e "$dir/off$life" ]; do
			sleep 0.2
		done
		kill -KILL -- -$pid
		wait $pid
	done 2> /dev/null
}

if [ "${1:-}" != steps ]; then
	newest=${KERNELS##* }
	lock_checkout
	tools/setup.sh "$newest" || exit
	release=$(cat "build/roots/$newest.release")
	step "building minesp for $release"
	build "$release" 2>&1 | grep -v -e 'Skipping BTF' -e '^$'
	[ "${PIPESTATUS[0]}" = 0 ] || die "the build failed: see above"
	dir=build/$release/demo
	rm -rf "$dir"
	mkdir -p "$dir"
	power &
	end_together
	step "booting $release in a virtual machine; this takes half a minute"
	VM_QEMU="-device virtio-net-pci,netdev=n0,mac=02:00:00:00:00:02 -netdev $(wire gateway sensor)" \
		timeout --foreground 600 tools/vm.sh "$release" tools/demo.sh steps "$dir" &
	wait $! || die "the demo failed: see above, and build/console-$release"
	exit
fi
dir=$2

say()
{
	echo
	fold -s -w 76 <<< "$*" | sed 's/^/# /'
}

# Prints a command and runs it.
run()
{
	echo "$ $*"
	eval "$*" || die "failed: $*"
}

# Waits until file $2 contains $1.
until_grep()
{
	local end=$((SECONDS + 60))

	until grep -qs "$1" "$2"; do
		[ $SECONDS -lt $end ] || die "not in time: $1 in $2"
		sleep 0.1
	done
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
until_grep listening /tmp/tcpdump
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

say "An SA that must be minimal, and asks for something that minimal ESP does not have," \
	"is refused. The message says why."
echo '$ ip -n sensor xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1003 mode beet' \
	'extra-flag 0x01000000 aead ...'
ip -n sensor xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1003 \
	mode beet extra-flag 0x01000000 aead 'rfc4106(gcm(aes))' "$(key)" 128 &&
	die "it was not refused"

say "Now what no other ESP does. A second sensor is a machine of its own. Its keys" \
	"outlive its boots, and it writes nothing to flash. On one SA it takes its SNs from" \
	"the clock (extra-flag 0x04000000), on another from a counter, as every ESP does." \
	"This machine is its gateway, with the standard esp4 and a window of 32."
device=$(basename /sys/class/net/e*)
run ip link set "$device" up
run ip address add 192.0.2.2/24 dev "$device"
run ip address add 192.0.2.3/24 dev "$device"
run sysctl -qw net.minesp.enabled=0
run ip "$(sa $clock_sa)"
run ip "$(sa $counter_sa)"
run "tcpdump -tt -l -n -i $device esp > /tmp/esp 2> /tmp/tcpdump &"
until_grep listening /tmp/tcpdump
for life in 1 2; do
	if [ $life = 1 ]; then
		say "The sensor starts, and sends ten packets a second on each SA."
	else
		say "It starts again, with the same keys, and knows nothing of what it has sent."
	fi
	before=$(wc -l < /tmp/esp)
	touch "$dir/on$life"
	end=$((SECONDS + 120))
	until [ "$(wc -l < /tmp/esp)" -ge $((before + 80)) ]; do
		[ $SECONDS -lt $end ] || die "the sensor sends nothing; see $dir/sensor.log"
		sleep 0.2
	done
	say "Its power fails."
	touch "$dir/off$life"
done
for spi in 0x2001 0x2002; do
	run "ip -s xfrm state list proto esp spi $spi | grep -A 1 -e 'lifetime current' -e stats"
done
say "What the gateway has seen of it. SNs from the clock go on where they must: above all" \
	"that were sent before, with nothing stored. So no nonce repeats. The counter" \
	"begins anew, and the gateway drops what it has to take for replays."
run "tools/sn-plot.py clock=0x00002001 counter=0x00002002 < /tmp/esp"

say "That was it. README says how to do the same on a host of your own."
