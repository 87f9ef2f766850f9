# SPDX-License-Identifier: GPL-2.0
#
# Functions for the scripts in tools/, which run in the project's top folder.

set -uo pipefail
umask 022
unset CDPATH
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
case $PWD in *[!A-Za-z0-9._+@/-]*)
	echo "$PWD: QEMU needs a path without spaces and special characters" >&2
	exit 1 ;;
esac

step()
{
	echo "== $*"
}

die()
{
	echo "$(basename "$0"): $*" >&2
	exit 1
}

# Prints the pids of all descendants of process $1.
descendants()
{
	local child

	# shellcheck disable=SC2013	# words, on one line
	for child in $(cat /proc/"$1"/task/*/children 2> /dev/null); do
		echo "$child"
		descendants "$child"
	done
}

# Makes all processes that this script starts end with it. bash runs no trap while it
# waits for a command in the foreground, so callers start long commands with & and wait.
end_together()
{
	trap 'kill $(descendants $$) 2> /dev/null' EXIT
	trap 'exit 1' INT TERM HUP
}

# Runs a command in the background as soon as fewer than LANES are running.
start()
{
	while [ "$(jobs -rp | wc -l)" -ge "$LANES" ]; do
		wait -n
	done
	"$@" < /dev/null &
}

# Ensures that only one script, with the scripts that it calls, uses this checkout. The
# lock is held until the last process that the script has started ends.
lock_checkout()
{
	[ "${MINESP_LOCKED:-}" ] && return
	mkdir -p build
	exec 8> build/lock
	flock -n 8 || { step "waiting for another script in this checkout"; flock 8; }
	export MINESP_LOCKED=1
}

# Prints the Debian packages that are not installed in $1, the top folder of a Debian; /
# is this host. Further words: the packages to look for
not_installed()
{
	local package

	for package in "${@:2}"; do
		[ "$(dpkg-query --admindir="$1/var/lib/dpkg" -W -f '${db:Status-Status}' \
			"$package" 2> /dev/null)" = installed ] || echo "$package"
	done
}

# Prints which Debian packages are missing on this host, and installs them. Each
# argument is PACKAGE:COMMAND, or PACKAGE if it has no command. Without dpkg, a missing
# command ends the script, with a message that names it.
host_packages()
{
	local missing word

	if [ ! -e /var/lib/dpkg/status ]; then
		missing=$(for word in "$@"; do
			PATH=$PATH:/usr/sbin:/sbin type -P "${word#*:}" > /dev/null ||
				[ "$word" = "${word#*:}" ] || echo "${word#*:}"
		done | xargs)
		[ -z "$missing" ] || die "this host is missing $missing; install what has them"
		return 0
	fi
	missing=$(for word in "$@"; do
		[ "$word" != "${word#*:}" ] &&
			PATH=$PATH:/usr/sbin:/sbin type -P "${word#*:}" > /dev/null ||
			not_installed / "${word%:*}"
	done | xargs)
	[ "$missing" ] || return 0
	step "installing on this host: $missing"
	[ "$(id -u)" = 0 ] || die "needs root for that; or install these packages yourself"
	export DEBIAN_FRONTEND=noninteractive
	apt-get -q update &&
		apt-get -q -o DPkg::Lock::Timeout=600 install -y --no-install-recommends $missing ||
		die "apt-get failed: see above; then try again"
}
