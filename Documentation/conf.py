# SPDX-License-Identifier: GPL-2.0
"""Sphinx: tools/docs.sh builds the pages."""
import pathlib

project = "minesp"
version = release = (pathlib.Path(__file__).parents[1] / "VERSION").read_text().strip()
html_theme = "alabaster"
html_show_copyright = False
html_copy_source = False
