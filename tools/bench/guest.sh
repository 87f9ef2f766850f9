# SPDX-License-Identifier: GPL-2.0
#
# The part of tools/bench.sh that runs in the machine. machine.sh sets these variables:
#
# SETTING	default, offload or many
# FAMILY	4 or 6
# SUITE, FLAGS	words for ip xfrm state
# ONLY		KIND MODE PATH: measure only this case, and print the kernel's symbols
# COUNT		packets per measurement
#
# Prints lines of "RESULT", the setting, the case, its instructions, and the lost packets.

if [ "$FAMILY" = 4 ]; then
	A=10.9.0.1 B=10.9.0.2 VOID=10.8.0.2 void=10.8.0.1/24 bits=24 mtu=1500 nodad=
else
	# The larger MTU has room for the longer headers and the same payload.
	A=fd09::1 B=fd09::2 VOID=fd08::2 void=fd08::1/64 bits=64 mtu=1540 nodad=nodad
fi

quiet()
{
	"$@" > /dev/null 2>&1
}

# Runs lines of ip(8) on host $1. The machine ends if a line fails.
configure()
{
	ip -n "$1" -batch - || exit
}

# Prints a line for an SA from address $1 to $2 with SPI $3 and words $4 ...
sa()
{
	echo "xfrm state add src $1 dst $2 proto esp spi $3 mode $mode replay-window 32" \
		"$SUITE $FLAGS ${*:4}"
}

policy()
{
	echo "xfrm policy add src $2 dst $3 dir $1 tmpl src $2 dst $3 proto esp mode $mode"
}

