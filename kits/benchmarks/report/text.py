"""Report of a run as text: every table, each workload in detail, and what went wrong."""

from __future__ import annotations

from collections.abc import Sequence

from kits.benchmarks.report import tables
from kits.benchmarks.report.tables import markdown, number
from kits.benchmarks.results import Results
from kits.benchmarks.stalls import CASES
from kits.benchmarks.workloads import Workload


def render(results: Results, workloads: Sequence[Workload], names: Sequence[str], reference: str) -> str:
    """Return all tables as text.

    :param workloads: those in the tables, if they were measured.
    :param reference: the contestant that the others are compared with.
    """
    measured = [one for one in workloads if one.name in results.figures]
    names = tables.names_in(results, names)
    parts = []
    if measured:
        title = (
            f"CPU time per request, message, event or chunk (idle: memory per connection), {reference} = 1."
        )
        note = "* relays the stream instead of aggregating it."
        parts += [f"{title}\n{note}\n\n{markdown(tables.ratios(results, measured, names, reference))}"]
        for old, new in tables.pairs_of_versions(names):
            rows = tables.versions(results, measured, old, new)
            parts.append(f"{new}, {old} = 1: the ratios of the rounds\n\n{markdown(rows)}")
        parts += [_details(results, one, names, reference) for one in measured]
        if any("linear" in one.groups for one in measured):
            rows = tables.linearity(results, names)
            parts.append(f"linear: what a chunk costs must not grow with their number\n\n{markdown(rows)}")
    if results.crowds:
        parts.append(markdown(tables.crowds(results, names)))
        parts.append(markdown(tables.crowd_costs(results, names)))
    if results.stalls:
        titles = {name: case.about for name, case in CASES.items()}
        parts.append(markdown(tables.stalls(results, names, titles)))
    notes = [f"{name} was skipped: it needs {what}" for name, what in results.skipped.items()]
    notes += [f"{name} in {workload}: {why}" for (workload, name), why in results.failures.items()]
    if notes:
        parts.append("\n".join(notes))
    return "\n\n".join(parts)


def _details(results: Results, workload: Workload, names: Sequence[str], reference: str) -> str:
    held = workload.kind == "hold"
    what = f"KiB per {workload.unit}" if held else f"CPU ms per {workload.unit}"
    rows = [["", what, "ratio", "p50 ms", "p99 ms", "RSS MiB", "per second"]]
    for name in names:
        if not results.of(workload.name, name):
            continue
        mark = "*" if (workload.name, name) in results.relayed else ""
        shown = ("p50_ms", "p99_ms", "resident_mib", "per_second")
        cells = [number(results.middle(workload.name, name, "cost"), mark)]
        cells.append(number(results.ratio(workload.name, name, reference)))
        rows.append([name, *cells, *(number(results.middle(workload.name, name, one)) for one in shown)])
    latency = "; p50 and p99: how late an event comes" if workload.kind == "events" else ""
    return f"{workload.name}: {workload.about}{latency}\n\n{markdown(rows)}"
