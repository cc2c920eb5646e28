"""Process under test: its config, its resources, its log."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kits.processes import listens, process_tree

_BAD = re.compile(r"Traceback|Unhandled|something failed in the proxy|exceptions\.\w+Error")

_CALM_LOOKS = 10


class NotStarted(Exception):
    """A process that did not start to listen; the message states why."""


@dataclass(frozen=True)
class Sample:
    """The resources of the process and its workers: bytes of memory (Pss) and open descriptors."""

    seconds: float
    memory: int
    descriptors: int


class Proxy:
    """A process of ``twistd openai-stream-proxy`` with a config of its own.

    :param folder: the folder for the config and the log.
    :param config: the content of the config.
    """

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.config_path = folder / "config.json"
        self.log_path = folder / "proxy.log"
        self._workers: int = config.get("workers", 1)
        self.write(config)
        twistd = str(Path(sysconfig.get_path("scripts"), "twistd"))
        command = [twistd, "-n", "--pidfile=", "openai-stream-proxy", "-c", str(self.config_path)]
        environment = {name: value for name, value in os.environ.items() if name != "CONFIG_PATH"}
        with self.log_path.open("wb") as log:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**environment, "LOG_LEVEL": "info"},
                cwd=folder,
                start_new_session=True,
            )
        self._began = time.monotonic()

    def write(self, config: dict[str, Any]) -> None:
        """Replace the config file."""
        new = self.config_path.with_suffix(".new")
        new.write_text(json.dumps(config))
        new.replace(self.config_path)

    def reload(self) -> None:
        """Make the process read its config again."""
        self._popen.send_signal(signal.SIGHUP)

    @property
    def running(self) -> bool:
        """Whether the process is still running."""
        return self._popen.poll() is None

    def wait_for(self, ports: list[int], seconds: float = 20) -> None:
        """Return once the process listens on all `ports`, and opens no more descriptors of its own.

        :raises NotStarted: if it does not listen in time.
        """
        end = time.monotonic() + seconds
        for port in ports:
            while not listens(port):
                if not self.running or time.monotonic() > end:
                    raise NotStarted(f"nothing listens on {port}: {self.log_path.read_text()[-1000:]}")
                time.sleep(0.05)
        calm, last = 0, -1
        while calm < _CALM_LOOKS * self._workers:
            time.sleep(0.1)
            descriptors = self.sample().descriptors
            calm = calm + 1 if descriptors == last else 0
            last = descriptors

    def sample(self) -> Sample:
        """Return the current resources."""
        memory = descriptors = 0
        for pid in process_tree(self._popen.pid):
            try:
                memory += _pss(pid)
                descriptors += len(os.listdir(f"/proc/{pid}/fd"))
            except OSError:
                continue
        return Sample(time.monotonic() - self._began, memory, descriptors)

    def stop(self) -> int:
        """Stop the process in order; return its exit status."""
        if self.running:
            self._popen.terminate()
        try:
            return self._popen.wait(40)
        except subprocess.TimeoutExpired:
            os.killpg(self._popen.pid, signal.SIGKILL)
            return self._popen.wait()

    def complaints(self) -> list[str]:
        """Return the suspicious lines of the log, each with the lines around it."""
        lines = self.log_path.read_text("utf-8", "replace").splitlines()
        found = [number for number, line in enumerate(lines) if _BAD.search(line)]
        return ["\n".join(lines[max(0, number - 2) : number + 25]) for number in found[:3]]


def _pss(pid: int) -> int:
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def until(held: Callable[[], bool], seconds: float) -> bool:
    """Wait until the condition holds; return whether it finally did."""
    end = time.monotonic() + seconds
    while not held():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