# Makes hosts a and b, a wire between them, and the device void of a, which drops all
# packets. $1: kind of ESP: none, esp4 (esp6 for IPv6) or minesp. $2: mode. The neighbours
# are static, so that the wire carries nothing else.
hosts()
{
	local host kind=$1 mode=$2

	quiet ip netns del a
	quiet ip netns del b
	ip netns add a
	ip netns add b
	ip link add wire netns a address 02:00:00:00:00:01 mtu $mtu type veth \
		peer name wire netns b address 02:00:00:00:00:02 mtu $mtu
	configure a <<-END
		addr add $A/$bits dev wire $nodad
		link set wire up
		neigh add $B lladdr 02:00:00:00:00:02 dev wire nud permanent
		link add void mtu $mtu type dummy
		addr add $void dev void $nodad
		link set void up
		neigh add $VOID lladdr 02:00:00:00:00:03 dev void nud permanent
	END
	configure b <<-END
		addr add $B/$bits dev wire $nodad
		link set wire up
		neigh add $A lladdr 02:00:00:00:00:01 dev wire nud permanent
	END
	for host in a b; do
		# With TSO on, veth does not pass packets to GRO.
		[ "$SETTING" != offload ] ||
			ip netns exec $host ethtool -K wire gro on tso off
		ip netns exec $host bash <<-END
			cd /proc/sys/net/minesp
			[ $kind = minesp ]
			echo \$((! \$?)) > enabled
			[ $SETTING != offload ] || [ ! -e offload ] || echo 1 > offload
		END
	done
	[ "$kind" = none ] && return
	configure a <<-END
		$(sa $A $B 0x1001)
		$(sa $B $A 0x1002)
		$(sa ${void%/*} $VOID 0x1003)
		$(policy out $A $B)
		$(policy in $B $A)
		$(policy out ${void%/*} $VOID)
	END
	configure b <<-END
		$(sa $A $B 0x1001)
		$(sa $B $A 0x1002)
		$(policy in $A $B)
		$(policy out $B $A)
	END
}

# Prints the instructions and the lost packets of path $1: out-SIZE or both-SIZE, with a
# payload of SIZE bytes, or tcp. tcp is the cheapest of six streams of 4 MB: if a segment is
# lost or a timer expires, a stream costs up to a fifth more, with ESP and without.
traffic()
{
	local path=${1%-*} size=${1#*-} n

	case $path in
	tcp)	for n in {1..6}; do
			/traffic tcp /run/netns/a /run/netns/b $B 65536 64
		done | sort -n | head -n 1 ;;
	out)	/traffic out /run/netns/a /run/netns/b $VOID $size $COUNT ;;
	both)	/traffic both /run/netns/a /run/netns/b $B $size $COUNT ;;
	esac
}

result()
{
	echo "RESULT $SETTING $*"
}

cases()
{
	local kind mode path

	for mode in transport tunnel; do
		for kind in none esp4 minesp; do
			hosts $kind $mode
			for path in out-64 both-64 out-1400 both-1400 tcp; do
				result $kind $mode $path "$(traffic $path)"
			done
		done
	done
}

only()
{
	hosts "$1" "$2"
	result "$*" "$(traffic "$3")"
	awk '$2 ~ /[tTwW]/ { print "SYMBOL", $1, $3, $4 }' /proc/kallsyms
}

# Prints the bytes that the kernel has allocated for objects and tables. Waits first,
# because kfree_rcu() collects objects for 5 seconds before it frees them.
allocated()
{
	sleep 15
	awk 'FILENAME ~ /slab/ { sum += $2 * $4 } /^VmallocUsed/ { sum += $2 * 1024 }
		END { printf "%d", sum }' /proc/slabinfo /proc/meminfo
}

# Adds inbound SAs $1 to $2 to b. Each has a reqid of its own. With the same reqid, the
# kernel would walk through all SAs for each new one.
add_many()
{
	configure b < <(awk "BEGIN { for (n = $1; n <= $2; n++)
		printf \"$(sa $A $B %d reqid %d)\\n\", n * 256, n }")
}

# Makes room for $1 SAs in minesp's SPI table
slots()
{
	local slots=2

	while [ $slots -lt $((2 * $1)) ]; do
		slots=$((slots * 2))
	done
	ip netns exec b bash -c "echo $slots > /proc/sys/net/minesp/sad_slots"
}

# Measures path both-64 with 20 of $1 SAs, one after the other; prints the mean
some_of()
{
	local n spi=0x1001

	for ((n = 1; n <= $1; n += $1 / 20)); do
		configure a <<-END
			xfrm state delete src $A dst $B proto esp spi $spi
			$(sa $A $B $((n << 8)))
		END
		spi=$((n << 8))
		COUNT=500 traffic both-64
	done | awk '{ sum += $1; lost += $2 } END { print int(sum / NR), lost }'
}

# Measures the cost with one SA, the memory per SA, and then the cost with many SAs. esp4 is
# measured twice, because xfrm's tables grow the first time.
many()
{
	local before few=10000 kind many=100000 mode=tunnel path

	for kind in none esp4 esp4 minesp; do
		hosts $kind $mode
		for path in out-64 both-64; do
			result $kind $mode $path "$(traffic $path)"
		done
		[ $kind != none ] || continue
		before=$(allocated)
		slots $few
		add_many 1 $few
		result $kind $mode memory $((($(allocated) - before) / few)) 0
	done
	slots $many
	add_many $((few + 1)) $many
	sleep 15
	result many $mode out-64 "$(traffic out-64)"
	result many $mode both-64 "$(some_of $many)"
}

mount -t tmpfs run /run
# Modules that udev would load, and that the crypto API does not request
for module in aesni-intel ghash-clmulni-intel sha256-ssse3 chacha-x86_64 poly1305-x86_64; do
	quiet modprobe $module
done
[ "$SETTING" != offload ] || modprobe -a esp4_offload esp6_offload
modprobe -a esp4 esp6 minesp xfrm_user
sleep 5	# lets the kernel settle
if [ "$ONLY" ]; then
	only $ONLY
elif [ $SETTING = many ]; then
	many
else
	cases
fi
dmesg | grep -E 'WARNING|BUG|Oops' | sed 's/^/COMPLAINT /'
echo DONE
