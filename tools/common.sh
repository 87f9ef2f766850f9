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

# The releases of the installed headers, such as 6.1.0-9-amd64
releases()
{
	dpkg-query -W -f '${Depends}\n' $HEADERS |
		sed -n 's/.*linux-headers-\([^ ]*\).*/\1/p' | sort -V
}

# Builds the module for a release in build/RELEASE. Further words go to make.
build()
{
	local dir=build/$1

	mkdir -p "$dir"
	rsync -a --include='*/' --include='*.[ch]' --include=Kbuild \
		--exclude='*' Kbuild minesp include "$dir/"
	make -s -C "/lib/modules/$1/build" M="$PWD/$dir" "${@:2}"
}
