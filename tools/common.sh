# SPDX-License-Identifier: GPL-2.0
#
# What the scripts in tools/ share. They run in the project's top folder.

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

# All processes that process $1 has started, and those that these have started
descendants()
{
	local child

	# shellcheck disable=SC2013	# words, on one line
	for child in $(cat /proc/"$1"/task/*/children 2> /dev/null); do
		echo "$child"
		descendants "$child"
	done
}

# From now on everything that this script has started ends with it. bash runs no trap while
# it waits for a command in the foreground, so long commands are started with & first.
end_together()
{
	trap 'kill $(descendants $$) 2> /dev/null' EXIT
	trap 'exit 1' INT TERM HUP
}

# Runs a command in the background as soon as fewer than LANES are running
start()
{
	while [ "$(jobs -rp | wc -l)" -ge "$LANES" ]; do
		wait -n
	done
	"$@" < /dev/null &
}

# One script at a time builds and tests in this checkout, with those that it calls. The
# lock is held until the last process that it has started ends.
lock_checkout()
{
	[ "${MINESP_LOCKED:-}" ] && return
	mkdir -p build
	exec 8> build/lock
	flock -n 8 || { step "waiting for another script in this checkout"; flock 8; }
	export MINESP_LOCKED=1
}

# The Debian packages among those named after $1 that are not installed there. $1 is
# the top folder of an installed Debian: / is this host.
not_installed()
{
	local package

	for package in "${@:2}"; do
		[ "$(dpkg-query --admindir="$1/var/lib/dpkg" -W -f '${db:Status-Status}' \
			"$package" 2> /dev/null)" = installed ] || echo "$package"
	done
}

# Installs on this host the Debian packages that are missing, after it has said which.
# Each is given as PACKAGE:COMMAND, or PACKAGE if it has no command. Where there is no
# dpkg, the script ends and says which commands are missing.
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
