# SPDX-License-Identifier: GPL-2.0
#
# The test hosts: Debian root file systems in build/roots, and the kernels in them.
#
# A root holds kernels, their headers, a compiler and the test programs. Modules are
# built in it and virtual machines boot from it, so they are the same on every
# developer's machine.

. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# The supported kernels, oldest first: each is the newest kernel of this Debian suite.
KERNELS="bookworm trixie trixie-backports"

# Packages for the tests in virtual machines, and packages that build the module
TEST_PROGRAMS="conntrack ethtool iproute2 iputils-ping keepalived kmod make mount nftables perl
	procps python3-cryptography python3-scapy systemd tcpdump tshark charon-systemd"
BUILD_PROGRAMS="busybox-static cpio gcc libc6-dev rsync xz-utils"

# Makes root $1 of Debian suite $2 with mmdebstrap, whose apt checks the archive's
# signatures. $3 is "-" for a sources.list in standard input, or "" for mmdebstrap's
# own. $4 is the function that finishes the root; its argument is the folder. Further
# words go to mmdebstrap. The root gets its name only when it is complete.
bootstrap()
{
	local root=build/roots/$1

	[ -e "$root" ] && return
	step "making the root file system $root"
	mkdir -p build/roots
	rm -rf --one-file-system "$root.new"
	unshare --mount --propagation private mmdebstrap --quiet --mode=root \
		--aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Retries "3"' \
		"${@:5}" "$2" "$root.new" $3 &&
		"$4" "$root.new" || die "cannot make $root: see above; then try again"
	mv "$root.new" "$root"
}

# Makes root $1 for this host's architecture. $1 is also the suite.
make_root()
{
	[ -e "build/roots/$1" ] || bootstrap "$1" "$1" "" finish_root --variant=apt
}

finish_root()
{
	local suite

	suite=$(basename "$1" .new)
	mkdir "$1/minesp"
	sed -n "s/ $suite / $suite-backports /p" "$1/etc/apt/sources.list" \
		> "$1/etc/apt/sources.list.d/backports.list"
}

