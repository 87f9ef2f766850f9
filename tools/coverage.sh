#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# make coverage: prints how many lines of each file of minesp/ the last run on the debug
# kernel (make check-debug) has reached, and the lines that it has not. Lines that only
# the unit tests reach, in their own copy of the code, count as reached.

. "$(dirname "$0")/roots.sh"

enter_root trixie gcc

release=$(tail -n 1 build/debug/built 2> /dev/null) || die "run make check-debug first"
from=$PWD/build/$release/minesp
ls "$from"/*.gcda > /dev/null 2>&1 || die "no coverage in $from: run make check-debug first"
rm -rf build/coverage
for part in . kunit; do
	mkdir -p build/coverage/$part
	(cd build/coverage/$part && gcov -p -o "$from/$part" "$from/$part"/*.c > log 2>&1) ||
		die "gcov failed: see build/coverage/$part/log"
	grep -q mismatch build/coverage/$part/log &&
		die "minesp was built since: run make check-debug"
done

cd build/coverage || exit
for file in *"#minesp#"*.c.gcov; do
	name=${file##*#minesp#}
	both=("$file")
	[ -e "kunit/$file" ] && both+=("kunit/$file")
	awk -v name="minesp/${name%.gcov}" '
		BEGIN { FS = ":" }
		$2 + 0 && $1 !~ /-/ { line[$2 + 0] = $0; if ($2 + 0 > last) last = $2 + 0 }
		$2 + 0 && $1 ~ /[0-9]/ { reached[$2 + 0] }
		END {
			for (i = 1; i <= last; i++)
				lines += i in line
			printf "%-20s %4d of %4d lines, %5.1f%%\n", name, length(reached), lines,
				100 * length(reached) / lines
			for (i = 1; i <= last; i++)
				if (i in line && !(i in reached))
					print line[i]
		}' "${both[@]}"
done
