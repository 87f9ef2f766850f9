#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# profile.sh: where the instructions of a packet go, function by function, and how many of
# them are the cipher's; for whoever optimises. Counted by a plugin of QEMU. It measures
# the module that was built last, and builds nothing of it.
#
# usage: profile.sh [-l LINES] [-r RELEASE] [-c COLUMN] KIND MODE PATH [offload]
#
# KIND: none, esp4 or minesp. MODE: transport or tunnel. PATH: out-64, out-1400 (into the
# void), both-64, both-1400 (sent and received) or tcp (per KiB). RELEASE is the newest
# kernel unless it is named. COLUMN: ipv6, chacha, cbc or esn.

. "$(dirname "$0")/roots.sh"
. tools/bench/machine.sh

release=$(cat "build/roots/${KERNELS##* }.release") column=profile lines=40
while getopts l:r:c: option; do
	case $option in
	l) lines=$OPTARG ;;
	r) release=$OPTARG ;;
	c) column=profile-$OPTARG ;;
	*) exit 1 ;;
	esac
done
shift $((OPTIND - 1))
ONLY="${1:?usage: see the first lines of $0} ${2:?MODE} ${3:?PATH}" setting=${4:-default}

lock_checkout
end_together
build_traffic "$release"
# Plugins of QEMU 9 and newer have another version; what this one uses is the same.
version=$(qemu-system-x86_64 --version | sed -n 's/.*version \([0-9]*\).*/\1/p')
in_root trixie "gcc -O2 -Wall -shared -fPIC -DPLUGIN_VERSION=$((version < 9 ? 1 : 2)) \
	-o build/bench/count.so tools/bench/count.c" || exit
machine "$release" "$column" "$setting" \
	-plugin file=build/bench/count.so,out=build/bench/count &
wait $! || exit
[ "$3" = tcp ] && COUNT=4096
tools/bench/functions.py build/bench/count "build/bench/$column/$setting" "$COUNT" "$lines"
