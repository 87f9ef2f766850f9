#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Which lines of minesp/ no test has reached in the last run on the debug kernel, and
# for each file how many were. make check-debug runs all tests there.

. "$(dirname "$0")/common.sh"

release=$(tail -n 1 build/debug/built 2> /dev/null) || die "run make check-debug first"
from=$PWD/build/$release/minesp
ls "$from"/*.gcda > /dev/null 2>&1 || die "no coverage in $from: run make check-debug first"
rm -rf build/coverage
mkdir -p build/coverage
(cd build/coverage && gcov -p -o "$from" "$from"/*.c > log 2>&1) ||
	die "gcov failed: see build/coverage/log"
grep -q mismatch build/coverage/log && die "minesp was built since: run make check-debug"

cd build/coverage || exit
for file in *"#minesp#"*.c.gcov; do
	name=minesp/${file##*#minesp#}
	awk -v name="${name%.gcov}" '
		BEGIN { FS = ":" }
		$2 + 0 && $1 !~ /-/ { lines++ }
		$1 ~ /#####|=====/ { missed[++n] = $0 }
		END {
			printf "%-20s %4d of %4d lines, %5.1f%%\n", name, lines - n, lines,
				lines ? 100 * (lines - n) / lines : 100
			for (i = 1; i <= n; i++)
				print missed[i]
		}' "$file"
done
