#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# make foreign: runs the kselftests on a 32-bit architecture (armhf) and on a big-endian
# one (s390x), in emulated machines with Debian's kernel and programs. Takes an hour for
# each. The last line counts the tests of both: N passed, N failed, N skipped.
#
# foreign.sh [armhf] [s390x] [TEST ...]: runs only these tests of selftests/, such as
# interop.py, and only on these architectures. The root file systems are
# build/roots/SUITE-ARCH. SUITE is trixie by default; bookworm is Debian 12 with its
# 6.1. The consoles go to build/foreign/console-ARCH. This host runs no foreign
# programs. MINESP_TIMEOUT is how many seconds each machine may run, 4500 by default.

. "$(dirname "$0")/roots.sh"
. tools/ktap.sh

: "${SUITE:=trixie}"

# Packages that every installed Debian has, and that these roots need, too
BASE="base-passwd bash busybox-static coreutils dash findutils grep mawk sed util-linux"

# Sets the compiler, the kernel and the machine of architecture $1.
#
# armmp has no LPAE, so nothing may be above 4 GB. Its CPUs wait for each other: if QEMU
# runs them in one thread, booting does not end (vm.sh says why one would be better).
# NEON ciphers are asynchronous: packets overtake each other, and with esp4_offload,
# send() of a stock peer returns ENOMEM although the packet is sent. Only async.py
# expects asynchronous ciphers.
about()
{
	arch=$1
	dir=build/foreign/$arch
	root=build/roots/$SUITE-$arch
	case $arch in
	armhf)
		triplet=arm-linux-gnueabihf
		flavour=armmp
		qemu="qemu-system-arm -M virt,highmem=off -cpu cortex-a15,neon=off"
		serial=virtio-serial-device
		threads=multi ;;
	s390x)
		triplet=s390x-linux-gnu
		flavour=s390x
		qemu="qemu-system-s390x -M s390-ccw-virtio"
		serial=virtio-serial-ccw
		threads=single ;;
	esac
}

# Unpacks packages and dependencies. Installing them would run foreign programs. Uses
# only the main archive, because others may lack packages for the architecture.
make_foreign_root()
{
	local include

	[ -e "$root" ] && return
	include=($BASE $TEST_PROGRAMS "linux-image-$flavour" "linux-headers-$flavour")
	grep -h " $SUITE " "build/roots/$SUITE/etc/apt/sources.list" |
		bootstrap "$SUITE-$arch" "$SUITE" - finish_foreign_root --variant=extract \
			--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
			--architectures="$arch" --include="$(IFS=,; echo "${include[*]}")"
}

# Does the steps of an installation that the root needs.
finish_foreign_root()
{
	ln -s mawk "$1/usr/bin/awk"
	cp "$1/usr/share/base-passwd/passwd.master" "$1/etc/passwd"
	cp "$1/usr/share/base-passwd/group.master" "$1/etc/group"
	PATH=$PATH:/usr/sbin depmod -b "$1" "$(basename "$1"/lib/modules/*)"
}

