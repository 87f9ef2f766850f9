#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# profile.sh: prints how many instructions of a packet each function takes, and how many
# the cipher takes. A plugin of QEMU counts them. Measures the module built last.
#
# usage: profile.sh [-l LINES] [-r RELEASE] [-c COLUMN] KIND MODE PATH [offload]
#
# KIND: none, esp4 or minesp. MODE: transport or tunnel. PATH: out-64, out-1400 (sent
# only), both-64, both-1400 (sent and received) or tcp (per KiB). RELEASE: the newest
# kernel by default. COLUMN: ipv6, chacha, cbc or esn.

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
# QEMU 9 has a new version of the plugin interface. This plugin works with both.
version=$(qemu-system-x86_64 --version | sed -n 's/.*version \([0-9]*\).*/\1/p')
in_root trixie "gcc -O2 -Wall -shared -fPIC -DPLUGIN_VERSION=$((version < 9 ? 1 : 2)) \
	-o build/bench/count.so tools/bench/count.c" || exit
machine "$release" "$column" "$setting" \
	-plugin file=build/bench/count.so,out=build/bench/count &
wait $! || exit
[ "$3" = tcp ] && COUNT=4096
tools/bench/functions.py build/bench/count "build/bench/$column/$setting" "$COUNT" "$lines"
