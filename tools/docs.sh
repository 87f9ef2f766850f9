#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# make docs: builds Documentation/ as HTML in build/docs, in the root trixie, and checks
# the manual pages and the spelling. Fails if any of these gives a warning.

. "$(dirname "$0")/roots.sh"

enter_root trixie codespell mandoc python3-sphinx || exit

status=0
rm -rf build/docs
# -n also warns about broken references.
sphinx-build -q -n -W --keep-going Documentation build/docs || status=1
mandoc -T lint -W warning Documentation/*.[578] || status=1
codespell -L nd,racoon README Documentation || status=1
[ $status = 0 ] && step "the documentation is in build/docs/index.html"
exit $status
