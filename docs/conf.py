"""How Sphinx makes the site: `make docs`, or `python -m sphinx -W --keep-going docs build/site`.

Pages are Markdown (MyST), API pages come from the docstrings of what is imported, and a script in gallery/ is a page:
its docstring and its ``# %%`` comments are text, the rest is code. Nothing is fetched, neither here nor by a reader.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / part) for part in ("scripts", "src")]

import site_parts
from sphinx.ext.autodoc.mock import MockFinder

import torchshrink

# Bases of callbacks, and types: stand-ins, since importing the frameworks takes longer than everything else here.
sys.meta_path.insert(0, MockFinder(["lightning", "transformers", "skorch"]))

project = "torchshrink"
author = "The torchshrink developers"
version = release = torchshrink.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
default_role = "code"  # a name in single backticks
source_suffix = {".md": "markdown", ".py": "gallery"}
exclude_patterns = ["conf.py"]
suppress_warnings = ["config.cache"]

myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]

add_module_names = False
python_use_unqualified_type_names = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the text says shapes and units, which a type does not
napoleon_custom_sections = [("Source", "returns_style"), ("Methods", "returns_style")]

html_theme = "furo"
html_title = "torchshrink"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_theme_options = {"footer_icons": []}


def setup(app: Any) -> None:
    """Gallery scripts are pages, and formulas in docstrings are no reStructuredText."""
    app.add_source_parser(site_parts.GalleryParser)
    app.connect("source-read", site_parts.tutorial)
    app.connect("autodoc-process-docstring", site_parts.literal_bars, priority=0)
    app.connect("autodoc-process-docstring", site_parts.whole_sentences, priority=900)  # after napoleon
    app.connect("autodoc-skip-member", site_parts.foreign)
