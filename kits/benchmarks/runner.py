"""Rounds: all contestants are started, and each workload is run with each of them in turn."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import trustme

from kits.benchmarks.check import Wrong, ask, check, text_of
from kits.benchmarks.contestants import Contestant, Upstreams
from kits.benchmarks.load import Failed, measure
from kits.benchmarks.native import program
from kits.benchmarks.processes import NotStarted, Process
from kits.benchmarks.results import Figures, Results
from kits.benchmarks.workloads import Workload

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Running:
    """A started contestant; without a process, the client asks the upstream itself."""

    contestant: Contestant
    process: Process | None
    ports: dict[str, int]


class Runner:
    """A whole run.

    :param contestants: the participants.
    :param workloads: their tasks.
    :param cpu_seconds: the CPU time that each measurement should take.
    :param paced_events: the number of events in each paced stream.
    """

    def __init__(
        self,
        contestants: Sequence[Contestant],
        workloads: Sequence[Workload],
        *,
        cpu_seconds: float,
        paced_events: int,
    ) -> None:
        self.results = Results()
        self._workloads = workloads
        self._contestants = []
        for contestant in contestants:
            lacks = contestant.missing()
            if lacks:
                self.results.skipped[contestant.name] = lacks
                say(f"{contestant.name} is skipped: it needs {lacks}")
            else:
                self._contestants.append(contestant)
        self._cpu_seconds = cpu_seconds
        self._paced_events = paced_events
        self._checked: set[tuple[str, str]] = set()
        self._texts: dict[str, str] = {}
        self._folder = Path()
        self._upstreams: list[Process] = []

    def run(self, rounds: int) -> Results:
        """Run the rounds and return the results."""
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
            upstreams = self._start_upstreams(stack)
            for number in range(rounds):
                # The order rotates, so that no contestant always follows the same other one.
                turn = number % len(self._contestants) if self._contestants else 0
                order = self._contestants[turn:] + self._contestants[:turn]
                with ExitStack() as contest:
                    say(f"round {number + 1} of {rounds}")
                    self._round(number, order, upstreams, contest)
        return self.results

    def _start_upstreams(self, stack: ExitStack) -> Upstreams:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self._folder / "authority.pem")
        certificate = self._folder / "certificate.pem"
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
        plain = self._process(stack, "upstream", [str(program("mock-upstream"))])
        port = int(plain.first_line())
        front = [sys.executable, str(HERE / "tls_upstream.py"), str(port), str(certificate)]
        tls = self._process(stack, "tls-upstream", front)
        self._upstreams = [plain, tls]
        return Upstreams(port, int(tls.first_line()), self._folder / "authority.pem")

    def _process(
        self, stack: ExitStack, name: str, command: Sequence[str], env: dict[str, str] | None = None
    ) -> Process:
        folder = self._folder / name.replace("/", "_")
        folder.mkdir(exist_ok=True)
        process = Process(name, command, folder / "output", env or {})
        stack.callback(process.stop)
        return process

    def _start(self, contestant: Contestant, upstreams: Upstreams, stack: ExitStack) -> Running | None:
        folder = self._folder / contestant.name.replace("/", "_")
        folder.mkdir(exist_ok=True)
        start = contestant.start(upstreams, folder)
        if start is None:
            return Running(contestant, None, {"tcp": upstreams.tcp_port})
        try:
            process = self._process(stack, contestant.name, start.command, dict(start.env))
            process.wait_for(list(start.ports.values()), start.seconds)
        except (OSError, NotStarted) as error:
            self.results.skipped[contestant.name] = f"a way to start: {error}"
            say(f"{contestant.name} is skipped: {error}")
            return None
        return Running(contestant, process, dict(start.ports))

    def _round(
        self, number: int, order: Sequence[Contestant], upstreams: Upstreams, stack: ExitStack
    ) -> None:
        started = [self._start(contestant, upstreams, stack) for contestant in order]
        for workload in self._workloads:
            for running in filter(None, started):
                for upstream in self._upstreams:
                    upstream.check()
                if running.contestant.can(workload) and (workload.kind != "hold" or running.process):
                    say(f"  {workload.name}, {running.contestant.name}")
                    self._turn(number, workload, running, upstreams)

    def _turn(self, number: int, workload: Workload, running: Running, upstreams: Upstreams) -> None:
        name = running.contestant.name
        if self._failed(workload, name):
            return
        try:
            if workload.kind == "hold":
                # A fresh process: one that has grown before would serve held connections from memory already
                # counted.
                with ExitStack() as stack:
                    fresh = self._start(running.contestant, upstreams, stack)
                    if fresh is None:
                        return
                    figures = self._measured(workload, fresh, upstreams)
            else:
                figures = self._measured(workload, running, upstreams)
        except (Failed, Wrong) as error:
            self.results.failures[workload.name, name] = str(error)
            say(f"    failed: {error}")
            return
        self.results.figures.setdefault(workload.name, {}).setdefault(name, {})[number] = figures

    def _failed(self, workload: Workload, name: str) -> bool:
        """Report whether another attempt would be futile."""
        return (workload.name, name) in self.results.failures and not self._known(workload, name)

    def _known(self, workload: Workload, name: str) -> list[Figures]:
        return list(self.results.of(workload.name, name).values())

    def _measured(self, workload: Workload, running: Running, upstreams: Upstreams) -> Figures:
        target = workload.paced_target(self._paced_events)
        port = running.ports[workload.leg]
        if workload.kind == "events" and running.contestant.paced_streams:
            workload = replace(workload, connections=running.contestant.paced_streams)
        if workload.kind == "http" and not workload.upload:
            self._check(workload, running, upstreams, port)
        request = self._folder / "request"
        request.write_bytes(running.contestant.request(workload, target, upstreams).wire())
        known = self._known(workload, running.contestant.name)

        def count_for(seconds: float | None) -> int:
            least, most = workload.connections, workload.most or sys.maxsize
            if known and known[-1].cpu_ms:
                seconds = known[-1].cpu_ms * workload.units / 1000
                return min(most, max(least, int(self._cpu_seconds / seconds)))
            if seconds is None:
                return min(most, max(least, workload.warm * 10))
            return min(most, max(least, int(self._cpu_seconds / max(seconds, 1e-6))))

        return measure(
            workload, running.process, port, request, count_for=count_for, events=self._paced_events
        )

    def _check(self, workload: Workload, running: Running, upstreams: Upstreams, port: int) -> None:
        name = running.contestant.name
        if (workload.name, name) in self._checked:
            return
        if workload.name not in self._texts:
            plain = Contestant("direct").request(workload, workload.target, upstreams)
            self._texts[workload.name] = text_of(*ask(upstreams.tcp_port, plain))
        request = running.contestant.request(workload, workload.target, upstreams)
        streamed = check(port, request, self._texts[workload.name])
        if streamed and not (workload.body or {}).get("stream"):
            self.results.relayed.add((workload.name, name))
        self._checked.add((workload.name, name))


def say(text: str) -> None:
    """Print progress."""
    print(text, file=sys.stderr, flush=True)
