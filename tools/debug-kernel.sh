#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# debug-kernel.sh: builds the kernel of make check-debug from Debian's source, in
# build/debug: small, with the checks that find bugs in minesp (tools/debug.config).
# Installs it in the root trixie, where tools/vm.sh finds it. Takes ten minutes on two
# cores, and 2.3 GB. Builds again only if the configuration or the source has changed.
#
# debug-kernel.sh races: builds the kernel of make check-races, with KCSAN instead
# (tools/races.config).

. "$(dirname "$0")/roots.sh"

enter_root trixie $SOURCE bc bison flex libelf-dev libssl-dev make virtme-ng xz-utils

name=${1:-debug}
dir=build/$name
done=$dir/built
configs="tools/debug.config selftests/config"
[ "$name" = debug ] || configs+=" tools/$name.config"
stamp=$(sha256sum tools/debug-kernel.sh $configs /usr/src/$SOURCE.tar.xz | sha256sum)
[ -e $done ] && [ "$(head -1 $done)" = "$stamp" ] && exit 0
kernel_source || exit
mkdir -p $dir/obj

step "configuring the $name kernel"
# virtme-ng adds the options that it needs. The last line for an option counts.
awk -F= '/^CONFIG/ { asked[$1] = $0 } END { for (o in asked) print asked[o] }' $configs \
	> $dir/fragment
# KCSAN and UBSAN check only minesp, because the kernel's own bugs are out of scope.
# KCSAN still detects that other code changes data that minesp reads.
kmake="make -s -C $PWD/build/source O=$PWD/$dir/obj KCSAN_SANITIZE=n UBSAN_SANITIZE=n"
(cd build/source && virtme-configkernel --allnoconfig \
	--custom "../../$dir/fragment" "O=$PWD/../../$dir/obj") \
	> $dir/log 2>&1 || die "cannot configure: see $dir/log"
# virtme-ng enables more than needed, and each driver makes booting slower.
build/source/scripts/config --file $dir/obj/.config -e EXPERT
for option in ACPI_AC ACPI_BATTERY ACPI_FAN ACPI_PROCESSOR ACPI_THERMAL BPF_SYSCALL \
	DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT DRM FB FUSE_FS HWMON I2C INPUT INTEL_MEI \
	IO_URING MEMORY_HOTPLUG PERF_EVENTS_INTEL_CSTATE PERF_EVENTS_INTEL_RAPL \
	PERF_EVENTS_INTEL_UNCORE SCSI SERIO SOUND THERMAL USB_SUPPORT VSOCKETS VT \
	WATCHDOG; do
	build/source/scripts/config --file $dir/obj/.config -d $option
done
build/source/scripts/config --file $dir/obj/.config -e DEBUG_INFO_NONE
$kmake olddefconfig >> $dir/log 2>&1
wrong=$(grep -v '=n$' $dir/fragment | grep -vxFf $dir/obj/.config
	sed -n 's/=n$/=y/p' $dir/fragment | grep -xFf $dir/obj/.config)
[ "$wrong" ] && die "not as asked for: $wrong"

step "building the $name kernel: ten minutes on two cores"
$kmake -j"$(nproc)" bzImage modules >> $dir/log 2>&1 ||
	die "cannot build: see $dir/log"
release=$($kmake kernelrelease)
rm -rf "/lib/modules/$release"
{
	$kmake modules_install &&
	cp $dir/obj/arch/x86/boot/bzImage "/lib/modules/$release/vmlinuz"
} >> $dir/log 2>&1 || die "cannot install: see $dir/log"
printf '%s\n%s\n' "$stamp" "$release" > $done
