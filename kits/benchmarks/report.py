"""Reports as text: ratios with their goals, versions of the product compared, each workload in detail."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import quantiles

from kits.benchmarks.goals import GOALS
from kits.benchmarks.results import Results
from kits.benchmarks.workloads import Workload

#: The contestants that a report needs not show, as no proxy is in between.
_NONE = ("direct",)


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


def render(results: Results, workloads: Sequence[Workload], names: Sequence[str], reference: str) -> str:
    """Return all tables as text.

    :param reference: the contestant that the others are compared with.
    """
    measured = [one for one in workloads if one.name in results.figures]
    present = [name for name in names if any(results.of(one.name, name) for one in measured)]
    parts = [_ratios(results, measured, present, reference)]
    parts += [_versions(results, measured, old, new) for old, new in pairs_of_versions(present)]
    parts += [_details(results, one, present, reference) for one in measured]
    linear = [one for one in measured if "linear" in one.groups]
    if linear:
        parts.append(_linearity(results, linear, present))
    notes = [f"{name} was skipped: it needs {what}" for name, what in results.skipped.items()]
    notes += [f"{name} in {workload}: {why}" for (workload, name), why in results.failures.items()]
    if notes:
        parts.append("\n".join(notes))
    return "\n\n".join(parts)


def ratio_cell(results: Results, workload: str, name: str, reference: str) -> str:
    """Return a ratio, marked if the contestant only relayed what others aggregated."""
    mark = "*" if (workload, name) in results.relayed else ""
    return number(results.ratio(workload, name, reference), mark)


def goal_cells(results: Results, workload: str, reference: str, product: str = "product") -> tuple[str, str]:
    """Return a workload's goal, and whether the product reaches it.

    A goal that refers to another contestant than the table's reference is followed by its name, and the
    verdict by the ratio to that one.
    """
    goal = GOALS.get(workload)
    if goal is None:
        return "", ""
    other = goal.reference != reference
    value = results.ratio(workload, product, goal.reference)
    verdict = "-" if value is None else "yes" if value <= goal.most else "no"
    if other and value is not None:
        verdict += f" ({number(value)})"
    return f"{goal.most:g}" + (f" of {goal.reference}" if other else ""), verdict


def pairs_of_versions(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return which checkouts of the product are compared: the first one with each other one."""
    old = next((name for name in names if "@" in name), None)
    return [(old, name) for name in names if old and name != old and name.startswith("product")]


def _ratios(results: Results, workloads: Sequence[Workload], names: Sequence[str], reference: str) -> str:
    shown = [name for name in names if name not in _NONE]
    rows = [["workload", *shown, "at most", "reached"]]
    for one in workloads:
        cells = [ratio_cell(results, one.name, name, reference) for name in shown]
        rows.append([one.name, *cells, *goal_cells(results, one.name, reference)])
    title = f"CPU time per request, message, event or chunk (idle: memory per connection), {reference} = 1."
    return f"{title}\n* relays the stream instead of aggregating it.\n\n{table(rows)}"


def _versions(results: Results, workloads: Sequence[Workload], old: str, new: str) -> str:
    rows = [["workload", "median", "half of the rounds within", "lowest", "highest", "rounds"]]
    for one in workloads:
        ratios = results.ratios(one.name, new, old)
        if not ratios:
            continue
        low, middle, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
        within = f"{number(low)} to {number(high)}"
        rows.append(
            [one.name, number(middle), within, number(ratios[0]), number(ratios[-1]), str(len(ratios))]
        )
    return f"{new}, {old} = 1: the ratios of the rounds\n\n{table(rows)}"


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
    return f"{workload.name}: {workload.about}{latency}\n\n{table(rows)}"


def _linearity(results: Results, workloads: Sequence[Workload], names: Sequence[str]) -> str:
    rows = [["microseconds of CPU per chunk", *(one.about for one in workloads)]]
    for name in names:
        values = [results.middle(one.name, name, "cpu_ms") for one in workloads]
        if any(value is not None for value in values):
            rows.append([name, *(number(None if value is None else value * 1000) for value in values)])
    return f"linear: what a chunk costs must not grow with their number\n\n{table(rows)}"
