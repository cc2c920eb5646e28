"""Stage of a run: the upstreams, and the contestants between them and the load generator."""

from __future__ import annotations

import resource
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import trustme

from kits.benchmarks.contestants.base import Contestant, Upstreams
from kits.benchmarks.native import program
from kits.benchmarks.processes import NotStarted, Process

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Running:
    """A started contestant; without a process, the client asks the upstream itself."""

    contestant: Contestant
    process: Process | None
    ports: dict[str, int]

    @property
    def name(self) -> str:
        """The contestant's name."""
        return self.contestant.name


class Stage:
    """The upstreams of a run and its folder of files.

    :param stack: what ends with it: the upstreams stop, and the folder is removed.
    """

    def __init__(self, stack: ExitStack) -> None:
        # The processes inherit the limit; a crowd of streams takes two descriptors each.
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.folder / "authority.pem")
        certificate = self.folder / "certificate.pem"
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
        plain = self._process(stack, "upstream", [str(program("mock-upstream"))])
        port = int(plain.first_line())
        front = [sys.executable, str(HERE / "tls_upstream.py"), str(port), str(certificate)]
        tls = self._process(stack, "tls-upstream", front)
        self._processes = [plain, tls]
        self.upstreams = Upstreams(port, int(tls.first_line()), self.folder / "authority.pem")

    def check(self) -> None:
        """Check that the upstreams are still running.

        :raises RuntimeError: if one is not.
        """
        for process in self._processes:
            process.check()

    def start(self, contestant: Contestant, stack: ExitStack) -> Running:
        """Start a contestant, which stops with `stack`.

        :raises NotStarted: if it does not listen in time.
        """
        folder = self.folder / contestant.name.replace("/", "_")
        folder.mkdir(exist_ok=True)
        start = contestant.start(self.upstreams, folder)
        if start is None:
            return Running(contestant, None, {"tcp": self.upstreams.tcp_port})
        try:
            process = self._process(stack, contestant.name, start.command, dict(start.env))
        except OSError as error:
            raise NotStarted(str(error)) from None
        process.wait_for(list(start.ports.values()), start.seconds)
        return Running(contestant, process, dict(start.ports))

    def _process(
        self, stack: ExitStack, name: str, command: Sequence[str], env: dict[str, str] | None = None
    ) -> Process:
        folder = self.folder / name.replace("/", "_")
        folder.mkdir(exist_ok=True)
        process = Process(name, command, folder / "output", env or {})
        stack.callback(process.stop)
        return process
