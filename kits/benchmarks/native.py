"""Native programs in C, compiled when they are older than their sources."""

from __future__ import annotations

import subprocess
from pathlib import Path

HERE = Path(__file__).parent
BUILD = HERE / "build"
_PROGRAMS = {"mock-upstream": ("upstream.c", "prepared.c"), "load": ("load.c",)}


def program(name: str) -> Path:
    """Return the up-to-date executable with this name.

    :raises SystemExit: if it cannot be compiled.
    """
    sources = HERE / "native"
    target = BUILD / name
    newest = max(path.stat().st_mtime for path in sources.iterdir())
    if not target.exists() or target.stat().st_mtime < newest:
        BUILD.mkdir(exist_ok=True)
        files = [str(sources / source) for source in _PROGRAMS[name]]
        command = ["gcc", "-O2", "-Wall", "-Wextra", "-o", str(target), *files]
        try:
            subprocess.run(command, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(f"cannot compile {name}: {error}; a C compiler called gcc is needed") from None
    return target
