"""Crowds: the delay of events and the memory of a stream with thousands of streams open."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from kits.benchmarks.contestants.base import DIRECT, Contestant
from kits.benchmarks.load import Failed, Generator
from kits.benchmarks.processes import NotStarted
from kits.benchmarks.progress import Progress, say
from kits.benchmarks.results import Crowd, Results
from kits.benchmarks.runner import installed, rotated
from kits.benchmarks.stage import Running, Stage
from kits.benchmarks.stalls import CASES, measure_stall
from kits.benchmarks.workloads import WORKLOADS

_T = TypeVar("_T")

#: The seconds for which the delays are measured, and those before, in which the opening is digested.
MEASURED_SECONDS, SETTLE_SECONDS = 4, 1
#: The time after which a crowd counts as one that does not get going.
LIMIT_SECONDS = 90.0
#: Descriptors of a proxy beside two for each stream.
_OTHER_DESCRIPTORS = 100
#: Those that take part unless others are named.
SCALE_CONTESTANTS = "direct,nginx,aiohttp,aiohttp-tuned,product"


@dataclass(frozen=True)
class CrowdCase:
    """A number of streams, and the events of each in a second."""

    streams: int
    rate: int

    @property
    def name(self) -> str:
        """The case's name, like ``1000x3``."""
        return f"{self.streams}x{self.rate}"


def crowd_cases() -> list[CrowdCase]:
    """Return the cases that the limit of open descriptors allows."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = (hard - _OTHER_DESCRIPTORS) // 2 if hard != resource.RLIM_INFINITY else 10**6
    cases = (CrowdCase(100, 30), CrowdCase(1000, 3), CrowdCase(5000, 1), CrowdCase(min(9900, most), 1))
    return [case for case in cases if case.streams <= most]


class ScaleRunner:
    """A run of the crowds and the stalls.

    :param contestants: the participants.
    :param only: the names of the cases to run; ``None`` for all.
    """

    def __init__(self, contestants: Sequence[Contestant], only: Sequence[str] | None = None) -> None:
        self.results = Results()
        self._contestants = installed(contestants, self.results)
        known = {*(case.name for case in crowd_cases()), *CASES}
        if only and (unknown := set(only) - known):
            raise SystemExit(f"no such case: {', '.join(unknown)}; there are {', '.join(sorted(known))}")
        self._crowds = [case for case in crowd_cases() if not only or case.name in only]
        self._stalls = [name for name in CASES if not only or name in only]

    def run(self, rounds: int) -> Results:
        """Run the rounds and return the results."""
        crowd_guess = SETTLE_SECONDS + MEASURED_SECONDS + 4.0
        guesses = [(case.name, crowd_guess) for case in self._crowds] + [(name, 4.0) for name in self._stalls]
        steps = [
            (f"{case}, {contestant.name}", guess)
            for number in range(rounds)
            for case, guess in guesses
            for contestant in rotated(self._contestants, number)
            if case not in CASES or contestant.name != DIRECT
        ]
        with ExitStack() as stack:
            stage = Stage(stack)
            progress = stack.enter_context(Progress(steps))
            for number in range(rounds):
                progress.round(number, rounds)
                order = rotated(self._contestants, number)
                for case in self._crowds:
                    for contestant in order:
                        with progress.step(f"{case.name}, {contestant.name}"):
                            attempt = partial(measure_crowd, case, stage=stage)
                            self._attempt(number, case.name, self.results.crowds, contestant, stage, attempt)
                for name in self._stalls:
                    for contestant in order:
                        if contestant.name == DIRECT:
                            continue
                        with progress.step(f"{name}, {contestant.name}"):
                            attempt_stall = partial(measure_stall, CASES[name], stage=stage)
                            self._attempt(number, name, self.results.stalls, contestant, stage, attempt_stall)
        return self.results

    def _attempt(
        self,
        number: int,
        case: str,
        table: dict[str, dict[str, dict[int, _T]]],
        contestant: Contestant,
        stage: Stage,
        measure: Callable[[Running], _T],
    ) -> None:
        """Measure a contestant that was started for this alone.

        A process that had grown in an earlier case would serve this one from memory already counted.
        """
        name = contestant.name
        known = table.get(case, {}).get(name)
        if (case, name) in self.results.failures and not known:
            return  # another attempt would be futile
        try:
            with ExitStack() as stack:
                figures = measure(stage.start(contestant, stack))
        except (Failed, NotStarted) as error:
            self.results.failures[case, name] = str(error)
            say(f"{case}, {name} failed: {error}")
            return
        table.setdefault(case, {}).setdefault(name, {})[number] = figures


def measure_crowd(case: CrowdCase, running: Running, stage: Stage) -> Crowd:
    """Open the streams and measure the delays of their events.

    :raises Failed: if not all of them could be opened in time.
    """
    model = next(one for one in WORKLOADS if one.name == "stream-paced")
    target = f"/rate{case.rate}x1000000/v1/chat/completions"
    request = stage.folder / "request"
    request.write_bytes(running.contestant.request(model, target, stage.upstreams).wire())
    process, port = running.process, running.ports["tcp"]
    _warm_up(port, request)
    resting = process.resident_bytes() if process else 0
    begun = time.monotonic()
    settle = SETTLE_SECONDS * 1000
    generator = Generator("crowd", port, case.streams, settle, request, MEASURED_SECONDS, limit=LIMIT_SECONDS)
    generator.expect("open")
    open_s = time.monotonic() - begun
    generator.expect("begin")
    before = process.cpu_seconds() if process else 0.0
    generator.expect("end")
    used = process.cpu_seconds() - before if process else 0.0
    resident = process.resident_bytes() if process else 0
    result = generator.result()
    if not result["count"]:
        raise Failed("no event came while it was measured")
    return Crowd(
        result["count"],
        open_s,
        result["p50"] / 1e6,
        result["p99"] / 1e6,
        result["longest"] / 1e6,
        used * 1e6 / result["count"] if process else None,
        (resident - resting) / case.streams / 1024 if process else None,
        resident / 2**20 if process else None,
    )


def _warm_up(port: int, request: Path) -> None:
    """Open a few streams and close them, so that what is made once is not counted as theirs."""
    generator = Generator("crowd", port, 20, 0, request, 0)
    for word in ("open", "begin", "end"):
        generator.expect(word)
    generator.result()
