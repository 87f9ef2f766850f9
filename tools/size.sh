#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# size.sh: prints the size of minesp and of esp4 and esp6: lines without comments and
# empty lines, and KiB of code for each supported kernel. Run make check first.

. "$(dirname "$0")/roots.sh"

enter_root trixie $SOURCE binutils gcc xz-utils

lines()
{
	cat "$@" | gcc -fpreprocessed -dD -E -P -x c - 2>/dev/null | grep -vc '^\s*$'
}

# Prints the size of .text in files, compressed or not, and then with constants.
code()
{
	local dir file
	dir=$(mktemp -d)
	for file in "$@"; do
		case $file in
		*.xz) xz -dc "$file" > "$dir/$(basename "$file" .xz)" ;;
		*) cp "$file" "$dir" ;;
		esac
	done
	size -A "$dir"/* | awk '/^\.text/ { sum += $2 } END { printf "%.1f KiB of .text", sum / 1024 }'
	size "$dir"/* | awk '$1 + 0 { sum += $1 } END { printf ", %.1f KiB with constants\n", sum / 1024 }'
	rm -r "$dir"
}

echo "minesp/*.c: $(lines minesp/*.c) lines"
echo "minesp/*.c and include/: $(lines minesp/*.c include/*.h include/uapi/linux/*.h) lines"
tar xOf /usr/src/$SOURCE.tar.xz $SOURCE/net/ipv4/esp4.c $SOURCE/net/ipv6/esp6.c > build/esp.c ||
	die "cannot read $SOURCE"
echo "esp4.c and esp6.c of $SOURCE: $(lines build/esp.c) lines"
for release in $(releases); do
	modules=$(echo build/roots/*/lib/modules/"$release"/kernel/net)
	echo "$release: minesp: $(code "build/$release/minesp/minesp.ko")"
	echo "$release: esp4 and esp6: $(code $modules/ipv4/esp4.ko* $modules/ipv6/esp6.ko*)"
done
