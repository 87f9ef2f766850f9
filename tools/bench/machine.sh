# SPDX-License-Identifier: GPL-2.0
#
# The machine that measures, for tools/bench.sh and tools/profile.sh.

# Packets per measurement
COUNT=5000

key=0x$(printf '%02x' {0..63})

# Prints the column of a release, such as 6.12
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

build_traffic()
{
	in_root "$(root_of "$1")" \
		"gcc -O2 -Wall -Wextra -o build/$1/traffic tools/bench/traffic.c" || exit
}

# Runs a machine that measures. $1: release; $2: column, a name that ends with what differs
# from the default; $3: default, offload or many; $4 ...: options of QEMU. ONLY: one case,
# see guest.sh.
machine()
{
	local dir=build/bench/$2 family=4 suite="aead rfc4106(gcm(aes)) ${key:0:42} 128" flags=

	case $2 in
	*ipv6) family=6 ;;
	*chacha) suite="aead rfc7539esp(chacha20,poly1305) ${key:0:74} 128" ;;
	*cbc) suite="enc cbc(aes) ${key:0:34} auth-trunc hmac(sha256) ${key:0:66} 128" ;;
	*esn) flags="flag esn" ;;
	esac
	mkdir -p "$dir"
	{
		echo "SETTING=$3 FAMILY=$family SUITE='$suite' FLAGS='$flags' \
			COUNT=$COUNT ONLY='${ONLY:-}'"
		cat tools/bench/guest.sh
	} > "$dir/$3.sh"
	DEVICE_FILES=build/$1/traffic DEVICE_APPEND="tsc=reliable clocksource=tsc nokaslr" \
		tools/device.sh "$1" "$dir/$3.sh" -m 1G -icount shift=0,sleep=off \
		"${@:4}" < /dev/null > "$dir/$3"
	grep -q ^DONE "$dir/$3" || die "the machine died; see $dir/$3"
}

