#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Builds the kernel of make check-debug from Debian's source of 6.12: a small one,
# with every check that finds bugs in minesp (tools/debug.config). Goes to
# build/kernels, where tools/vm.sh finds it. Five minutes on two cores, and 2.3 GB;
# done again when the configuration or the source has changed.

. "$(dirname "$0")/common.sh"

dir=build/debug
done=$dir/built
stamp=$(sha256sum tools/debug.config selftests/config "$KERNEL_TAR" | sha256sum)
[ -e $done ] && [ "$(head -1 $done)" = "$stamp" ] && exit 0

install_packages bc bison flex libelf-dev libssl-dev
kernel_source
mkdir -p $dir/obj

step "configuring the debug kernel"
# virtme-ng knows what it needs itself.
cat selftests/config tools/debug.config > $dir/fragment
export PATH="$PWD/build/venv/bin:$PATH"
kmake="make -s -C $PWD/build/source O=$PWD/$dir/obj"
(cd build/source && virtme-configkernel --allnoconfig \
	--custom "../../$dir/fragment" "O=$PWD/../../$dir/obj") \
	> $dir/log 2>&1 || die "cannot configure: see $dir/log"
# It wants more than we do.
for option in DRM SOUND USB_SUPPORT DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT; do
	build/source/scripts/config --file $dir/obj/.config -d $option
done
build/source/scripts/config --file $dir/obj/.config -e DEBUG_INFO_NONE
$kmake olddefconfig >> $dir/log 2>&1
missing=$(grep -h '^CONFIG' $dir/fragment | grep -vxFf $dir/obj/.config)
[ "$missing" ] && die "not as asked for: $missing"

step "building the debug kernel: five minutes on two cores"
$kmake -j"$(nproc)" bzImage modules >> $dir/log 2>&1 ||
	die "cannot build: see $dir/log"
release=$($kmake kernelrelease)
root=build/kernels/$release
rm -rf "$root"
mkdir -p "$root/boot"
cp $dir/obj/arch/x86/boot/bzImage "$root/boot/vmlinuz-$release"
$kmake modules_install INSTALL_MOD_PATH="$PWD/$root" >> $dir/log 2>&1 ||
	die "cannot install: see $dir/log"
printf '%s\n%s\n' "$stamp" "$release" > $done
