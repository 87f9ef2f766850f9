# SPDX-License-Identifier: GPL-2.0
#
# KTAP for the scripts in tools/: printing their own results, and summing up results

# Prints a line of KTAP. $1: the exit status; $2: the name of the test
verdict()
{
	if [ "$1" = 0 ]; then echo "ok $2"; else echo "not ok $2"; fi
}

# Builds module $2 for $1 by the command that follows, and prints a verdict. Fails if
# the command prints a warning or does not make the module.
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

# Copies KTAP, and adds how many seconds each program took.
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

# Prints a table of the seconds that timed() has added to the files ktap-RELEASE and
# ktap-PROGRAM-RELEASE, with a line for each program and a column for each release.
time_table()
{
	awk '
		/^# seconds / {
			release = FILENAME; sub(/.*ktap-((bench|crash|noipv6|packages|sleep)-)?/, "", release)
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

# Sums up KTAP files DIR/ktap-NAME of virtual machines, with consoles in
# DIR/console-NAME. ktap-build has no machine. Fails if a test failed or none passed.
#
# The results of a program's tests are in its output, after "# ". The lines after a
# failed test say why it failed, and are printed again. A program that fails without a
# failed test counts as one failure. A program without results that does not fail counts
# as skipped. A program that is planned but has not ended counts as a failure: the
# machine died.
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
