#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# make bench: sets up what is missing, builds, and measures the cost of ESP in a small
# virtual machine: plain IP, minesp, and esp4 with and without its offload; memory per
# SA; and the cost with many SAs. QEMU's clock counts instructions, so the results
# repeat. Documentation/performance.rst explains the results.
#
# usage: bench.sh [RELEASE] [ipv6|chacha|cbc|esn]
#		draws bars. The default is the newest kernel, IPv4 and AES-GCM-128.
#        bench.sh all
#		prints the table of performance.rst: all kernels, and all variants above
#        bench.sh check
#		compares the newest kernel with that table, and prints KTAP. make check
#		must have built the module.
#
# LANES machines run at a time, one for each processor by default. Their output goes to
# build/bench/.

. "$(dirname "$0")/roots.sh"
. tools/bench/machine.sh

: "${LANES:=$(nproc)}"
newest=${KERNELS##* }
columns="ipv6 chacha cbc esn"

# Measures a column of the table. $1: release; $2: column; further words: settings
measure()
{
	local setting

	rm -rf "build/bench/$2"
	mkdir -p "build/bench/$2"
	build_traffic "$1"
	for setting in "${@:3}"; do
		start machine "$1" "$2" "$setting"
	done
}

lock_checkout
end_together
case ${1:-} in
all)
	tools/setup.sh || exit
	for release in $(releases); do
		build_for "$release"
		measure "$release" "$(version "$release")" default offload many
		folders+=("build/bench/$(version "$release")")
	done
	for column in $columns; do
		measure "$release" "$column" default offload
		folders+=("build/bench/$column")
	done
	wait
	tools/bench/report.py rst "${folders[@]}" ;;
check)
	release=$(cat "build/roots/$newest.release") || exit
	measure "$release" "$(version "$release")" default offload
	wait
	tools/bench/report.py check "build/bench/$(version "$release")" ;;
*)
	release='' column=''
	for word in "$@"; do
		case " $columns " in
		*" $word "*) column=$word ;;
		*) release=$word ;;
		esac
	done
	[ "$release" ] || {
		tools/setup.sh "$newest" && release=$(cat "build/roots/$newest.release") || exit
	}
	build_for "$release"
	: "${column:=$(version "$release")}"
	step "measuring on $release; this takes some minutes"
	measure "$release" "$column" default offload many
	wait
	tools/bench/report.py table "build/bench/$column" ;;
esac
