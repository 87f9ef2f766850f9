# SPDX-License-Identifier: GPL-2.0
#
# What the scripts in tools/ share. They run in the project's top folder.

set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

step()
{
	echo "== $*"
}

die()
{
	echo "$(basename "$0"): $*" >&2
	exit 1
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
# Each is given as PACKAGE:COMMAND, or PACKAGE if it has no command; where there is no
# dpkg, it says which commands are missing.
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
	missing=$(not_installed / "${@%:*}" | xargs)
	[ "$missing" ] || return 0
	step "installing on this host: $missing"
	[ "$(id -u)" = 0 ] || die "needs root for that; or install these packages yourself"
	export DEBIAN_FRONTEND=noninteractive
	apt-get -q update && apt-get -q install -y --no-install-recommends $missing ||
		die "apt-get failed: see above; then try again"
}
