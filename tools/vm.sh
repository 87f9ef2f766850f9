#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# vm.sh RELEASE [COMMAND]: runs a shell command, or a shell, as root in a virtual machine
# that boots a kernel of build/roots, with the root file system that contains it. What it
# changes there is gone afterwards. This checkout is /minesp, which it cannot change but
# for build/RELEASE. MINESP_KO names the module for that kernel. Ends as the command ends.
#
# The console goes to build/console-RELEASE. VM_NAME is a better name for the console's
# file than RELEASE where several machines run one; VM_QEMU has more options for QEMU;
# VM_MEMORY is 2G unless set.

. "$(dirname "$0")/roots.sh"

release=${1:?usage: vm.sh RELEASE [COMMAND]}; shift
root=$(root_of "$release") && kernel=$(kernel_of "$release" "$root") || exit
root=$PWD/build/roots/$root
console=build/console-${VM_NAME:-$release}
mkdir -p "build/$release"

# Emulation works everywhere. In one thread: with one for each CPU, QEMU sometimes runs
# code that the kernel has just patched (static keys) as it was before, an Oops in int3;
# and with as many machines as processors it is no faster. But races want two CPUs at
# work; tools/races.config has neither static keys nor kprobes.
accel=--disable-kvm
options="-accel tcg,thread=single"
[[ $release = *-races ]] && options="-accel tcg,thread=multi"
if have_kvm; then
	accel=
	options=
fi

# /usr a second time, cached: starting a program costs half as much then.
virtfs="-virtfs local,path=$root/usr,mount_tag=usr,security_model=none,readonly=on,multidevs=remap"
prepare="mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose usr /usr
	mount --bind /mnt /minesp/build/$release
	export PATH=/minesp/build/$release/bin:/usr/sbin:/usr/bin LC_ALL=C.UTF-8
	export MINESP_KO=/minesp/build/$release/minesp/minesp.ko
	cd /minesp
	exec 2>&1"

export PATH="$PWD/build/venv/bin:$PATH:/usr/sbin"
vm()
{
	vng $accel --force-9p --root "$root" --user root --cpus 2 --memory "${VM_MEMORY:-2G}" \
		--verbose --rodir "/minesp=$PWD" --rwdir "/mnt=$PWD/build/$release" \
		--run "$kernel" --busybox "$root/usr/bin/busybox" --append "panic=-1 oops=panic log_buf_len=4M" \
		--qemu-opts="$options $virtfs ${VM_QEMU:-}" \
		-- "$prepare; $sound; ${*:-bash -i}" 2> "$console"
}

# In emulation a kernel sometimes reports a bug while it boots, before minesp is loaded.
# After the first report KASAN and lockdep are silent, so the machine boots again. A
# COMMAND must not end with 75, or it is run again as well.
sound="dmesg | grep -qE 'BUG: |WARNING: ' && exit 75"
[ $# = 0 ] || end_together
for boot in 1 2 3; do
	if [ $# = 0 ]; then
		vm
	else
		# QEMU would write over the beginning of a file that we append to.
		vm "$@" < /dev/null | cat &
		wait $!
	fi
	status=$?
	[ $status = 75 ] || break
	cp "$console" "$console.$boot"
	echo "vm.sh: the kernel complained while it booted, see $console.$boot" >&2
done
[ $status = 0 ] || echo "vm.sh: ended with $status; see $console" >&2
exit $status
