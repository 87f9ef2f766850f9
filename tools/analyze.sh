#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# make analyze: runs clang's analyzer on the module, as built for the kernel of Debian
# 13, and on the program. Runs gcc's -fanalyzer on the program only: in the kernel it
# assumes that any skb_sec_path() or xfrm_offload() returns NULL. Prints only findings.
#
# analyze.sh ARGUMENTS: the kernel's build runs this on each file, with gcc's arguments.

if [ $# != 0 ]; then
	arguments=()
	for argument in "$@"; do
		# clang rejects some of gcc's code generation options, and needs none.
		case $argument in
		-[DIU]* | -include | -isystem | -nostdinc | -std=* | -fshort-wchar | -funsigned-char | \
			[!-]*) arguments+=("$argument") ;;
		esac
	done
	exec clang --analyze -Xanalyzer -analyzer-output=text -w "${arguments[@]}"
fi

. "$(dirname "$0")/roots.sh"

lock_checkout
tools/setup.sh trixie || die "set-up failed"
release=$(cat build/roots/trixie.release)
install_in trixie clang || exit
status=0

# Runs a command and prints its findings. If there are any, analyze.sh fails at the end.
findings()
{
	local said

	said=$("$@" 2>&1 | grep -v 'Skipping BTF')
	[ -z "$said" ] || { echo "$said"; status=1; }
}

BUILD_DIR=build/analyze findings build "$release" C=2 CHECK=/minesp/tools/analyze.sh
program="-D_GNU_SOURCE -DMINESP_VERSION='\"\"' -Iinclude/uapi"
findings in_root trixie "for file in tools/minesp/*.c; do
	clang --analyze -Xanalyzer -analyzer-output=text $program \$file
	gcc -fanalyzer $program -c -o /dev/null \$file
done"
exit $status