# Builds the module, with all warnings, and the program, without shared libraries. The
# headers need build programs that run on this host, so the root SUITE provides these.
build_for()
{
	local headers=linux-headers-$release kbuild

	kbuild=$(dirname "$(readlink "$root/usr/src/$headers/scripts")")
	install_in "$SUITE" "linux-headers-${release%-"$flavour"}-common" "$(basename "$kbuild")" \
		gcc-arm-linux-gnueabihf gcc-s390x-linux-gnu libc6-dev-armhf-cross \
		libc6-dev-s390x-cross rsync || exit
	in_root "$SUITE" "$(declare -f copy_modules); copy_modules $dir/module" || exit
	build_verdict "$arch" "$dir/module/minesp/minesp.ko" in_root "$SUITE" "
		cp -rT $root/usr/src/$headers /usr/src/$headers
		touch $dir/module/minesp/*.c		# so that the compiler warns again
		make -s -C /usr/src/$headers M=/minesp/$dir/module MINESP_SELFTESTS=m \
			CROSS_COMPILE=$triplet- W=1"
	in_root "$SUITE" "make -s tools CC=$triplet-gcc MINESP=$dir/module/bin/minesp LDFLAGS=-static"
	verdict $? "build of the program for $arch"
}

# Runs the tests in a machine without a disk or a shared file system: all its files are
# in the initramfs. KTAP has its own serial port, free of the kernel's messages.
run_on()
{
	local busybox=$PWD/build/roots/trixie/usr/bin/busybox
	local host=$dir/host drivers=./usr/lib/modules/$release/kernel/drivers

	rm -rf "$host"
	mkdir -p "$host/built" "$host/selftests"
	cp -r "$dir"/module/{minesp,selftests,bin} "$host/built/"
	cp -r $selftests/{lib.mk,kselftest,minesp} "$host/selftests/"
	cat > "$host/init" <<-END
		#!/bin/bash
		export PATH=/built/bin:/usr/sbin:/usr/bin HOME=/root
		mount -t proc proc /proc
		mount -t sysfs sys /sys
		mount -t tracefs tracefs /sys/kernel/tracing
		mount -t devtmpfs dev /dev
		mkdir /dev/shm
		mount -t tmpfs shm /dev/shm
		ln -s /proc/self/fd /dev/fd
		ln -s fd/1 /dev/stdout
		mount -t tmpfs run /run
		mount -t tmpfs tmp /tmp
		date -s @$(date +%s)
		ip link set lo up
		modprobe -a virtio_mmio virtio_console
		# The port may exist before it is ready.
		until [ -e /dev/vport?p1 ] && : 2> /dev/null > /dev/vport?p1; do sleep 1; done
		export MINESP_KO=/built/minesp/minesp.ko
		# kselftest opens its output twice; the port can be opened only once.
		make -s -C /selftests/minesp run_tests ${tests:+TEST_PROGS='$tests'} \\
			2>&1 < /dev/null | cat > /dev/vport?p1
		busybox poweroff -f
	END
	chmod +x "$host/init"
	# The machine needs only the drivers that these patterns keep.
	(cd "$root" && find . \( -path "$drivers/*" ! -path "$drivers/char*" \
			! -path "$drivers/crypto*" ! -path "$drivers/net*" ! -path "$drivers/virtio*" \
			-o -path "./usr/lib/modules/*/kernel/fs/*" -o -path "./usr/lib/modules/*/kernel/sound/*" \
			-o -path "./boot/*" -o -path "./usr/src/*" -o -path "./usr/lib/linux-kbuild*" \
			-o -path "./usr/lib/gcc*" -o -path "./usr/share/doc/*" -o -path "./usr/share/man/*" \
			-o -path "./usr/share/locale/*" -o -path "./var/lib/*" \) -prune -o -print |
		"$busybox" cpio -o -H newc > "../../../$dir/initrd") 2> /dev/null &&
	(cd "$host" && find . | "$busybox" cpio -o -H newc >> "../../../../$dir/initrd") 2> /dev/null ||
		die "cannot pack files"
	timeout --foreground -k 10 "${MINESP_TIMEOUT:-4500}" $qemu -accel tcg,thread=$threads -smp 2 -m 2G \
		-display none -nodefaults -no-reboot -serial "file:build/foreign/console-$arch" \
		-kernel "$root/boot/vmlinuz-$release" -initrd "$dir/initrd" \
		-append "panic=-1 oops=panic log_buf_len=4M" \
		-chardev file,path=/dev/stdout,id=ktap -device $serial \
		-device virtserialport,chardev=ktap < /dev/null
}

architectures=
tests=
for word in "$@"; do
	case $word in
	armhf | s390x) architectures+=" $word" ;;
	*.py) tests+=" $word" ;;
	*) die "usage: foreign.sh [armhf] [s390x] [TEST.py ...]" ;;
	esac
done

lock_checkout
end_together
tools/setup.sh trixie "$SUITE" && kselftest && host_packages qemu-system-arm:qemu-system-arm qemu-system-s390x:qemu-system-s390x ||
	die "set-up failed"
copy_selftests
mkdir -p build/foreign
rm -f build/foreign/ktap-*

# One after the other, because each machine is slow even alone.
for architecture in ${architectures:-armhf s390x}; do
	about "$architecture"
	make_foreign_root || exit
	release=$(basename "$root"/lib/modules/*)
	step "building for $arch"
	build_for | tee -a build/foreign/ktap-build
	[ "${PIPESTATUS[0]}" = 0 ] || echo "not ok build for $arch" >> build/foreign/ktap-build
	step "running the tests on $arch; booting takes a minute"
	{
		echo "# $arch"		# so that a machine that prints nothing counts as dead
		run_on
	} | timed | tee "build/foreign/ktap-$arch" | sed -u "s/^/[$arch] /" &
	wait $!
done

time_table build/foreign/ktap-*
summary build/foreign/ktap-*
