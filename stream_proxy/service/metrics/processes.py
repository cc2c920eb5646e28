"""Figures of processes, read from ``/proc``, under the names that all exporters use.

prometheus_client's own collector lists all descriptors to count them, which takes 7 ms for 10,000.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from pathlib import Path

from stream_proxy.observe.metrics.cells import Labels
from stream_proxy.observe.metrics.families import Family
from stream_proxy.observe.metrics.series import Series, Value

_WORKER = ("worker",)
_FAMILIES = (
    Family("counter", "process_cpu_seconds_total", "User and system CPU time.", _WORKER),
    Family("gauge", "process_resident_memory_bytes", "Resident memory.", _WORKER),
    Family("gauge", "process_virtual_memory_bytes", "Virtual memory.", _WORKER),
    Family("gauge", "process_start_time_seconds", "When it started, since the epoch.", _WORKER),
    Family("gauge", "process_open_fds", "Open file descriptors.", _WORKER),
    Family("gauge", "process_max_fds", "How many of them may be open.", _WORKER),
)
# Fields of /proc/PID/stat after the name in parentheses (proc(5)).
_USER, _SYSTEM, _START, _VIRTUAL, _RESIDENT = 11, 12, 19, 20, 21


class Processes:
    """Reader of the figures of processes; a system without ``/proc`` has none."""

    def __init__(self) -> None:
        self._page = resource.getpagesize()
        self._ticks = os.sysconf("SC_CLK_TCK")
        self._booted = _boot_time()

    def series(self, pids: Mapping[str, int]) -> list[Series]:
        """Return the families of processes, by the names of these; those that are gone have nothing."""
        found: list[tuple[Family, list[tuple[Labels, Value]]]] = [(family, []) for family in _FAMILIES]
        for worker, pid in pids.items():
            try:
                values = self._values(Path(f"/proc/{pid}"))
            except (OSError, IndexError, ValueError):
                continue
            for (_, samples), value in zip(found, values, strict=True):
                samples.append(((worker,), value))
        return [(family, samples) for family, samples in found if samples]

    def _values(self, process: Path) -> tuple[float, ...]:
        fields = (process / "stat").read_bytes().rpartition(b")")[2].split()
        limits = (process / "limits").read_bytes().partition(b"Max open files")[2].split()
        return (
            (int(fields[_USER]) + int(fields[_SYSTEM])) / self._ticks,
            int(fields[_RESIDENT]) * self._page,
            int(fields[_VIRTUAL]),
            self._booted + int(fields[_START]) / self._ticks,
            _open_files(process / "fd"),
            float("inf") if limits[0] == b"unlimited" else int(limits[0]),
        )


def _open_files(directory: Path) -> int:
    """Return how many descriptors a process has; Linux 6.2 and newer know it without a list."""
    return directory.stat().st_size or len(os.listdir(directory))


def _boot_time() -> float:
    """Return when the system was started, since the epoch."""
    try:
        return int(Path("/proc/stat").read_bytes().partition(b"\nbtime ")[2].split()[0])
    except (OSError, IndexError, ValueError):
        return 0.0
