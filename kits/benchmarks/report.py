"""Reports: tables and JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from kits.benchmarks.load import Figures
from kits.benchmarks.runner import Results
from kits.benchmarks.workloads import Workload

#: The contestant that the others are compared with.
BASE = "aiohttp"


def cost(figures: Figures) -> float | None:
    """Return the figure that is compared: CPU time, or the memory of a held connection."""
    return figures.held_kib if figures.held_kib is not None else figures.cpu_ms


def middle(figures: Mapping[int, Figures], name: str) -> float | None:
    """Return the median of one figure over the rounds."""
    values = [value for one in figures.values() if (value := getattr(one, name)) is not None]
    return median(values) if values else None


def ratio(figures: Mapping[int, Figures], base: Mapping[int, Figures]) -> float | None:
    """Return the median of the rounds' ratios, in which noise that slows both down in a round cancels out."""
    ratios = [
        mine / other
        for number in figures.keys() & base.keys()
        if (mine := cost(figures[number])) is not None and (other := cost(base[number]))
    ]
    return median(ratios) if ratios else None


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first row is the head, the first column text, the others figures."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| "
        + " | ".join(cell.ljust(widths[i]) if i == 0 else cell.rjust(widths[i]) for i, cell in enumerate(row))
        + " |"
        for row in rows
    ]
    rule = (
        "|" + "|".join("-" * (width + 1) + ("-" if i == 0 else ":") for i, width in enumerate(widths)) + "|"
    )
    return "\n".join([lines[0], rule, *lines[1:]])


def number(value: float | None, suffix: str = "") -> str:
    """Return a number with three significant digits, or a dash."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}{suffix}"
    return f"{value:.3g}{suffix}" if value else f"0{suffix}"


def render(results: Results, workloads: Sequence[Workload], names: Sequence[str]) -> str:
    """Return all tables as text."""
    present = [name for name in names if any(name in results.figures.get(one.name, {}) for one in workloads)]
    parts = [_ratios(results, workloads, present)]
    parts += [_details(results, one, present) for one in workloads if one.name in results.figures]
    linear = [one for one in workloads if "linear" in one.groups and one.name in results.figures]
    if linear:
        parts.append(_linearity(results, linear, present))
    notes = [f"{name} was skipped: it needs {what}" for name, what in results.skipped.items()]
    notes += [f"{name} in {workload}: {why}" for (workload, name), why in results.failures.items()]
    if notes:
        parts.append("\n".join(notes))
    return "\n\n".join(parts)


def _ratios(results: Results, workloads: Sequence[Workload], names: Sequence[str]) -> str:
    shown = [name for name in names if name != "direct"]
    rows = [["workload", *shown]]
    for workload in workloads:
        by_name = results.figures.get(workload.name, {})
        cells = []
        for name in shown:
            value = ratio(by_name.get(name, {}), by_name.get(BASE, {}))
            mark = "*" if (workload.name, name) in results.relayed else ""
            cells.append(number(value, mark))
        rows.append([workload.name, *cells])
    title = f"CPU time per request, message, event or chunk (idle: memory per connection), {BASE} = 1."
    return f"{title}\n* relays the stream instead of aggregating it.\n\n{table(rows)}"


def _details(results: Results, workload: Workload, names: Sequence[str]) -> str:
    held = workload.kind == "hold"
    what = f"KiB per {workload.unit}" if held else f"CPU ms per {workload.unit}"
    rows = [["", what, "ratio", "p50 ms", "p99 ms", "RSS MiB", "per second"]]
    by_name = results.figures[workload.name]
    for name in names:
        if name not in by_name:
            continue
        figures = by_name[name]
        mark = "*" if (workload.name, name) in results.relayed else ""
        cells = [number(middle(figures, "held_kib" if held else "cpu_ms"), mark)]
        cells.append(number(ratio(figures, by_name.get(BASE, {}))))
        cells += [number(middle(figures, one)) for one in ("p50_ms", "p99_ms", "resident_mib", "per_second")]
        rows.append([name, *cells])
    latency = "; p50 and p99: how late an event comes" if workload.kind == "events" else ""
    return f"{workload.name}: {workload.about}{latency}\n\n{table(rows)}"


def _linearity(results: Results, workloads: Sequence[Workload], names: Sequence[str]) -> str:
    rows = [["microseconds of CPU per chunk", *(one.about for one in workloads)]]
    for name in names:
        values = [middle(results.figures[one.name].get(name, {}), "cpu_ms") for one in workloads]
        if any(value is not None for value in values):
            rows.append([name, *(number(None if value is None else value * 1000) for value in values)])
    return f"linear: what a chunk costs must not grow with their number\n\n{table(rows)}"


def write_json(results: Results, folder: Path, options: dict[str, Any]) -> Path:
    """Write all measurements, round by round, into a new file of `folder`; return its path."""
    folder.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    data = {
        "time": now.isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "options": options,
        "skipped": results.skipped,
        "failures": [
            {"workload": workload, "contestant": name, "why": why}
            for (workload, name), why in results.failures.items()
        ],
        "relayed": sorted(list(pair) for pair in results.relayed),
        "figures": {
            workload: {name: [one.asdict() for one in figures.values()] for name, figures in by_name.items()}
            for workload, by_name in results.figures.items()
        },
    }
    path = folder / f"{now:%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(data, indent=1) + "\n")
    return path
