"""Memory of processes, read from /proc."""

from __future__ import annotations

import re
from pathlib import Path


def _status(pid: int, name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def peak_memory(pid: int) -> int:
    """Return the peak resident memory of a process, in bytes."""
    return _status(pid, "VmHWM")


def resident_memory(pid: int) -> int:
    """Return the current resident memory of a process, in bytes."""
    return _status(pid, "VmRSS")
