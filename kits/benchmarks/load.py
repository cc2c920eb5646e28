"""Measurements: the load generator runs, and the contestant's CPU time and memory are read."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kits.benchmarks.native import program
from kits.benchmarks.processes import Process
from kits.benchmarks.results import Figures
from kits.benchmarks.workloads import Workload

#: The time after which a measurement counts as failed.
LIMIT_SECONDS = 90.0


class Failed(Exception):
    """A failure of the load generator; the message states the reason."""


class Generator:
    """A running load generator.

    :param arguments: its command line.
    :param limit: the seconds after which it is stopped.
    """

    def __init__(self, *arguments: object, limit: float = LIMIT_SECONDS) -> None:
        command = [str(program("load")), *map(str, arguments)]
        self._popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._late = False
        self._limit = limit
        self._watchdog = threading.Timer(limit, self._kill)
        self._watchdog.start()

    def _kill(self) -> None:
        self._late = True
        self._popen.kill()

    def _wait(self) -> str:
        """Wait for its end and return its standard error."""
        assert self._popen.stderr is not None
        with self._popen:
            errors = self._popen.stderr.read()
        self._watchdog.cancel()
        return errors

    def _fail(self) -> Failed:
        self._popen.kill()
        errors = self._wait()
        if self._late:
            return Failed(f"took longer than {self._limit:.0f} s")
        return Failed(" ".join(errors.split())[:300] or "the load generator ended early")

    def expect(self, word: str) -> None:
        """Wait for this word on its standard output.

        :raises Failed: if it prints something else, or ends.
        """
        assert self._popen.stdout is not None
        if self._popen.stdout.readline().strip() != word:
            raise self._fail()

    def tell(self, text: str) -> None:
        """Send it a line."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(f"{text}\n")
        self._popen.stdin.flush()

    def release(self) -> None:
        """Close its standard input."""
        assert self._popen.stdin is not None
        self._popen.stdin.close()

    def result(self) -> dict[str, Any]:
        """Wait for its result and return it.

        :raises Failed: if something went wrong.
        """
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        if not line:
            raise self._fail()
        errors = self._wait()
        result: dict[str, Any] = json.loads(line)
        if result["errors"]:
            raise Failed(
                f"{result['errors']} of {result['count']} went wrong: {' '.join(errors.split())[:300]}"
            )
        return result


def measure(
    workload: Workload,
    process: Process | None,
    port: int,
    request: Path,
    *,
    count_for: Callable[[float | None], int],
    events: int,
) -> Figures:
    """Put a contestant under one load.

    :param process: the contestant; ``None`` if there is none in between.
    :param port: the port on which it listens.
    :param request: the file with the request.
    :param count_for: returns the number of requests, given the CPU seconds of one request during the warm-up.
    :param events: the length of paced streams.
    :raises Failed: if it could not be measured.
    """

    def cpu() -> float:
        return process.cpu_seconds() if process else 0.0

    if workload.kind == "hold":
        return _measure_held(workload, process, port, request)
    if workload.kind == "events":
        generator = Generator("events", port, workload.connections, events, request)
        generator.expect("begin")
        before = cpu()
        generator.expect("end")
        used = cpu() - before
    else:
        more = (workload.upload,) if workload.kind == "http" else (workload.size, workload.window)
        begun = cpu()
        generator = Generator(workload.kind, port, workload.connections, workload.warm, request, *more)
        generator.expect("warm")
        before = cpu()
        generator.tell(str(count_for((before - begun) / workload.warm if process else None)))
    result = generator.result()
    if workload.kind != "events":
        used = cpu() - before
    count = result["count"]
    if not count:
        raise Failed("nothing was measured")
    return Figures(
        count,
        result["nanoseconds"] / 1e9,
        used * 1000 / (count * workload.units) if process else None,
        result["p50"] / 1e6,
        result["p99"] / 1e6,
        process.resident_bytes() / 2**20 if process else None,
    )


def _measure_held(workload: Workload, process: Process | None, port: int, request: Path) -> Figures:
    """Measure the memory of open connections, after a few of them have come and gone."""
    resident = []
    for connections in (20, workload.connections):
        if process:
            resident.append(process.resident_bytes())
        generator = Generator("hold", port, connections, request)
        generator.expect("held")
        if process:
            resident.append(process.resident_bytes())
        generator.release()
        result = generator.result()
    held = (resident[3] - resident[2]) / workload.connections / 1024 if process else None
    return Figures(result["count"], 0.0, resident_mib=resident[3] / 2**20 if process else None, held_kib=held)
