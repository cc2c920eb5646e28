"""Rounds: all contestants are started, and each workload is run with each of them in turn."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from kits.benchmarks.check import Wrong, ask, check, text_of
from kits.benchmarks.contestants.base import DIRECT, Contestant
from kits.benchmarks.load import Failed, measure
from kits.benchmarks.processes import NotStarted
from kits.benchmarks.progress import Progress, say
from kits.benchmarks.results import Figures, Results
from kits.benchmarks.stage import Running, Stage
from kits.benchmarks.workloads import PACED_RATE, Workload


def installed(contestants: Sequence[Contestant], results: Results) -> list[Contestant]:
    """Return the contestants that can be started; the others are noted as skipped."""
    present = []
    for contestant in contestants:
        lacks = contestant.missing()
        if lacks:
            results.skipped[contestant.name] = lacks
            say(f"{contestant.name} is skipped: it needs {lacks}")
        else:
            present.append(contestant)
    return present


def rotated(contestants: list[Contestant], number: int) -> list[Contestant]:
    """Return the order of a round: it rotates, so that no contestant always follows the same other one."""
    turn = number % len(contestants) if contestants else 0
    return contestants[turn:] + contestants[:turn]


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
        self._contestants = installed(contestants, self.results)
        self._cpu_seconds = cpu_seconds
        self._paced_events = paced_events
        self._checked: set[tuple[str, str]] = set()
        self._texts: dict[str, str] = {}

    def run(self, rounds: int) -> Results:
        """Run the rounds and return the results."""
        steps = [
            (f"{workload.name}, {contestant.name}", self._guess(workload))
            for number in range(rounds)
            for workload in self._workloads
            for contestant in rotated(self._contestants, number)
            if self._takes_part(contestant, workload)
        ]
        with ExitStack() as stack:
            stage = Stage(stack)
            progress = stack.enter_context(Progress(steps))
            for number in range(rounds):
                progress.round(number, rounds)
                with ExitStack() as contest:
                    started = {
                        contestant.name: self._start(stage, contestant, contest)
                        for contestant in rotated(self._contestants, number)
                        if any(self._takes_part(contestant, workload) for workload in self._workloads)
                    }
                    self._round(number, stage, started, progress)
        return self.results

    def _takes_part(self, contestant: Contestant, workload: Workload) -> bool:
        return contestant.can(workload) and (workload.kind != "hold" or contestant.name != DIRECT)

    def _guess(self, workload: Workload) -> float:
        if workload.kind == "events":
            return 1 + self._paced_events / PACED_RATE
        return 4.0 if workload.kind == "hold" or workload.most else 0.3 + 1.3 * self._cpu_seconds

    def _start(self, stage: Stage, contestant: Contestant, stack: ExitStack) -> Running | None:
        try:
            return stage.start(contestant, stack)
        except NotStarted as error:
            self.results.skipped[contestant.name] = f"a way to start: {error}"
            say(f"{contestant.name} is skipped: {error}")
            return None

    def _round(
        self, number: int, stage: Stage, started: dict[str, Running | None], progress: Progress
    ) -> None:
        for workload in self._workloads:
            for contestant in rotated(self._contestants, number):
                if not self._takes_part(contestant, workload):
                    continue
                stage.check()
                with progress.step(f"{workload.name}, {contestant.name}"):
                    running = started[contestant.name]
                    if running is not None:
                        self._turn(number, workload, running, stage)

    def _turn(self, number: int, workload: Workload, running: Running, stage: Stage) -> None:
        name = running.name
        if (workload.name, name) in self.results.failures and not self._known(workload, name):
            return  # another attempt would be futile
        try:
            if workload.kind == "hold":
                # A fresh process: one that has grown before would serve held connections from memory already
                # counted.
                with ExitStack() as stack:
                    fresh = self._start(stage, running.contestant, stack)
                    if fresh is None:
                        return
                    figures = self._measured(workload, fresh, stage)
            else:
                figures = self._measured(workload, running, stage)
        except (Failed, Wrong) as error:
            self.results.failures[workload.name, name] = str(error)
            say(f"{workload.name}, {name} failed: {error}")
            return
        self.results.figures.setdefault(workload.name, {}).setdefault(name, {})[number] = figures

    def _known(self, workload: Workload, name: str) -> list[Figures]:
        return list(self.results.of(workload.name, name).values())

    def _measured(self, workload: Workload, running: Running, stage: Stage) -> Figures:
        target = workload.paced_target(self._paced_events)
        port = running.ports[workload.leg]
        if workload.kind == "events" and running.contestant.paced_streams:
            workload = replace(workload, connections=running.contestant.paced_streams)
        if running.contestant.warm:
            workload = replace(workload, warm=min(workload.warm, running.contestant.warm))
        if workload.kind == "http" and not workload.upload:
            self._check(workload, running, stage, port)
        request = stage.folder / "request"
        request.write_bytes(running.contestant.request(workload, target, stage.upstreams).wire())
        known = self._known(workload, running.name)

        def count_for(seconds: float | None) -> int:
            if known and known[-1].cpu_ms:
                seconds = known[-1].cpu_ms * workload.units / 1000
            wanted = workload.warm * 10 if seconds is None else int(self._cpu_seconds / max(seconds, 1e-6))
            return min(workload.most or sys.maxsize, max(workload.connections, wanted))

        return measure(
            workload, running.process, port, request, count_for=count_for, events=self._paced_events
        )

    def _check(self, workload: Workload, running: Running, stage: Stage, port: int) -> None:
        name = running.name
        if (workload.name, name) in self._checked:
            return
        if workload.name not in self._texts:
            plain = Contestant(DIRECT).request(workload, workload.target, stage.upstreams)
            self._texts[workload.name] = text_of(*ask(stage.upstreams.tcp_port, plain))
        request = running.contestant.request(workload, workload.target, stage.upstreams)
        streamed = check(port, request, self._texts[workload.name])
        if streamed and not (workload.body or {}).get("stream"):
            self.results.relayed.add((workload.name, name))
        self._checked.add((workload.name, name))
