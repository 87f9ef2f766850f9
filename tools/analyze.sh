#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# make analyze: static analysis of the module, as built for the kernel of Debian 13, by
# clang's analyzer, and of the program, by that and gcc's -fanalyzer. Silent when there is
# nothing to say. gcc's analyzer is for user space: in the kernel it believes that any
# skb_sec_path() or xfrm_offload() returns NULL.
#
# analyze.sh ARGUMENTS: the kernel's build calls this for each file, with gcc's arguments.

if [ $# != 0 ]; then
	arguments=()
	for argument in "$@"; do
		# The kernel was configured for gcc. Its code-generating options do not matter.
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

# Prints what a command says, without what others are to blame for. Fails if it says anything.
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
