#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# setup.sh [SUITE ...]: prepares for make demo and make check. Installs a few packages
# on this host, virtme-ng in build/venv, and in build/roots a Debian with the kernel of
# each SUITE (bookworm, trixie, trixie-backports; all by default). Files that exist stay
# as they are. After rm -r build/roots, the next set-up installs the newest kernels.

. "$(dirname "$0")/roots.sh"

lock_checkout
end_together
[ "$(uname -m)" = x86_64 ] || die "the virtual machines need a host of type x86_64;" \
	"elsewhere build with make, see README"
host_packages debian-archive-keyring faketime:faketime file:file kmod:modprobe \
	mmdebstrap:mmdebstrap mount:mount python3-venv \
	qemu-system-x86:qemu-system-x86_64 util-linux:unshare
[ "$(id -u)" = 0 ] || die "needs root, to make Debian root file systems"

# virtme-ng also stops working when the checkout moves or Python changes.
if ! cmp -s tools/requirements.txt build/venv/requirements.txt ||
		! build/venv/bin/vng --version > /dev/null 2>&1; then
	step "installing virtme-ng in build/venv"
	rm -rf build/venv
	/usr/bin/python3 -m venv build/venv &&
		build/venv/bin/pip install -q -r tools/requirements.txt &&
		cp tools/requirements.txt build/venv/ ||
		die "cannot install virtme-ng with pip: see above"
fi

[ $# != 0 ] || set -- $KERNELS
pids=()
for suite in "$@"; do
	install_kernel "$suite" &
	pids+=($!)
done
status=0
for pid in "${pids[@]}"; do
	wait "$pid" || status=1
done
exit $status
