"""Build of the compiled wheel: with ``STREAM_PROXY_COMPILED=1`` mypyc compiles what pyproject.toml lists.

Without it the wheel is plain Python. All metadata is in pyproject.toml.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from setuptools import setup


def compiled() -> dict[str, Any]:
    """Return what a compiled wheel adds to the arguments of ``setup``."""
    settings = tomllib.loads(Path("pyproject.toml").read_text())["tool"]["openai-stream-proxy"]
    try:
        from mypyc.build import mypycify
    except ModuleNotFoundError:
        # The first of two calls in a build environment asks what is to be installed there for the second.
        return {"setup_requires": settings["compiler"]}
    found = {str(path) for pattern in settings["compiled"] for path in Path().glob(pattern)}
    paths = sorted(found.difference(settings["interpreted"]))
    # Types come from the product's code alone: what is compiled does not depend on the libraries around.
    options = ["--config-file=", "--follow-imports=silent", "--ignore-missing-imports", "--no-site-packages"]
    return {"ext_modules": mypycify([*options, *paths], group_name="stream_proxy")}


setup(**(compiled() if os.environ.get("STREAM_PROXY_COMPILED") == "1" else {}))
