#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# root.sh ROOT [COMMAND]: runs a shell command, or an interactive shell, in a Debian
# root file system in build/roots: bookworm or trixie. Makes it if it does not exist.
# This checkout is /minesp there.

. "$(dirname "$0")/roots.sh"

root=${1:?usage: root.sh ROOT [COMMAND]}; shift
[ -e "build/roots/$root" ] || tools/setup.sh "$root" || exit
in_root "$root" "${*:-exec bash -i}"
