#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# make bench: sets up what is missing, builds, and measures in a small machine what ESP
# costs: minesp, and esp4 with and without its offload, beside plain IP; memory per SA; and
# the cost with many SAs. QEMU's clock counts instructions there, so the figures repeat.
# Documentation/performance.rst says what they are.
#
# usage: bench.sh [RELEASE] [ipv6|chacha|cbc|esn]	bars; with none of these words,
#							IPv4 and AES-GCM-128
#        bench.sh all		the table of performance.rst: all kernels, and these words
#        bench.sh check		KTAP: whether it costs more than performance.rst says, with
#				the newest kernel, for which minesp has been built
#
# RELEASE is the newest kernel unless it is named. LANES machines run at a time; unless set,
# as many as there are processors. Their consoles go to build/bench/.

. "$(dirname "$0")/roots.sh"

: "${LANES:=$(nproc)}"
key=0x$(printf '%02x' {0..63})

# The column of a release, such as 6.12
version()
{
	grep -o '^[0-9]*\.[0-9]*' <<< "$1"
}

build_for()
{
	step "building minesp for $1"
	build "$1" 2>&1 | grep -v -e 'Skipping BTF' -e '^$'
	[ "${PIPESTATUS[0]}" = 0 ] || die "the build failed: see above"
}

# Runs a machine that measures. $1: release; $2: column; $3: default, offload or many
machine()
{
	local dir=build/bench/$2 family=4 suite="aead rfc4106(gcm(aes)) ${key:0:42} 128" flags=

	case $2 in
	ipv6) family=6 ;;
	chacha) suite="aead rfc7539esp(chacha20,poly1305) ${key:0:74} 128" ;;
	cbc) suite="enc cbc(aes) ${key:0:34} auth-trunc hmac(sha256) ${key:0:66} 128" ;;
	esn) flags="flag esn" ;;
	esac
	{
		echo "SETTING=$3 FAMILY=$family SUITE='$suite' FLAGS='$flags' COUNT=5000"
		cat tools/bench/guest.sh
	} > "$dir/$3.sh"
	DEVICE_FILES=build/$1/traffic DEVICE_APPEND="tsc=reliable clocksource=tsc nokaslr" \
		tools/device.sh "$1" "$dir/$3.sh" -m 1G -icount shift=0,sleep=off > "$dir/$3"
	grep -q ^DONE "$dir/$3" || echo "bench.sh: a machine died; see $dir/$3" >&2
}

# Measures a column. $1: release; $2: column; then settings
measure()
{
	local setting

	rm -rf "build/bench/$2"
	mkdir -p "build/bench/$2"
	in_root "$(root_of "$1")" \
		"gcc -O2 -Wall -Wextra -o build/$1/traffic tools/bench/traffic.c" || exit
	for setting in "${@:3}"; do
		start machine "$1" "$2" "$setting"
	done
}

lock_checkout
end_together
newest=${KERNELS##* }
columns="ipv6 chacha cbc esn"
case ${1:-} in
all)
	tools/setup.sh || exit
	for release in $(releases); do
		build_for "$release"
		measure "$release" "$(version "$release")" default offload many
		names+=" build/bench/$(version "$release")"
	done
	for column in $columns; do
		measure "$release" "$column" default offload
		names+=" build/bench/$column"
	done
	wait
	tools/bench/report.py rst $names ;;
check)
	release=$(cat "build/roots/$newest.release") || exit
	measure "$release" "$(version "$release")" default offload
	wait
	tools/bench/report.py check "build/bench/$(version "$release")" ;;
*)
	release= column=
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
