#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# make cross: builds the module with all warnings for the architectures of constrained
# hosts: 64-bit and 32-bit ARM, and 32-bit big-endian MIPS. Uses Debian's source of
# 6.12, configured for each architecture. Prints KTAP.

. "$(dirname "$0")/roots.sh"
. tools/ktap.sh

enter_root trixie $SOURCE bc bison flex gcc gcc-aarch64-linux-gnu gcc-arm-linux-gnueabihf \
	gcc-mips-linux-gnu make rsync xz-utils
kernel_source || exit

config="MODULES NET INET IPV6 XFRM_USER PROC_FS SYSCTL MULTIUSER CRYPTO_AUTHENC
	CRYPTO_GCM"
mkdir -p build/cross
printf 'CONFIG_%s=y\n' $config > build/cross/config

# Builds for $arch in $dir. modpost knows no symbol, because the kernel is not built.
compile()
{
	local kmake="make -s -C $PWD/build/source O=$dir/obj ARCH=$arch CROSS_COMPILE=$prefix"

	mkdir -p "$dir/obj"
	KCONFIG_ALLCONFIG=$PWD/build/cross/config $kmake allnoconfig > "$log" 2>&1 &&
		$kmake -j"$(nproc)" modules_prepare >> "$log" 2>&1 ||
		{ echo "cannot configure: see $log"; return; }
	copy_modules "$dir"
	touch "$dir"/minesp/*.c "$dir/obj/Module.symvers"
	$kmake M="$dir" W=1 KBUILD_MODPOST_WARN=1 2>&1 | grep -v modpost: | tee -a "$log"
}

echo "1..3"
for target in arm64:aarch64-linux-gnu- arm:arm-linux-gnueabihf- mips:mips-linux-gnu-; do
	arch=${target%:*}
	prefix=${target#*:}
	dir=$PWD/build/cross/$arch
	log=build/cross/log-$arch
	build_verdict "$arch" "$dir/minesp/minesp.ko" compile || status=1
done
exit ${status:-0}
