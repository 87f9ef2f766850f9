# SPDX-License-Identifier: GPL-2.0
#
# What the scripts in tools/ print of their own tests, and sum up, in KTAP.

# A line of KTAP. $1: the exit status
verdict()
{
	if [ "$1" = 0 ]; then echo "ok $2"; else echo "not ok $2"; fi
}

# Runs the command that builds module $2 for $1, and says whether there was a warning.
# Fails if there was.
build_verdict()
{
	local said status

	said=$("${@:3}" 2>&1 | grep -v -e '^$' -e 'Skipping BTF')
	[ -z "$said" ] || echo "$said"
	[ -z "$said" ] && [ -e "$2" ]
	status=$?
	verdict $status "build for $1 without a warning"
	return $status
}

# Copies KTAP, and adds how many seconds each program took
timed()
{
	local line name=- began=$SECONDS

	while IFS= read -r line || [ "$line" ]; do
		printf '%s\n' "$line"
		case $line in
		"# selftests: "*)
			name=${line##* }
			began=$SECONDS ;;
		"ok "*selftests:* | "not ok "*selftests:*)
			echo "# seconds $name $((SECONDS - began))" ;;
		esac
	done
}

# A table of what timed() has added to files of KTAP, ktap-RELEASE and
# ktap-PROGRAM-RELEASE: a line for each program, a column for each release
time_table()
{
	awk '
		/^# seconds / {
			release = FILENAME; sub(/.*ktap-((bench|crash|noipv6|sleep)-)?/, "", release)
			if (!($3 in seen)) { seen[$3]; program[++programs] = $3 }
			if (!(release in sum)) column[++columns] = release
			took[$3, release] = $4; sum[release] += $4
		}
		END {
			if (!programs) exit
			printf "\n%-16s", "seconds"
			for (c = 1; c <= columns; c++) printf " %10.10s", column[c]
			for (p = 1; p <= programs; p++) {
				printf "\n%-16s", program[p]
				for (c = 1; c <= columns; c++) printf " %10s", took[program[p], column[c]]
			}
			printf "\n%-16s", "all"
			for (c = 1; c <= columns; c++) printf " %10d", sum[column[c]]
			print "\n"
		}
	' "$@"
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
		/^(# )?ok / && !/selftests: / {
			if (/# SKIP/) skipped++; else { passed++; if (name !~ /build$/) ran++ }
			seen++
		}
		/^not ok .*selftests: / { programs++; if (!bad) { failed++; print "== " name ": " $0 } bad = seen = 0 }
		/^ok .*selftests: / { programs++; if (!seen) skipped++; bad = seen = 0 }
		END { end_of_file()
		      printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
		      exit !(ran && !failed) }
	' "$@"
}
