"""The real process: its config, what it takes of the machine, what it writes."""

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
    """It did not start to listen; the text says why."""


@dataclass(frozen=True)
class Sample:
    """What the process and its workers had at one time: bytes of memory (Pss), open descriptors."""

    seconds: float
    memory: int
    descriptors: int


class Proxy:
    """``twistd openai-stream-proxy`` with a config of its own.

    :param folder: for the config and the log.
    :param config: what it says.
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
        """Tell it that there is another config."""
        self._popen.send_signal(signal.SIGHUP)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    def wait_for(self, ports: list[int], seconds: float = 20) -> None:
        """Return when it listens on all `ports`, and has long opened what it opens while it starts.

        :raises NotStarted: it does not.
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
        """What it has now."""
        memory = descriptors = 0
        for pid in process_tree(self._popen.pid):
            try:
                memory += _pss(pid)
                descriptors += len(os.listdir(f"/proc/{pid}/fd"))
            except OSError:
                continue
        return Sample(time.monotonic() - self._began, memory, descriptors)

    def stop(self) -> int:
        """End it in order; its exit status."""
        if self.running:
            self._popen.terminate()
        try:
            return self._popen.wait(40)
        except subprocess.TimeoutExpired:
            os.killpg(self._popen.pid, signal.SIGKILL)
            return self._popen.wait()

    def complaints(self) -> list[str]:
        """The lines of the log that should not be there, each with some that follow."""
        lines = self.log_path.read_text("utf-8", "replace").splitlines()
        found = [number for number, line in enumerate(lines) if _BAD.search(line)]
        return ["\n".join(lines[max(0, number - 2) : number + 25]) for number in found[:3]]


def _pss(pid: int) -> int:
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def until(held: Callable[[], bool], seconds: float) -> bool:
    """Wait until `held` says yes; whether it did."""
    end = time.monotonic() + seconds
    while not held():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
