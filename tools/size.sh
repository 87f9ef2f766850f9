#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# size.sh: prints the size of minesp, and of esp4, esp6 and their offloads: lines without
# comments and empty lines, and KiB of .text for each supported kernel. Run make check
# first.

. "$(dirname "$0")/roots.sh"

enter_root trixie $SOURCE binutils gcc xz-utils

# Parts of the module without a counterpart in esp4 and esp6
clock=(seqno)
settings=(list netns stats sysctl)

lines()
{
	cat "$@" | gcc -fpreprocessed -dD -E -P -x c - 2>/dev/null | grep -vc '^\s*$'
}

# Prints KiB of .text in files, compressed or not.
text()
{
	local dir file
	dir=$(mktemp -d)
	for file in "$@"; do
		case $file in
		*.xz) xz -dc "$file" > "$dir/$(basename "$file" .xz)" ;;
		*) cp "$file" "$dir" ;;
		esac
	done
	size -A "$dir"/* | awk '/^\.text/ { sum += $2 } END { printf " %6.1f", sum / 1024 }'
	rm -r "$dir"
}

# Prints a line of the table. $1: its name; further words: parts of the module, and headers
row()
{
	local release parts=() files=() word

	for word in "${@:2}"; do
		[[ $word = *.h ]] && files+=("$word") && continue
		parts+=("$word.o")
		files+=("minesp/$word.c")
	done
	printf '%-32s %6d' "$1" "$(lines "${files[@]}")"
	for release in $(releases); do
		text "${parts[@]/#/build/$release/minesp/}"
	done
	echo
}

headers=(include/*.h include/uapi/linux/*.h)
all=(minesp/*.c)
all=("${all[@]#minesp/}")
all=("${all[@]%.c}")
esp=()
for part in "${all[@]}"; do
	[[ " ${clock[*]} ${settings[*]} " = *" $part "* ]] || esp+=("$part")
done

printf '%-32s %6s' "" lines
for release in $(releases); do
	printf ' %6s' "$(cut -d. -f1,2 <<< "$release")"
done
echo
row "minesp: ESP, with all headers" "${esp[@]}" "${headers[@]}"
row "minesp: SNs, with their clock" "${clock[@]}"
row "minesp: settings, lists, counters" "${settings[@]}"
row "minesp: all" "${all[@]}" "${headers[@]}"
tar xOf /usr/src/$SOURCE.tar.xz $SOURCE/net/ipv{4/esp4,4/esp4_offload,6/esp6,6/esp6_offload}.c \
	> build/esp.c || die "cannot read $SOURCE"
printf '%-32s %6d' "esp4, esp6, their offloads" "$(lines build/esp.c)"
for release in $(releases); do
	text build/roots/*/lib/modules/"$release"/kernel/net/ipv[46]/esp[46]{,_offload}.ko*
done
echo
