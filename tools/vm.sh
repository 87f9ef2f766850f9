#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# vm.sh RELEASE COMMAND: runs a shell command, as root, in a virtual machine
# that boots one of the kernels in build/kernels and shares this host's files;
# what it changes there is gone afterwards, but for build/RELEASE. Ends as the
# command ends. MINESP_KO names the module for that kernel, and tools/ is in PATH.
# The console goes to build/console-RELEASE. Without a COMMAND: a shell. VM_NAME is a
# better name for the console's file than RELEASE where several machines run one;
# VM_QEMU has more options for QEMU; VM_MEMORY is 2G unless set.

. "$(dirname "$0")/common.sh"

release=${1:?usage: vm.sh RELEASE [COMMAND]}; shift
console=build/console-${VM_NAME:-$release}
[ -e "build/kernels/$release/boot/vmlinuz-$release" ] ||
	die "no kernel $release in build/kernels; tools/setup.sh fetches them"
mkdir -p "build/$release"

# /dev/kvm may be there without a processor that can do it, and emulation works
# everywhere. In one thread: with one for each CPU, QEMU sometimes runs code that
# the kernel has just patched (static keys) as it was before, an Oops in int3; and
# with a machine for each kernel at once it is no faster. But races want two CPUs at
# work; tools/races.config has neither static keys nor kprobes.
accel=--disable-kvm
options="-accel tcg,thread=single"
[[ $release = *-races ]] && options="-accel tcg,thread=multi"
if grep -qw -e vmx -e svm /proc/cpuinfo && [ -w /dev/kvm ]; then
	accel=
	options=
fi

# /usr a second time, cached: starting a program costs half as much then. It hides the
# modules below it. And Scapy and Wireshark read the names of all manufacturers when they
# start, which is half of the time that it takes Scapy.
mount="mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose"
mounts="$mount usr /usr; $mount modules /lib/modules; mount --bind /dev/null /usr/share/wireshark/manuf"
virtfs="security_model=none,readonly=on,multidevs=remap"
virtfs="-virtfs local,path=/usr,mount_tag=usr,$virtfs -virtfs local,path=build/kernels/$release/lib/modules,mount_tag=modules,$virtfs"

export PATH="$PWD/build/venv/bin:$PATH"
vm()
{
	vng $accel --force-9p --user root --cpus 2 --memory "${VM_MEMORY:-2G}" --verbose \
		--rwdir "$PWD/build/$release" \
		--run "build/kernels/$release/boot/vmlinuz-$release" \
		--append "panic=-1 oops=panic log_buf_len=4M" \
		--qemu-opts="$options $virtfs ${VM_QEMU:-}" \
		-- "$mounts; export PATH=$PWD/tools:\$PATH MINESP_KO=$PWD/build/$release/minesp/minesp.ko; exec 2>&1; $sound; ${*:-bash -i}" \
		2> "$console"
}

# Emulated, a kernel stumbles now and then before it has come to anything of ours; KASAN
# and lockdep say nothing more in that machine. So it boots again. A COMMAND must not
# end with 75, or it is run again as well.
sound="dmesg | grep -qE 'BUG: |WARNING: ' && exit 75"
for boot in 1 2 3; do
	if [ $# = 0 ]; then
		vm
	else
		# QEMU would write over the beginning of a file that we append to.
		vm "$@" | cat
	fi
	status=$?
	[ $status = 75 ] || break
	cp "$console" "$console.$boot"
	echo "vm.sh: the kernel complained while it booted, see $console.$boot" >&2
done
[ $status = 0 ] || echo "vm.sh: ended with $status; see $console" >&2
exit $status
