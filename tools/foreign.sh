#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# make foreign: runs the kselftests where numbers are of 32 bits (armhf) and where
# they are big-endian (s390x): Debian's kernel and programs of that architecture,
# in an emulated machine. Half an hour each. Its last line, for both together:
# N passed, N failed, N skipped.
#
# foreign.sh [armhf] [s390x] [TEST ...]: only these architectures, and only these
# tests of selftests/, such as interop.py. All is made in build/foreign; what was
# fetched from Debian stays there until it is deleted. The console of a machine goes
# to build/foreign/console-ARCH. Nothing foreign is installed on this host or run by
# it. MINESP_TIMEOUT says how many seconds the tests of an architecture may take.

. "$(dirname "$0")/common.sh"

PACKAGES="base-passwd bash busybox-static charon-systemd coreutils dash ethtool
	findutils grep iproute2 iputils-ping kmod make mawk mount perl procps python3
	python3-cryptography python3-scapy sed strongswan-swanctl tcpdump tshark
	util-linux"

# What makes an architecture: its compiler, its kernel, a machine.
#
# armmp has no LPAE, so nothing may be above 4 GB. Its CPUs wait for each other so
# often that in one thread they do not get through the boot (vm.sh says why one would
# be better). With NEON the kernel's ciphers complete later: then packets overtake each
# other, and with esp4_offload a stock peer's send() says ENOMEM, though the packet goes
# out. The tests do not expect that; async.py looks at ciphers that complete later.
about()
{
	arch=$1
	dir=$PWD/build/foreign/$arch
	export APT_CONFIG=$dir/apt.conf
	case $arch in
	armhf)
		triplet=arm-linux-gnueabihf
		image=linux-image-armmp
		qemu="qemu-system-arm -M virt,highmem=off -cpu cortex-a15,neon=off"
		serial=virtio-serial-device
		threads=multi ;;
	s390x)
		triplet=s390x-linux-gnu
		image=linux-image-s390x
		qemu="qemu-system-s390x -M s390-ccw-virtio"
		serial=virtio-serial-ccw
		threads=single ;;
	esac
}

# An apt for that architecture alone, that knows this host's sources and nothing of
# what is installed. amd64, too: programs of the kernel's build run here.
apt_for()
{
	mkdir -p "$dir"/apt/{lists,cache/archives}/partial
	: > "$dir/apt/status"
	cat > "$APT_CONFIG" <<-END
		APT::Architecture "$arch";
		APT::Architectures { "$arch"; "amd64"; };
		APT::Sandbox::User "root";
		APT::Install-Recommends "false";
		Dir::State "$dir/apt";
		Dir::State::status "$dir/apt/status";
		Dir::Cache "$dir/apt/cache";
	END
	# An archive may not have the architecture, or not all of it just now.
	apt-get -q update || echo "going on with what there is"
}

