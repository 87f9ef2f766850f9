#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# vm.sh RELEASE [COMMAND]: runs a shell command, or an interactive shell, as root in a
# virtual machine with kernel RELEASE and the root in build/roots that contains it.
# Changes to the root are lost. This checkout is /minesp, where only build/RELEASE is
# writable. MINESP_KO names the module. Exits with the command's status.
#
# The console goes to build/console-VM_NAME. VM_NAME is RELEASE by default; set it if
# several machines run one. VM_QEMU adds options for QEMU. VM_MEMORY is 2G by default.

. "$(dirname "$0")/roots.sh"

release=${1:?usage: vm.sh RELEASE [COMMAND]}; shift
root=$(root_of "$release") && kernel=$(kernel_of "$release" "$root") || exit
root=$PWD/build/roots/$root
console=build/console-${VM_NAME:-$release}
mkdir -p "build/$release"

# Emulate all CPUs in one thread. With a thread for each CPU, QEMU sometimes runs code
# that the kernel has just patched (static keys) as it was before: an Oops in int3. With
# as many machines as processors, more threads are not faster. Only races need CPUs that
# run in parallel, so tools/races.config disables static keys and kprobes.
accel=--disable-kvm
options="-accel tcg,thread=single"
[[ $release = *-races ]] && options="-accel tcg,thread=multi"
if have_kvm; then
	accel=
	options=
fi

# Mounts /usr a second time, with a cache, which halves the time to start a program.
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
# After the first report, KASAN and lockdep report nothing more, so the machine boots
# again. COMMAND must not exit with 75, because the machine would then boot again, too.
sound="dmesg | grep -qE 'BUG: |WARNING: ' && exit 75"
[ $# = 0 ] || end_together
for boot in 1 2 3; do
	if [ $# = 0 ]; then
		vm
	else
		# QEMU would overwrite the beginning of a file opened for appending.
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
