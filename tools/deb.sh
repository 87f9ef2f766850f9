#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# make deb: builds the Debian packages minesp and minesp-dkms from this checkout, in the
# root trixie. Checks them with lintian. They are in build/deb.
#
# deb.sh [SUFFIX]: adds SUFFIX to the version, for tests of upgrades.

. "$(dirname "$0")/roots.sh"

enter_root trixie build-essential debhelper dh-dkms dpkg-dev lintian rsync || exit

version=$(cat VERSION)${1:-}
source=build/deb/minesp-$version
rm -rf build/deb
mkdir -p $source
rsync -a --include='*.[ch578]' --include='*.rst' --include='*.in' --include='*.bash' \
	--include=Kbuild --include='*/' --exclude=/build --exclude='*' --prune-empty-dirs \
	minesp include Documentation tools $source/ &&
	cp -r debian COPYING Kbuild Makefile README VERSION dkms.conf $source/ ||
	die "cannot copy the source"
maintainer=$(sed -n 's/^Maintainer: //p' debian/control)
cat > $source/debian/changelog <<-END
	minesp ($version) unstable; urgency=medium

	  * What has changed is in git log.

	 -- $maintainer  $(date -R -d @"${SOURCE_DATE_EPOCH:-$(stat -c %Y VERSION)}")
END
step "building the packages"
(cd $source && dpkg-buildpackage -us -uc -b > ../log 2>&1) ||
	{ tail -n 30 build/deb/log; die "cannot build the packages: see build/deb/log"; }
lintian --fail-on error -X binaries/hardening build/deb/*.changes || die "lintian has found errors"
ls build/deb/*.deb
