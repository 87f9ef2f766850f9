#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# make check: sets up what is missing, and builds with all warnings for every supported
# kernel and for other architectures. Runs all kselftests on every kernel and some on
# the debug kernel, in virtual machines. Tests the Debian packages. Checks the style,
# runs the program under valgrind, builds the documentation, and compares the cost of
# ESP with Documentation/performance.rst. Prints the seconds of each program on each
# kernel. The last line is: N passed, N failed, N skipped.
#
# check.sh TEST ... runs only these tests of selftests/, such as interop.py, and not on
# the debug kernel. RELEASES names the kernels, which may be of tools/debug-kernel.sh.
# LANES machines run at a time; by default one for each processor, but at most one for
# each 3 GB of memory. Tests that have not begun MINESP_TIMEOUT seconds (default: 4200)
# after the first test are skipped, so make check ends in time on a slow host.

. "$(dirname "$0")/roots.sh"
. tools/ktap.sh

# Short tests that gain most from the debug kernel, or run only there
debug_tests="kunit.py netdevice.py fault.py soak.py klog.py"

memory=$(awk '/^MemTotal/ { print int($2 / 3000000) }' /proc/meminfo)
: "${MINESP_TIMEOUT:=4200}" "${LANES:=$((memory < $(nproc) ? memory : $(nproc)))}"
[ "$LANES" -ge 1 ] || LANES=1

# Runs tests in a virtual machine with kernel $1, all tests by default. Copies coverage
# data, if any, to the folder where the module was built. The tests read MINESP_SHARE.
run_on()
{
	local tests="${*:2}" dir=/minesp/build/$1/minesp
	local environment="MINESP_END=$end MINESP_SHARE=${MINESP_SHARE:-1/1}"

	# Looking for leaks would take two thirds of the time of a short program.
	environment+=" MINESP_PROGRAM=minesp-sanitized ASAN_OPTIONS=detect_leaks=0"
	[[ $1 = *-debug || $1 = *-races ]] && export VM_MEMORY=3G &&
		environment+=" kselftest_override_timeout=5400"
	step "running ${tests:-the tests} on $1"
	{
		echo "# $1"	# so that a machine that prints nothing counts as dead
		timeout --foreground $((MINESP_TIMEOUT + 900)) tools/vm.sh "$1" \
			"$environment make -s -C $selftests/minesp run_tests ${tests:+TEST_PROGS='$tests'} 2>&1
			 for d in $dir $dir/kunit; do cp /sys/kernel/debug/gcov\$d/*.gcda \$d/ 2> /dev/null; done; :"
	} | timed | tee "build/ktap-$1" | sed -u "s/^/[$1] /"
}

# Runs a program that starts machines itself. $1: release; further words: the command
run_outside()
{
	local name=${2##*/}

	{
		echo "1..1"
		echo "# selftests: minesp: $name"
		"${@:2}" | sed -u "s/^/# /"
		verdict "${PIPESTATUS[0]}" "selftests: minesp: $name"
	} | timed | tee "build/ktap-${name%.*}-$1" | sed -u "s/^/[$1] /"
}

# Runs all tests on release $1, but only share $2, such as 1/3, of the cases that do not
# depend on the kernel. Then tests small machines that crash, sleep, and have no IPv6.
run_all_on()
{
	MINESP_SHARE=$2 run_on "$1"
	run_outside "$1" tools/crash.py "$1"
	run_outside "$1" tools/sleep.py "$1"
	run_outside "$1" tools/noipv6.sh "$1"
}

# Measures the cost of ESP on the newest kernel.
run_bench()
{
	LANES=1 run_outside "$(releases | tail -n 1)" tools/bench.sh check
}

build_for()
{
	step "building for $1"
	build_verdict "$1" "build/$1/minesp/minesp.ko" build "$1" W=1 | tee -a build/ktap-build
}

run_debug()
{
	local release

	tools/debug-kernel.sh
	verdict $? "build of the debug kernel" | tee -a build/ktap-build
	release=$(tail -n 1 build/debug/built) || return
	build_for "$release"
	run_on "$release" $debug_tests
}

look_at_source()
{
	step "building for other architectures"
	tools/cross.sh | grep -v '^1\.\.' | tee -a build/ktap-build
	verdict "${PIPESTATUS[0]}" "builds for other architectures" | tee -a build/ktap-build
	step "looking at the style"
	tools/style.sh
	verdict $? "style" | tee -a build/ktap-build
	step "running the program under valgrind"
	tools/valgrind.sh
	verdict $? "valgrind" | tee -a build/ktap-build
	step "building the documentation"
	tools/docs.sh
	verdict $? "documentation" | tee -a build/ktap-build
}

# Tests the Debian packages, after the packages that the source needs are installed.
look_at_source_and_packages()
{
	look_at_source
	run_outside "$(releases | tail -n 1)" tools/packages.sh
}

lock_checkout
end_together

{ [ "${RELEASES:-}" ] || tools/setup.sh; } && kselftest || die "set-up failed"
rm -f build/ktap-*
copy_selftests

for release in $(releases); do
	start build_for "$release"
done
wait
end=$(($(date +%s) + MINESP_TIMEOUT))
# A machine that never starts counts as dead, too.
for release in $(releases); do
	echo "# $release" > "build/ktap-$release"
done
if [ "$*" ]; then
	for release in $(releases); do
		start run_on "$release" "$@"
	done
elif [ "${RELEASES:-}" ]; then
	for release in $RELEASES; do
		start run_on "$release"
	done
else
	start run_debug
	# The newest kernel is first, because its tests take longest.
	share=0
	for release in $(releases | tac); do
		start run_all_on "$release" "$((++share))/$(releases | wc -l)"
	done
	start run_bench
	start look_at_source_and_packages
fi
wait

time_table build/ktap-*
summary build/ktap-*
