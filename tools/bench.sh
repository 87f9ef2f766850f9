#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# make bench: sets up what is missing, builds, and measures in a small machine what ESP
# costs: minesp, and esp4 with and without its offload, beside plain IP; memory per SA; and
# the cost with many SAs. QEMU's clock counts instructions there, so the figures repeat.
# Documentation/performance.rst says what they are.
#
# usage: bench.sh [RELEASE] [ipv6|chacha|cbc|esn]
#		draws bars. RELEASE is the newest kernel unless it is named. The other words
#		say what is not as usual, IPv4 and AES-GCM-128.
#        bench.sh all
#		prints the table of performance.rst: all kernels, and all of these words
#        bench.sh check
#		compares the newest kernel with that table, and prints KTAP. It builds nothing:
#		make check has done so.
#
# LANES machines run at a time; unless set, as many as there are processors. Their consoles
# go to build/bench/.

. "$(dirname "$0")/roots.sh"
. tools/bench/machine.sh

: "${LANES:=$(nproc)}"
newest=${KERNELS##* }
columns="ipv6 chacha cbc esn"

# Measures a column. $1: release; $2: column; then settings
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