# Unpacked with all it depends on, but not installed: that would run foreign programs.
# So a few things have to be made by hand.
fetch_root()
{
	local root=$dir/root.new deb

	rm -rf "$dir"/root* "$dir"/apt/cache/archives/*.deb
	mkdir -p "$root"/{usr/{bin,sbin,lib},etc,dev,proc,sys,run,tmp,root,var/log}
	ln -s usr/{bin,sbin,lib} "$root/"
	apt-get -q install -y --download-only $PACKAGES || return
	for deb in "$dir"/apt/cache/archives/*.deb; do
		dpkg-deb --fsys-tarfile "$deb" |
			tar x -C "$root" --keep-directory-symlink \
				--exclude=./usr/share/{doc,man,locale,info} || return
	done
	apt-get clean
	ln -s mawk "$root/usr/bin/awk"
	cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
	cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
	# Emulated it takes minutes. If it is another Python that does so there.
	python3 -m compileall -q "$root/usr/lib/python3" "$root"/usr/lib/python3.* > /dev/null
	mv "$root" "$dir/root"
}

# The kernel; and what modules are built with, whose programs have to run here, so
# they are amd64's.
fetch_kernel()
{
	local kernel=$dir/kernel.new needs deb drivers

	mkdir -p "$kernel/debs"
	release=$(apt-cache show $image | sed -n '/^Depends: linux-image-/{s///;s/ .*//p;q}')
	version=$(apt-cache show "linux-image-$release" | sed -n '/^Version: /{s///p;q}')
	needs=$(apt-cache depends "linux-headers-$release" |
		sed -n -e 's/.*Depends: \(linux-headers-.*-common\)$/\1/p' \
			-e "s/.*Depends: \(linux-kbuild-[^:]*\).*/\1:amd64=$version/p")
	(cd "$kernel/debs" &&
		apt-get -q download "linux-image-$release" "linux-headers-$release" $needs) ||
		return
	for deb in "$kernel"/debs/*.deb; do
		dpkg-deb -x "$deb" "$kernel" || return
	done
	rm -r "$kernel/debs"
	sed -i "s|/usr/src/|../|" "$kernel/usr/src/linux-headers-$release/Makefile"
	ln -s "usr/src/linux-headers-$release" "$kernel/build"
	ln -s "boot/vmlinuz-$release" "$kernel/vmlinuz"
	# There is no other hardware.
	drivers=$kernel/lib/modules/$release/kernel/drivers
	find "$drivers" -mindepth 1 -maxdepth 1 ! -name char ! -name crypto ! -name net \
		! -name virtio -exec rm -r {} +
	rm -rf "$drivers"/net/*/ "$kernel/lib/modules/$release"/{build,source,kernel/{fs,sound}}
	mkdir -p "$dir/root/lib/modules"
	rm -rf "$dir"/root/lib/modules/*
	mv "$kernel/lib/modules/$release" "$dir/root/lib/modules/" &&
		depmod -b "$dir/root" "$release" &&
		mv "$kernel" "$dir/kernel"
}

fetch()
{
	[ -e "$dir/kernel" ] && return
	step "fetching Debian for $arch"
	rm -rf "$dir"/{root,kernel}*
	apt_for
	fetch_root && fetch_kernel || die "cannot get what is needed for $arch: see above"
}

# The module, with all warnings, and minesp-spi, which needs no library then.
build_for()
{
	copy_module "$dir/module"
	touch "$dir"/module/minesp/*.c		# to hear again what it warns of
	build_verdict "$arch" "$dir/module/minesp/minesp.ko" make -s -C "$dir/kernel/build" \
		M="$dir/module" CROSS_COMPILE=$triplet- W=1
	$triplet-gcc -static -O2 -Wall -Wextra -o "$dir/module/minesp-spi" tools/minesp-spi.c
	verdict $? "build of minesp-spi for $arch"
}

# All files are in memory, where the kernel has put them from an archive: no file
# system to share, no disk, nothing that remains. KTAP has a serial port of its own,
# so that no message of the kernel gets into it.
run_on()
{
	local root=$dir/root

	mkdir -p "$root/minesp"
	rsync -a --delete "$dir"/module/{minesp/minesp.ko,minesp-spi} "$root/minesp/"
	rsync -a --delete --exclude=__pycache__ --exclude=minesp $selftests/ "$root/selftests/"
	rsync -a --delete --exclude=__pycache__ selftests/ "$root/selftests/minesp/"
	cat > "$root/init" <<-END
		#!/bin/bash
		export PATH=/minesp:/usr/sbin:/usr/bin HOME=/root
		mount -t proc proc /proc
		mount -t sysfs sys /sys
		mount -t tracefs tracefs /sys/kernel/tracing
		mount -t devtmpfs dev /dev
		ln -s /proc/self/fd /dev/fd
		ln -s fd/1 /dev/stdout
		mount -t tmpfs run /run
		mount -t tmpfs tmp /tmp
		date -s @$(date +%s)
		ip link set lo up
		modprobe -a virtio_mmio virtio_console
		# It may be there and not be ready.
		until [ -e /dev/vport?p1 ] && : 2> /dev/null > /dev/vport?p1; do sleep 1; done
		export MINESP_KO=/minesp/minesp.ko
		# kselftest opens what it writes to again, which the port does not like.
		make -s -C /selftests/minesp run_tests ${tests:+TEST_PROGS='$tests'} \\
			2>&1 < /dev/null | cat > /dev/vport?p1
		busybox poweroff -f
	END
	chmod +x "$root/init"
	(cd "$root" && find . | cpio -o -H newc --quiet) > "$dir/initrd" || die "cannot pack files"
	timeout -k 10 "${MINESP_TIMEOUT:-4500}" $qemu -accel tcg,thread=$threads -smp 2 -m 2G \
		-display none -nodefaults -no-reboot -serial "file:build/foreign/console-$arch" \
		-kernel "$dir/kernel/vmlinuz" -initrd "$dir/initrd" \
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

tools/setup.sh || die "set-up failed"
install_packages cpio gcc-arm-linux-gnueabihf gcc-s390x-linux-gnu libc6-dev-armhf-cross \
	libc6-dev-s390x-cross qemu-system-arm qemu-system-misc
mkdir -p build/foreign
rm -f build/foreign/ktap-*

# One after the other: a machine alone is slow enough.
for architecture in ${architectures:-armhf s390x}; do
	about "$architecture"
	fetch
	step "building for $arch"
	build_for | tee -a build/foreign/ktap-build
	step "running the tests on $arch; booting takes a minute"
	{
		echo "# $arch"		# a machine that says nothing has died
		run_on
	} | tee "build/foreign/ktap-$arch" | sed -u "s/^/[$arch] /"
done

summary build/foreign/ktap-*
