"""Sphinx: HTML and man pages from one source (``make docs``)."""

from __future__ import annotations

import vmhost

project = "vmhost"
author = "the authors of vmhost"
copyright = author
release = version = vmhost.__version__

extensions = ["myst_parser", "sphinx_click"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]

html_theme = "furo"
html_title = f"vmhost {release}"
html_copy_source = False

man_pages = [
    ("manual/commands", "vmhost", "libvirt guests from a site file", "", 1),
    ("manual/site-keys", "vmhost-site", "site files of vmhost", "", 5),
]
