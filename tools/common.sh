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

# Where kselftest is unpacked
selftests=build/linux/tools/testing/selftests

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

# Builds the module for a release in build/RELEASE; for those of debug-kernel.sh with
# what measures coverage, and the unit tests. Further words go to make.
build()
{
	local dir=build/$1 kernel=/lib/modules/$1/build

	copy_module "$dir"
	[ -e "$kernel" ] || {
		kernel=$PWD/build/${1##*-}/obj
		rm -f "$dir"/minesp/{,kunit/}*.gcda
		set -- "$@" GCOV_PROFILE=y MINESP_KUNIT=m
	}
	# Without 4 MB of what debuggers want, which every loading would read.
	make -s -C "$kernel" M="$PWD/$dir" "${@:2}" && strip -g "$dir/minesp/minesp.ko"
}

# A line of KTAP. $1: the exit status
verdict()
{
	if [ "$1" = 0 ]; then echo "ok $2"; else echo "not ok $2"; fi
}

# Runs the command that builds module $2 for $1, and says whether there was a warning
build_verdict()
{
	local said

	said=$("${@:3}" 2>&1 | grep -v -e '^$' -e 'Skipping BTF')
	echo -n "$said" | sed '$a\'
	[ -z "$said" ] && [ -e "$2" ]
	verdict $? "build for $1 without a warning"
}

# Sums up files of KTAP, DIR/ktap-NAME, where the console of a virtual machine is
# in DIR/console-NAME; but ktap-build is of no machine. Fails if any test did.
#
# The tests of a program are in its output, after "# "; one that failed says why in
# the lines that follow, and they are shown again. A program that failed without
# saying which test did is one more failure, one that could not be run is one that
# was skipped, and one that is planned but has not ended (the machine died) is a
# failure too.
summary()
{
	awk '
		function end_of_file() { if (planned > programs) {
			failed += planned - programs
			print "== " name ": the virtual machine died; see " console
		} }
		FNR == 1 { end_of_file(); name = console = FILENAME; sub(/ktap-/, "console-", console)
			   planned = programs = bad = seen = 0
			   if (name !~ /build$/) planned = 1 }
		/^1\.\.[0-9]/ { planned = substr($0, 4) + 0 }
		/^(# )?(not )?ok |^# # Totals/ { telling = 0 }
		telling && /^# # /
		/^(# )?not ok / && !/selftests: / { failed++; bad++; seen++; telling = 1; print "== " name ": " $0 }
		/^(# )?ok / && !/selftests: / { if (/# SKIP/) skipped++; else passed++; seen++ }
		/^not ok .*selftests: / { programs++; if (!bad) { failed++; print "== " name ": " $0 } bad = seen = 0 }
		/^ok .*selftests: / { programs++; if (!seen) skipped++; bad = seen = 0 }
		END { end_of_file()
		      printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
		      exit !(passed && !failed) }
	' "$@"
}
