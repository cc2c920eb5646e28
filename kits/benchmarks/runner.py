"""The rounds: everyone is started, each workload goes to each in turn, and so on again."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import trustme

from kits.benchmarks.check import Wrong, ask, check, text_of
from kits.benchmarks.contestants import Contestant, Upstreams
from kits.benchmarks.load import Failed, Figures, measure
from kits.benchmarks.native import program
from kits.benchmarks.processes import NotStarted, Process
from kits.benchmarks.workloads import Workload

HERE = Path(__file__).parent


@dataclass
class Results:
    """What came out, by workload and contestant.

    :ivar figures: by round.
    :ivar relayed: who relayed the stream where others made one answer of it.
    :ivar failures: why there are no figures, or not of each round.
    :ivar skipped: contestants that are not installed, and what they lack.
    """

    figures: dict[str, dict[str, dict[int, Figures]]] = field(default_factory=dict)
    relayed: set[tuple[str, str]] = field(default_factory=set)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    """A contestant that has been started; without a process it is nobody."""

    contestant: Contestant
    process: Process | None
    ports: dict[str, int]


class Runner:
    """A whole run.

    :param contestants: who takes part.
    :param workloads: what they do.
    :param cpu_seconds: how much CPU time each measurement should take.
    :param paced_events: how many events each paced stream has.
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
        """Do it all that often."""
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
            upstreams = self._start_upstreams(stack)
            for number in range(rounds):
                # Nobody always comes after the same other one.
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
                # Memory that others have used and given back would be taken again unseen.
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
        """Whether it is no use to try again."""
        return (workload.name, name) in self.results.failures and not self._known(workload, name)

    def _known(self, workload: Workload, name: str) -> list[Figures]:
        return list(self.results.figures.get(workload.name, {}).get(name, {}).values())

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
            least = workload.connections
            if known and known[-1].cpu_ms:
                seconds = known[-1].cpu_ms * workload.units / 1000
                return max(least, int(self._cpu_seconds / seconds))
            if seconds is None:
                return max(least, workload.warm * 10)
            # A warm-up shorter than the clock's tick says only that there can be many.
            return max(least, int(self._cpu_seconds / max(seconds, 0.01 / workload.warm)))

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
    """Tell how far we are."""
    print(text, file=sys.stderr, flush=True)
