"""The programs in C, compiled where they are older than their sources."""

from __future__ import annotations

import subprocess
from pathlib import Path

HERE = Path(__file__).parent
BUILD = HERE / "build"
_PROGRAMS = {"mock-upstream": ("upstream.c", "prepared.c"), "load": ("load.c",)}


def program(name: str) -> Path:
    """The executable of that name, up to date.

    :raises SystemExit: it cannot be compiled.
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
