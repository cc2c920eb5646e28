"""Processes of the benchmark: started, measured through /proc, stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from kits.processes import listens, process_tree

_PAGE = os.sysconf("SC_PAGE_SIZE")


class NotStarted(Exception):
    """A process that ended, or did not listen in time; the message has the end of its output."""


class Process:
    """A process and its children, in a process group of their own.

    :param name: its name in messages.
    :param command: the program and its arguments.
    :param output: the file that receives its output.
    :param env: additions to this process's environment.
    """

    def __init__(self, name: str, command: Sequence[str], output: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self._output = output
        with output.open("wb") as file:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                cwd=output.parent,
                start_new_session=True,
            )

    def wait_for(self, ports: Sequence[int], seconds: float) -> None:
        """Return once something accepts connections on every port.

        :raises NotStarted: if nothing does in time.
        """
        end = time.monotonic() + seconds
        for port in ports:
            while not listens(port):
                status = self._popen.poll()
                if status is not None or time.monotonic() > end:
                    raise NotStarted(self._failure(status))
                time.sleep(0.05)

    def first_line(self, seconds: float = 10) -> str:
        """Return the first line of its output.

        :raises NotStarted: if there is none in time.
        """
        end = time.monotonic() + seconds
        while b"\n" not in (written := self._output.read_bytes()):
            if self._popen.poll() is not None or time.monotonic() > end:
                raise NotStarted(self._failure(self._popen.poll()))
            time.sleep(0.01)
        return written.split(b"\n", 1)[0].decode()

    def _failure(self, status: int | None) -> str:
        what = "does not listen" if status is None else f"ended with {status}"
        written = self._output.read_text("utf-8", "replace").strip()[-600:]
        return f"{self.name} {what}: {written}"

    def check(self) -> None:
        """Check that it is still running.

        :raises RuntimeError: if it is not.
        """
        if self._popen.poll() is not None:
            raise RuntimeError(self._failure(self._popen.returncode))

    def cpu_seconds(self) -> float:
        """Return the user and system time of the process and its living children."""
        return sum(_cpu_seconds(pid) for pid in process_tree(self._popen.pid))

    def resident_bytes(self) -> int:
        """Return the resident memory of the process and its children; shared pages count for each of them."""
        total = 0
        for pid in process_tree(self._popen.pid):
            try:
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            except OSError:
                continue
        return total * _PAGE

    def stop(self) -> None:
        """Stop the process and its children."""
        for number, seconds in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
            try:
                os.killpg(self._popen.pid, number)
                self._popen.wait(seconds)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self._popen.wait()


def _cpu_seconds(pid: int) -> float:
    """Return the user and system time of a process, 0 if it is gone.

    Linux numbers the CPU clock of a process like this (clock_getcpuclockid(3)). It counts nanoseconds, where
    /proc/PID/stat counts hundredths of a second.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0
