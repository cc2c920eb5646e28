"""Results of a run: the figures by workload, contestant and round, their ratios, and their JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any


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

    def asdict(self) -> dict[str, Any]:
        """Return the figures that exist, for JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass
class Results:
    """The results, by workload and contestant.

    :ivar figures: by round.
    :ivar relayed: the contestants that relayed a stream where the others aggregated it.
    :ivar failures: the reasons why figures are missing.
    :ivar skipped: contestants that are not installed, and their missing requirements.
    :ivar about: the time, the versions and the options of the run.
    """

    figures: dict[str, dict[str, dict[int, Figures]]] = field(default_factory=dict)
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

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        data = {
            "about": self.about,
            "skipped": self.skipped,
            "failures": [[*place, why] for place, why in self.failures.items()],
            "relayed": sorted(self.relayed),
            "figures": {
                workload: {
                    name: {str(number): one.asdict() for number, one in figures.items()}
                    for name, figures in by_name.items()
                }
                for workload, by_name in self.figures.items()
            },
        }
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(data, indent=1) + "\n")


def read(path: Path) -> Results:
    """Read results that were written."""
    data = json.loads(path.read_text())
    figures = {
        workload: {
            name: {int(number): Figures(**one) for number, one in rounds.items()}
            for name, rounds in by_name.items()
        }
        for workload, by_name in data["figures"].items()
    }
    return Results(
        figures,
        {(workload, name) for workload, name in data["relayed"]},
        {(workload, name): why for workload, name, why in data["failures"]},
        data["skipped"],
        data["about"],
    )
