"""Sphinx configuration of the documentation's site: ``make docs``.

The pages are those of the repository, README first; it is the source folder, so that links between them are
the same here, on a forge and in an editor.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import stream_proxy

ROOT = Path(__file__).parent.parent
MERMAID = ROOT / "docs" / "_build" / "mermaid@11" / "package" / "dist"
_PAGES = {
    "Use": [
        "configuration",
        "operating",
        "scaling",
        "observing",
        "errors",
        "troubleshooting",
        "waiting",
        "capturing",
        "adapter",
        "websockets",
    ],
    "Details": [
        "conversion",
        "providers",
        "reliability",
        "performance",
        "comparison",
        "/SECURITY",
        "/CHANGELOG",
    ],
    "Develop": ["library", "api", "architecture", "twisted", "/CONTRIBUTING", "/kits/README"],
}

project = "openai-stream-proxy"
author = "the openai-stream-proxy authors"
release = stream_proxy.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinxcontrib.mermaid"]
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "kits/README.md"]
exclude_patterns = ["docs/_build", ".venv*", "*.egg-info"]

myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

html_theme = "furo"
html_title = project
html_copy_source = False
html_show_copyright = False
# The project's name in front of all signatures says nothing.
add_module_names = False

mermaid_height = "auto"
if MERMAID.is_dir():
    html_static_path = [str(MERMAID)]
    mermaid_use_local = "mermaid.esm.min.mjs"


def add_contents(app: Any, docname: str, source: list[str]) -> None:
    """Add the table of contents to the README, which has links in the text where there is no sidebar."""
    if docname == root_doc:
        for caption, names in _PAGES.items():
            pages = "\n".join(name if name.startswith("/") else f"/docs/{name}" for name in names)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{pages}\n```\n"


def add_index(app: Any, exception: Exception | None) -> None:
    """Serve the README as the site's first page."""
    if exception is None and app.builder.name == "html":
        shutil.copy(Path(app.outdir, "README.html"), Path(app.outdir, "index.html"))


def setup(app: Any) -> None:
    """Connect the hooks."""
    sys.path.insert(0, str(ROOT))
    app.connect("source-read", add_contents)
    app.connect("build-finished", add_index)
