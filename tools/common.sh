# SPDX-License-Identifier: GPL-2.0
#
# What the scripts in tools/ share. They run in the project's top folder.

set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# The supported kernels: Debian's generic ones, 6.1 and 6.12
HEADERS="linux-headers-amd64 linux-headers-6.12-amd64"

step()
{
	echo "== $*"
}

die()
{
	echo "$(basename "$0"): $*" >&2
	exit 1
}

# The releases of the installed headers, such as 6.1.0-9-amd64; or RELEASES
releases()
{
	[ "${RELEASES:-}" ] && echo "$RELEASES" && return
	dpkg-query -W -f '${Depends}\n' $HEADERS |
		sed -n 's/.*linux-headers-\([^ ]*\).*/\1/p' | sort -V
}

# Installs the Debian packages that are missing; missing has their names then
install_packages()
{
	local package

	missing=
	for package in "$@"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
			missing+=" $package"
	done
	[ "$missing" ] || return 0
	[ "$(id -u)" = 0 ] || die "needs root, to install:$missing"
	step "installing:$missing"
	export DEBIAN_FRONTEND=noninteractive
	apt-get -q update &&
		apt-get -q install -y --no-install-recommends $missing ||
		die "apt-get failed: see above; then try again"
}

# The kernel's source, as Debian has it, goes to build/source
KERNEL_TAR=/usr/src/linux-source-6.12.tar.xz
kernel_source()
{
	sha256sum --status -c build/source/tar.sha256 2> /dev/null && return
	step "unpacking the kernel's source"
	rm -rf build/source.new
	mkdir -p build/source.new
	tar xf $KERNEL_TAR -C build/source.new --strip-components=1 ||
		die "cannot unpack $KERNEL_TAR: reinstall linux-source-6.12"
	sha256sum $KERNEL_TAR > build/source.new/tar.sha256
	rm -rf build/source
	mv build/source.new build/source
}

# Copies what the module is made of to a folder, to be built there
copy_module()
{
	mkdir -p "$1"
	rsync -a --include='*/' --include='*.[ch]' --include=Kbuild \
		--exclude='*' Kbuild minesp include "$1/"
}

# Builds the module for a release in build/RELEASE; for the debug kernel with what
# measures coverage, and the unit tests. Further words go to make.
build()
{
	local dir=build/$1 kernel=/lib/modules/$1/build

	copy_module "$dir"
	[ -e "$kernel" ] || {
		kernel=$PWD/build/debug/obj
		rm -f "$dir"/minesp/*.gcda
		set -- "$@" GCOV_PROFILE=y MINESP_KUNIT=m
	}
	make -s -C "$kernel" M="$PWD/$dir" "${@:2}"
}