# Runs a shell command in root $1, which may be an absolute path. This checkout is
# /minesp there, and the command starts in it. The mounts are in their own namespace, so
# they disappear with the last process in it, even if that is killed.
in_root()
{
	local root=$1

	[[ $root = /* ]] || root=$PWD/build/roots/$root
	unshare --mount --propagation private bash -c '
		mount -t proc proc "$0/proc" &&
		mount --bind "$PWD" "$0/minesp" &&
		cd / && exec env -i HOME=/root LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin \
			${TERM:+"TERM=$TERM"} ${RELEASES:+"RELEASES=$RELEASES"} \
			${MINESP_LOCKED:+"MINESP_LOCKED=$MINESP_LOCKED"} \
			${http_proxy:+"http_proxy=$http_proxy"} \
			${https_proxy:+"https_proxy=$https_proxy"} \
			chroot "$0" bash -c "cd /minesp || exit
$1"' "$root" "${*:2}"
}

# Installs those of the named Debian packages that are missing in root $1. Continues an
# interrupted installation. APT_SUITE names a suite to prefer.
install_in()
(
	[ "$(not_installed "build/roots/$1" "${@:2}")" ] || return 0
	# check.sh runs several builds in parallel, which may use the same root.
	exec 9> "build/roots/$1.lock"
	flock 9
	missing=$(not_installed "build/roots/$1" "${@:2}" | xargs)
	[ "$missing" ] || return 0
	step "installing in build/roots/$1: $missing"
	cp -L /etc/resolv.conf "build/roots/$1/etc/resolv.conf"
	# The machines that boot these kernels need no initramfs.
	in_root "$1" "export DEBIAN_FRONTEND=noninteractive INITRD=No
		{ apt-get -q update && dpkg --configure -a &&
		apt-get -q install -y --fix-broken ${APT_SUITE:+-t $APT_SUITE} $missing &&
		rm -f /var/cache/apt/archives/*.deb; } > /var/log/minesp 2>&1 ||
		{ tail -n 20 /var/log/minesp; exit 1; }" ||
		die "cannot install in build/roots/$1: see above; then try again"
)

# Installs libreswan's programs in root $1. Its package conflicts with strongSwan's, so
# apt installs only the dependencies, and the programs come from the unpacked package.
install_libreswan()
{
	[ -e "build/roots/$1/usr/libexec/ipsec" ] && return
	# shellcheck disable=SC2046	# one word for each package
	install_in "$1" $(in_root "$1" "apt-get -s install libreswan" |
		sed -n '/^Inst libreswan /d; s/^Inst \([^ ]*\).*/\1/p') || exit
	step "unpacking libreswan in build/roots/$1"
	in_root "$1" "cd /root && apt-get -q update && rm -rf libreswan* &&
		apt-get -q -o APT::Sandbox::User=root download libreswan &&
		dpkg -x libreswan_*.deb libreswan && mv libreswan/usr/libexec/ipsec /usr/libexec/ &&
		rm -rf libreswan*" ||
		die "cannot unpack libreswan in build/roots/$1: see above; then try again"
}

# Makes the root for the kernel of Debian suite $1, and installs the kernel there. May run
# for several suites at a time; those with the same root wait for each other.
install_kernel()
(
	root=${1%-backports} suite='' release=''
	mkdir -p build/roots
	exec 7> "build/roots/$root.kernels.lock"
	flock 7
	[ "$1" = "$root" ] || suite=$1
	make_root "$root" || exit
	# initramfs-tools, because apt would install dracut with the kernel otherwise
	install_in "$root" $TEST_PROGRAMS $BUILD_PROGRAMS initramfs-tools || exit
	install_libreswan "$root"
	release=$(cat "build/roots/$1.release" 2> /dev/null) &&
		[ -z "$(not_installed "build/roots/$root" "linux-image-$release" \
			"linux-headers-$release")" ] && exit
	release=$(in_root "$root" "apt-cache ${suite:+-t $suite} show --no-all-versions \
		linux-image-amd64" | sed -n 's/^Depends:.*linux-image-\([0-9][^ ,]*\).*/\1/p')
	[ "$release" ] || die "Debian's $1 has no kernel"
	APT_SUITE=$suite install_in "$root" "linux-image-$release" "linux-headers-$release" ||
		exit
	echo "$release" > "build/roots/$1.release"
)

# Prints RELEASES, or else what the last set-up found, such as 6.1.0-9-amd64.
releases()
{
	local suite

	[ -z "${RELEASES:-}" ] || { echo "$RELEASES"; return; }
	for suite in $KERNELS; do
		cat "build/roots/$suite.release" 2> /dev/null
	done
}

# Prints the name of the root that contains the kernel of release $1.
root_of()
{
	local modules

	for modules in build/roots/*/lib/modules/"$1"; do
		[ -e "$modules" ] || die "no kernel $1 in build/roots; tools/setup.sh installs them"
		basename "${modules%/lib/modules/*}"
		return
	done
}

# Prints the path of the kernel of release $1 in root $2.
kernel_of()
{
	local kernel

	for kernel in "build/roots/$2"/{boot/vmlinuz-$1,lib/modules/$1/vmlinuz}; do
		[ -e "$kernel" ] && echo "$PWD/$kernel" && return
	done
	die "no kernel $1 in build/roots/$2"
}

# /dev/kvm may exist although the processor does not support it.
have_kvm()
{
	grep -qw -e vmx -e svm /proc/cpuinfo && [ -w /dev/kvm ]
}

# Installs packages in root $1, and continues this script there.
enter_root()
{
	[ "${MINESP_IN_ROOT:-}" ] && return
	lock_checkout
	[ -e "build/roots/$1" ] || tools/setup.sh "$1" || exit
	install_in "$@" || exit
	in_root "$1" "MINESP_IN_ROOT=1 exec tools/$(basename "$0") ${script_arguments[*]@Q}"
	exit
}
script_arguments=("$@")

# Copies the source of all modules to a folder, to build them there.
copy_modules()
{
	mkdir -p "$1"
	rsync -am --include='*/' --include='*.[ch]' --include=Kbuild \
		--include=VERSION --exclude='*' Kbuild VERSION minesp include selftests "$1/"
}

# Builds the module, the modules of the tests, the program, and the program with
# sanitizers for release $1, in build/RELEASE. For a kernel of debug-kernel.sh, also
# builds the unit tests, and measures coverage. Further words go to make.
build()
{
	local release=$1 dir=${BUILD_DIR:-build}/$1 kernel=/lib/modules/$1/build root words

	root=$(root_of "$release") || return
	if [ -e "build/${release##*-}/obj" ]; then
		kernel=/minesp/build/${release##*-}/obj
		rm -f "$dir"/minesp/{,kunit/}*.gcda
		set -- "$@" GCOV_PROFILE=y MINESP_KUNIT=m
	fi
	words="${*:2}"
	# touch makes the compiler warn again. strip removes 4 MB of debugging
	# information, which would be read whenever the module is loaded. kselftest
	# preloads a library (stdbuf), but ASan has to be loaded before all libraries, so
	# it is linked statically. This also halves the time to start the program.
	in_root "$root" "$(declare -f copy_modules); copy_modules $dir
		find $dir/minesp $dir/selftests -name '*.c' -exec touch {} +
		make -s -C $kernel M=/minesp/$dir MINESP_SELFTESTS=m $words &&
		strip -g $dir/minesp/minesp.ko &&
		make -s tools MINESP=$dir/bin/minesp LDFLAGS=-static &&
		make -s tools MINESP=$dir/bin/minesp-sanitized \
			CFLAGS='-O1 -g -fsanitize=address,undefined' \
			LDFLAGS='-static-libasan -static-libubsan'"
}

# The path of kselftest, for make in a root and in a virtual machine
selftests=build/linux/tools/testing/selftests

# The package with the kernel's source, for the debug kernel, kselftest and checkpatch
SOURCE=linux-source-6.12

# Unpacks kselftest's harness, the kernel's tests that minesp's tests run, and checkpatch.
# An emulated machine is too slow for the five seconds that pmtu.sh gives nettest.
kselftest()
{
	local net=build/linux.new/tools/testing/selftests/net

	[ -e build/linux/tools/testing/selftests/net ] && return
	install_in trixie $SOURCE || return
	step "unpacking kselftest, checkpatch and kernel-doc from $SOURCE"
	in_root trixie "rm -rf build/linux.new && mkdir build/linux.new &&
		tar xf /usr/src/$SOURCE.tar.xz -C build/linux.new --strip-components=1 \
			$SOURCE/tools/testing/selftests/{lib.mk,kselftest,kselftest.h,kselftest_harness.h} \
			$SOURCE/tools/testing/selftests/net/{pmtu.sh,lib.sh,net_helper.sh,nettest.c} \
			$SOURCE/scripts/{checkpatch.pl,spelling.txt,const_structs.checkpatch,kernel-doc} &&
		sed -i 's/ -t 5$/ -t 60/' $net/pmtu.sh &&
		gcc -O2 -static -w -Wl,-w -o $net/nettest $net/nettest.c &&
		rm -rf build/linux && mv build/linux.new build/linux"
}

# Copies the tests to kselftest's folder, and byte-compiles them for each root.
# Otherwise a slow virtual machine would do that again for each program.
copy_selftests()
{
	local root

	in_root trixie "rsync -a --delete --exclude=__pycache__ selftests/ $selftests/minesp/" ||
		die "cannot copy the tests"
	for root in $(for release in $(releases); do root_of "$release"; done | sort -u); do
		in_root "$root" "python3 -m compileall -q $selftests/{kselftest,minesp}"
	done
}

# Unpacks the kernel's source in build/source. The caller must run in the root trixie.
kernel_source()
(
	exec 9> build/source.lock
	flock 9
	[ "$(cat build/source/origin 2> /dev/null)" = "$(sha256sum /usr/src/$SOURCE.tar.xz)" ] &&
		return
	step "unpacking the kernel's source"
	rm -rf build/source.new build/source &&
		mkdir -p build/source.new &&
		tar xf /usr/src/$SOURCE.tar.xz -C build/source.new --strip-components=1 &&
		sha256sum /usr/src/$SOURCE.tar.xz > build/source.new/origin &&
		mv build/source.new build/source || die "cannot unpack $SOURCE"
)
