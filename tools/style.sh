#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# make style: checks C with sparse (including endianness) for every supported kernel,
# with checkpatch --strict and with kernel-doc; scripts with shellcheck, see
# .shellcheckrc; and Python with flake8, see .flake8. Prints only findings. Debian 13's
# sparse does not understand the headers of 7.3 (typeof_unqual), and 7.3's build
# continues without it.

. "$(dirname "$0")/roots.sh"

lock_checkout
tools/setup.sh && kselftest || die "set-up failed"
status=0
# For a CamelCase name such as PRIu64, checkpatch runs git, which the root does not
# have, and leaves a file behind.
checkpatch()
{
	in_root trixie "build/linux/scripts/checkpatch.pl --no-tree --strict -q --terse \
		--no-summary $*; status=\$?; rm -f .checkpatch-camelcase.*; exit \$status" 2>&1 |
		sed '/git: not found/d'
}

for release in $(releases); do
	install_in "$(root_of "$release")" sparse || exit
	# Not in build/RELEASE, from which a virtual machine may load the module
	said=$(BUILD_DIR=build/style build "$release" C=2 CF=-D__CHECK_ENDIAN__ 2>&1) ||
		{ echo "$said"; status=1; continue; }
	grep -e warning: -e error: <<< "$said" && status=1
done
# MINESP_UNSUPPORTED() uses a string constant more than once.
checkpatch --ignore MACRO_ARG_REUSE -f minesp/*.c minesp/kunit/*.c selftests/*/*.c \
	include/minesp.h include/uapi/linux/*.h || status=1
# User space has neither strscpy() nor __printf(), and the program's messages are long
# strings. If sscanf() does not match a line of ip, the values must not change.
checkpatch --ignore STRCPY,PREFER_DEFINED_ATTRIBUTE_MACRO,LONG_LINE_STRING,LONG_LINE,SPLIT_STRING \
	--ignore NAKED_SSCANF,CAMELCASE,COMPLEX_MACRO,MACRO_ARG_REUSE,EMBEDDED_FUNCTION_NAME,BRACES \
	--ignore UNNECESSARY_PARENTHESES -f tools/minesp/*.[ch] || status=1
# compat.h is the only file that may look at the kernel's version.
checkpatch --ignore LINUX_VERSION_CODE,CONSTANT_COMPARISON \
	-f include/compat.h || status=1
in_root trixie "perl build/linux/scripts/kernel-doc -none -Wall -Werror minesp/*.c include/*.h" ||
	status=1
install_in trixie flake8 shellcheck || exit
in_root trixie "flake8 selftests tools" || status=1
in_root trixie "shellcheck -f gcc .ci/run tools/*.sh tools/bench/*.sh debian/minesp.postrm \
	tools/minesp/etc/minesp.bash tools/minesp/etc/minesp.openrc.in" || status=1
exit $status
