#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Makes ready what make demo and make check need, on Debian 12, as root:
# packages (debug-kernel.sh and cross.sh install more), the kernels that are
# supported, kselftest, virtme-ng. All but the packages goes to build/. What is
# there already is left as it is.

. "$(dirname "$0")/common.sh"

[ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] ||
	die "sets up Debian on amd64 only; elsewhere build with make, see README"

# linux-source holds kselftest's harness and checkpatch.
packages="gcc libc6-dev make kmod perl rsync sparse xz-utils
	linux-source-6.12 $HEADERS
	busybox-static qemu-system-x86 python3-venv
	iproute2 iputils-ping ethtool tcpdump python3-scapy python3-cryptography
	tshark charon-systemd strongswan-swanctl"

install_packages $packages
# The tests start strongSwan themselves; nobody has asked for a service.
case $missing in *charon-systemd*)
	[ -d /run/systemd/system ] && systemctl -q disable --now strongswan
esac

# Unpacked, not installed: the host's boot menu is not ours to change.
for release in $(releases); do
	dir=build/kernels/$release
	[ -e "$dir/boot/vmlinuz-$release" ] && continue
	step "fetching the kernel $release"
	rm -rf "$dir.new"
	mkdir -p "$dir.new"
	(cd "$dir.new" &&
		apt-get -q -o APT::Sandbox::User=root download "linux-image-$release" &&
		dpkg-deb -x ./*.deb . && rm ./*.deb && depmod -b . "$release") ||
		die "cannot get linux-image-$release: apt-get update && apt-get install $HEADERS, then try again"
	mv "$dir.new" "$dir"
done

if [ ! -e build/linux/scripts/checkpatch.pl ]; then
	step "unpacking kselftest and checkpatch from linux-source-6.12"
	rm -rf build/linux.new
	mkdir -p build/linux.new
	src=linux-source-6.12
	tar xf $KERNEL_TAR -C build/linux.new --strip-components=1 \
		$src/tools/testing/selftests/{lib.mk,kselftest,kselftest.h,kselftest_harness.h} \
		$src/scripts/{checkpatch.pl,spelling.txt,const_structs.checkpatch} ||
		die "cannot unpack $KERNEL_TAR: reinstall $src"
	mv build/linux.new build/linux
fi

if ! cmp -s tools/requirements.txt build/venv/requirements.txt; then
	step "installing virtme-ng"
	rm -rf build/venv
	/usr/bin/python3 -m venv build/venv &&
		build/venv/bin/pip install -q -r tools/requirements.txt &&
		cp tools/requirements.txt build/venv/ ||
		die "cannot install virtme-ng with pip: see above"
fi
