#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# make style: sparse, endianness included, for every supported kernel, and
# checkpatch --strict. Silent when there is nothing to say. Debian 13's sparse does not
# understand the headers of 7.3 (typeof_unqual), and 7.3's build goes on without it.

. "$(dirname "$0")/roots.sh"

lock_checkout
tools/setup.sh && kselftest || die "set-up failed"
status=0
# The root has no git. With it, checkpatch leaves a file in the tree.
checkpatch()
{
	in_root trixie "build/linux/scripts/checkpatch.pl --no-tree --strict -q --terse \
		--no-summary $*"
}

for release in $(releases); do
	install_in "$(root_of "$release")" sparse || exit
	# Not in build/RELEASE, where a virtual machine may load the module from
	said=$(BUILD_DIR=build/style build "$release" C=2 CF=-D__CHECK_ENDIAN__ 2>&1) ||
		{ echo "$said"; status=1; continue; }
	grep -e warning: -e error: <<< "$said" && status=1
done
checkpatch -f minesp/*.c minesp/kunit/*.c selftests/*/*.c include/minesp.h include/uapi/linux/*.h || status=1
# The one file that may look at the kernel's version.
checkpatch --ignore LINUX_VERSION_CODE,CONSTANT_COMPARISON \
	-f include/compat.h || status=1
exit $status
