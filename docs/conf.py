"""The documentation site: ``scripts/docs`` builds it, and a warning is an error."""

from __future__ import annotations

import re
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "retom"
copyright = "the authors of retom"
version = release = version_of("retom")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.doctest",
    "sphinx_copybutton",
    "sphinxarg.ext",
]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"retom {release}"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_use_ivar = True
copybutton_prompt_text = r"\$ "
# Names in annotations that are imported for type checking alone.
suppress_warnings = ["sphinx_autodoc_typehints.forward_reference"]


def _plain(app: Sphinx, name: str, source: list[str]) -> None:
    """Links to files beside the documents lead nowhere on the site: keep their words."""
    source[0] = re.sub(r"\[([^\]]*)\]\((?:\.\./)+[^)]*\)", r"\1", source[0])


def setup(app: Sphinx) -> None:
    """Connect the above."""
    app.connect("source-read", _plain)
