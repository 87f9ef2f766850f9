#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# device.sh RELEASE SCRIPT [OPTION ...]: boots a small machine, which represents a
# constrained device, with a kernel of build/roots, and runs a shell script in it. The
# machine boots in a few seconds from an initramfs that contains only bash, busybox,
# ethtool, ip(8), tc(8), the module minesp and what these need. Prints the script's
# output and the kernel's messages, and ends when the script ends. Standard input goes
# to the machine's console. OPTIONs are for QEMU. -icount prevents the use of KVM.
#
# DEVICE_FILES names more files, which are in / there. DEVICE_APPEND is added to the
# kernel's command line. DEVICE_SUSPENDS must be set if the machine suspends to RAM.
# DEVICE_PRELOAD is a library that QEMU loads first.

. "$(dirname "$0")/roots.sh"

release=${1:?usage: device.sh RELEASE SCRIPT [OPTION ...]} script=${2:?}; shift 2
root=$(root_of "$release") && kernel=$(kernel_of "$release" "$root") || exit
dir=build/$release/device
busybox=$PWD/build/roots/$root/usr/bin/busybox
vmlinux=build/$release/vmlinux
modules="virtio_pci virtio_net veth dummy xfrm_user esp4 esp6 esp4_offload esp6_offload
	aes_generic aesni-intel authenc authencesn cbc chacha chacha_generic chacha-x86_64
	chacha20poly1305 cryptomgr ctr drbg echainiv gcm ghash-generic ghash-clmulni-intel hmac
	jitterentropy_rng poly1305_generic poly1305-x86_64 seqiv sha256_generic sha256-ssse3
	act_mirred button cls_matchall sch_ingress sch_plug sha512_generic"

# Packs the machine's files. Runs in the root.
pack()
{
	rm -rf $dir
	mkdir -p $dir/{bin,dev,etc,proc,sys,run,tmp,lib/modules/$release}
	ln -s bin $dir/sbin
	for program in bash busybox ethtool ip tc; do
		program=$(type -P $program)
		cp -L "$program" $dir/bin/
		for file in $(ldd "$program" 2> /dev/null | grep -o '/[^ ]*'); do
			mkdir -p "$dir$(dirname "$file")"
			cp -L "$file" "$dir$file"
		done
	done
	for applet in $(busybox --list); do
		[ -e "$dir/bin/$applet" ] || ln -s busybox "$dir/bin/$applet"
	done
	for module in $modules $(modinfo -F depends build/$release/minesp/minesp.ko | tr , ' '); do
		modprobe -q -S $release --show-depends $module
	done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | sort -u | while read -r file; do
		mkdir -p "$dir$(dirname "$file")"
		case $file in
		*.xz) xz -dc "$file" > "$dir${file%.xz}" ;;
		*) cp "$file" "$dir$file" ;;
		esac
	done
	cp /lib/modules/$release/modules.{builtin,builtin.modinfo,order} $dir/lib/modules/$release/
	cp build/$release/minesp/minesp.ko $dir/lib/modules/$release/
	depmod -b $dir $release
	cat > $dir/init <<-'END'
		#!/bin/bash
		export PATH=/bin HOME=/tmp
		mount -t devtmpfs dev /dev
		mount -t proc proc /proc
		mount -t sysfs sys /sys
		ln -s /proc/self/fd /dev/fd
		bash /script < /dev/null
		poweroff -f
	END
	chmod +x $dir/init
	(cd $dir && find . | cpio -o -H newc --quiet) | gzip -1 > $dir.cpio.gz.new &&
		mv $dir.cpio.gz.new $dir.cpio.gz
}

# Extracts the kernel from the bzImage $1, see Documentation/arch/x86/boot.rst. If the
# kernel decompresses itself in emulation, that takes a second or two.
unpack()
{
	local setup payload

	setup=$(od -An -tu1 -j $((0x1f1)) -N 1 "$1")
	read -ra payload < <(od -An -tu4 -j $((0x248)) -N 8 "$1")
	# The last 4 bytes of the payload are the kernel's length.
	tail -c +$(((setup + 1) * 512 + payload[0] + 1)) "$1" | head -c $((payload[1] - 4)) |
		zstd -dc > $vmlinux.new && mv $vmlinux.new $vmlinux
}

{
	flock 9		# machines may start together
	[ $vmlinux -nt "$kernel" ] || {
		install_in "$root" zstd && in_root "$root" "vmlinux=$vmlinux
			$(declare -f unpack); unpack ${kernel#"$PWD/build/roots/$root"}"
	} || die "cannot unpack the kernel"
	[ $dir.cpio.gz -nt "build/$release/minesp/minesp.ko" ] &&
		[ $dir.cpio.gz -nt tools/device.sh ] ||
		in_root "$root" "set -o pipefail; release=$release dir=$dir modules='$modules'
			$(declare -f pack); pack" ||
		die "cannot pack the device's files"
} 9> $dir.lock

# The kernel unpacks both archives, one after the other. QEMU reads a file that is
# deleted already, because this script may be killed and must leave no file.
work=$(mktemp -d)
cp "$script" "$work/script"
for file in ${DEVICE_FILES:-}; do
	cp "$file" "$work/"
done
{
	cat $dir.cpio.gz
	# shellcheck disable=SC2012	# The file names have no special characters.
	(cd "$work" && ls | "$busybox" cpio -o -H newc 2> /dev/null | gzip -1)
} > "$work/initramfs"
exec 7< "$work/initramfs"
rm -r "$work"
# QEMU writes an uncompressed kernel to memory again when the machine wakes up.
[ -z "${DEVICE_SUSPENDS:-}" ] || vmlinux=$kernel
accel=tcg
[[ " $* " = *" -icount "* ]] || ! have_kvm || accel=kvm
exec env LD_PRELOAD="${DEVICE_PRELOAD:-}" qemu-system-x86_64 -accel $accel -cpu max \
	-m 256M -nodefaults -no-reboot -display none \
	-serial stdio -kernel "$vmlinux" -initrd /proc/self/fd/7 \
	-append "console=ttyS0 quiet panic=-1 oops=panic ${DEVICE_APPEND:-}" "$@"
