#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# root.sh ROOT [COMMAND]: runs a shell command, or a shell, in one of the Debian root file
# systems in build/roots, which is made if it does not exist: bookworm or trixie. This
# checkout is /minesp there.

. "$(dirname "$0")/roots.sh"

root=${1:?usage: root.sh ROOT [COMMAND]}; shift
[ -e "build/roots/$root" ] || tools/setup.sh "$root" || exit
in_root "$root" "${*:-exec bash -i}"
