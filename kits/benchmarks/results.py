"""Results of a run: the figures by workload, contestant and round, their ratios, and their JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias, TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True)
class Figures:
    """The figures of one measurement; CPU and memory are ``None`` if no contestant is in between.

    :ivar cpu_ms: milliseconds of CPU time per unit of the workload.
    :ivar p50_ms: the median time of a request or message, or the median delay of an event.
    :ivar resident_mib: resident memory afterwards.
    :ivar held_kib: memory per held connection.
    """

    count: int
    seconds: float
    cpu_ms: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    resident_mib: float | None = None
    held_kib: float | None = None

    @property
    def per_second(self) -> float | None:
        """The throughput; on a busy machine it means little."""
        return self.count / self.seconds if self.seconds else None

    @property
    def cost(self) -> float | None:
        """The figure that is compared: CPU time, or the memory of a held connection."""
        return self.held_kib if self.held_kib is not None else self.cpu_ms


@dataclass(frozen=True)
class Crowd:
    """Many open streams at once.

    :ivar events: the events that came while it was measured.
    :ivar open_s: the seconds until each stream had its first event.
    :ivar p50_ms: the median delay of an event, from the upstream to the client.
    :ivar longest_ms: the longest delay.
    :ivar cpu_us: microseconds of CPU time per event.
    :ivar stream_kib: memory per open stream.
    :ivar resident_mib: resident memory with all streams open.
    """

    events: int
    open_s: float
    p50_ms: float
    p99_ms: float
    longest_ms: float
    cpu_us: float | None = None
    stream_kib: float | None = None
    resident_mib: float | None = None


@dataclass(frozen=True)
class Stall:
    """The waits of small requests while one client moves a large body or response.

    :ivar longest_ms: the longest wait of one of them.
    :ivar seconds: the time that the large one took, until its limit.
    :ivar outcome: its status, or what became of it.
    """

    longest_ms: float
    p99_ms: float
    seconds: float
    outcome: str


_Rounds: TypeAlias = dict[str, dict[str, dict[int, _T]]]


def _brief(value: Any) -> Any:
    """Return a figure with as many digits as a measurement has."""
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _joined(match: re.Match[str]) -> str:
    return "{" + re.sub(r"\n *", " ", match[1]) + "}"


def _plain(table: _Rounds[Any]) -> dict[str, Any]:
    return {
        case: {
            name: {
                str(number): {key: _brief(value) for key, value in asdict(one).items() if value is not None}
                for number, one in rounds.items()
            }
            for name, rounds in by_name.items()
        }
        for case, by_name in table.items()
    }


def _typed(kind: type[_T], table: dict[str, Any]) -> _Rounds[_T]:
    return {
        case: {
            name: {int(number): kind(**one) for number, one in rounds.items()}
            for name, rounds in by_name.items()
        }
        for case, by_name in table.items()
    }


@dataclass
class Results:
    """The results of a run, or of several: by workload or case, contestant and round.

    :ivar figures: what the workloads cost.
    :ivar crowds: many open streams, by their number and rate: ``1000x3``.
    :ivar stalls: waits beside a large body, by its kind.
    :ivar relayed: the contestants that relayed a stream where the others aggregated it.
    :ivar failures: the reasons why figures are missing.
    :ivar skipped: contestants that are not installed, and their missing requirements.
    :ivar about: for ``workloads`` and ``scale`` the time, the versions and the options of the last run.
    """

    figures: _Rounds[Figures] = field(default_factory=dict)
    crowds: _Rounds[Crowd] = field(default_factory=dict)
    stalls: _Rounds[Stall] = field(default_factory=dict)
    relayed: set[tuple[str, str]] = field(default_factory=set)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def of(self, workload: str, contestant: str) -> Mapping[int, Figures]:
        """Return a contestant's figures by round; none if it was not measured."""
        return self.figures.get(workload, {}).get(contestant, {})

    def middle(self, workload: str, contestant: str, name: str) -> float | None:
        """Return the median of one figure over the rounds."""
        every = self.of(workload, contestant).values()
        values = [value for one in every if (value := getattr(one, name)) is not None]
        return median(values) if values else None

    def ratios(self, workload: str, contestant: str, reference: str) -> list[float]:
        """Return the ratio of each round in which both were measured, in ascending order.

        Noise that slows both down in a round cancels out.
        """
        mine, others = self.of(workload, contestant), self.of(workload, reference)
        return sorted(
            cost / other
            for number in mine.keys() & others.keys()
            if (cost := mine[number].cost) is not None and (other := others[number].cost)
        )

    def ratio(self, workload: str, contestant: str, reference: str) -> float | None:
        """Return the median of the rounds' ratios."""
        ratios = self.ratios(workload, contestant, reference)
        return median(ratios) if ratios else None

    def update(self, newer: Results) -> None:
        """Take what another run measured in place of the same workloads and cases of this one.

        A workload is replaced with all its contestants, because ratios need figures of the same run.
        """
        again = newer.figures.keys() | {workload for workload, _ in newer.failures}
        self.figures = {name: one for name, one in self.figures.items() if name not in again} | newer.figures
        self.relayed = {pair for pair in self.relayed if pair[0] not in again} | newer.relayed
        self.failures = {pair: why for pair, why in self.failures.items() if pair[0] not in again}
        self.failures |= newer.failures
        self.crowds |= newer.crowds
        self.stalls |= newer.stalls
        self.skipped = newer.skipped
        self.about |= newer.about

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        data = {
            "about": self.about,
            "skipped": self.skipped,
            "failures": [[*place, why] for place, why in self.failures.items()],
            "relayed": sorted(self.relayed),
            "figures": _plain(self.figures),
            "crowds": _plain(self.crowds),
            "stalls": _plain(self.stalls),
        }
        path.parent.mkdir(exist_ok=True)
        # A round a line.
        text = re.sub(r"\{\n *([^{}\[\]]*?)\n *\}", _joined, json.dumps(data, indent=1))
        path.write_text(text + "\n")


def read(path: Path) -> Results:
    """Read results that were written."""
    data = json.loads(path.read_text())
    return Results(
        _typed(Figures, data["figures"]),
        _typed(Crowd, data["crowds"]),
        _typed(Stall, data["stalls"]),
        {(workload, name) for workload, name in data["relayed"]},
        {(workload, name): why for workload, name, why in data["failures"]},
        data["skipped"],
        data["about"],
    )
