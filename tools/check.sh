#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# make check: sets up what is missing, builds for every supported kernel with
# all warnings, and for other architectures, looks at the style, runs all kselftests
# on every kernel and some on the debug kernel, in virtual machines, and sums up. Its
# last line: N passed, N failed, N skipped.
#
# check.sh TEST ... runs only these tests of selftests/, such as interop.py, and not
# on the debug kernel. With RELEASES set to one of tools/debug-kernel.sh it runs only
# there. A test that has not begun MINESP_TIMEOUT seconds after check.sh has, 4200, is
# skipped: so a slow machine has a verdict, too.

. "$(dirname "$0")/common.sh"

# What gains most from the debug kernel, in little time
debug_tests="kunit.py fault.py soak.py klog.py"

: "${MINESP_TIMEOUT:=4200}"
end=$(($(date +%s) + MINESP_TIMEOUT))

# In a virtual machine of release $1; what it prints is KTAP. What there is of
# coverage goes to where the module was built. Then machines of that release that
# crash.
run_on()
{
	local tests="${*:2}" dir=$PWD/build/$1/minesp limit="MINESP_END=$end"

	[[ $1 = *-debug || $1 = *-races ]] && export VM_MEMORY=3G &&
		limit+=" kselftest_override_timeout=5400"
	{
		echo "# $1"	# a machine that says nothing has died
		timeout -k 10 $((MINESP_TIMEOUT + 900)) tools/vm.sh "$1" \
			"$limit make -s -C $selftests/minesp run_tests ${tests:+TEST_PROGS='$tests'} 2>&1
			 for d in $dir $dir/kunit; do cp /sys/kernel/debug/gcov\$d/*.gcda \$d/ 2> /dev/null; done; :" \
			< /dev/null
	} | tee "build/ktap-$1" | sed -u "s/^/[$1] /"
	[ "$tests" ] || [ "${RELEASES:-}" ] && return
	{
		echo "1..1"
		tools/crash.py "$1" 2 | sed -u "s/^/# /"
		verdict "${PIPESTATUS[0]}" "selftests: minesp: crash.py"
	} | tee "build/ktap-crash-$1" | sed -u "s/^/[$1] /"
}

build_for()
{
	step "building for $1"
	build_verdict "$1" "build/$1/minesp/minesp.ko" build "$1" W=1 | tee -a build/ktap-build
}

tools/setup.sh || die "set-up failed"
rm -f build/ktap-*
rsync -a --delete --exclude=__pycache__ selftests/ $selftests/minesp/
# Not anew by each program in a slow machine
/usr/bin/python3 -m compileall -q $selftests/{kselftest,minesp}

all=$(releases)
debug=
[ "$*${RELEASES:-}" ] || {
	tools/debug-kernel.sh && debug=$(tail -n 1 build/debug/built)
	verdict $? "build of the debug kernel" | tee -a build/ktap-build
	step "building for other architectures"
	tools/cross.sh | grep -v '^1\.\.' | tee -a build/ktap-build
	verdict "${PIPESTATUS[0]}" "builds for other architectures" | tee -a build/ktap-build
}

[ "$debug" ] && {
	build_for "$debug"
	step "running $debug_tests on $debug; booting takes two minutes"
	run_on "$debug" $debug_tests &
}
for release in $all; do
	build_for "$release"
done
make -s tools
verdict $? "build of minesp-spi" | tee -a build/ktap-build
step "looking at the style"
tools/style.sh
verdict $? "style" | tee -a build/ktap-build

[ "$debug" ] && {
	# Beside other machines it is so slow to boot that virtme-ng stops waiting for udev.
	for ((i = 0; i < 600; i++)); do
		grep -qs ^TAP "build/ktap-$debug" && break
		kill -0 $! 2> /dev/null || break
		sleep 1
	done
}
for release in $all; do
	step "running the tests on $release; booting takes a minute"
	run_on "$release" "$@" &
done
wait

summary build/ktap-*
