"""Tables of results, as rows of cells; the first row is the head."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, quantiles

from kits.benchmarks.contestants.base import DIRECT
from kits.benchmarks.goals import GOALS, LITELLM_LEAST
from kits.benchmarks.results import Results
from kits.benchmarks.workloads import WORKLOADS, Workload

Rows = list[list[str]]

#: Alternatives that translate or inspect what they relay.
GATEWAYS = ("litellm", "portkey", "mitmproxy")
#: What contestants are called in text.
TITLES = {"litellm": "LiteLLM", "portkey": "Portkey", DIRECT: "no proxy"}


def number(value: float | None, suffix: str = "") -> str:
    """Return a number with three significant digits, or a dash."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}{suffix}"
    return f"{value:.3g}{suffix}" if value else f"0{suffix}"


def markdown(rows: Rows) -> str:
    """Return a Markdown table: the first column is text, the others are figures."""
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(rows[0]))]
    lines = [
        "| "
        + " | ".join(cell.ljust(widths[i]) if i == 0 else cell.rjust(widths[i]) for i, cell in enumerate(row))
        + " |"
        for row in rows
    ]
    rule = " | ".join("-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths))
    return "\n".join([lines[0], f"| {rule} |", *lines[1:]])


def measured_workloads(results: Results) -> list[Workload]:
    """Return the workloads of which there are results, in their order."""
    return [one for one in WORKLOADS if results.figures.get(one.name)]


def names_in(results: Results, wanted: Sequence[str]) -> list[str]:
    """Return those of the wanted contestants of which there is any result."""
    tables = (results.figures, results.crowds, results.stalls)
    present = {name for table in tables for by_name in table.values() for name in by_name}
    return [name for name in wanted if name in present]


def ratio_cell(results: Results, workload: str, name: str, reference: str) -> str:
    """Return a ratio, marked if the contestant only relayed what others aggregated."""
    mark = "*" if (workload, name) in results.relayed else ""
    return number(results.ratio(workload, name, reference), mark)


def goal_cells(results: Results, workload: str, reference: str, product: str = "product") -> list[str]:
    """Return a workload's goal, and whether the product reaches it.

    A goal that refers to another contestant than the table's reference is followed by its name, and the
    verdict by the ratio to that one.
    """
    goal = GOALS.get(workload)
    if goal is None:
        return ["", ""]
    other = goal.reference != reference
    value = results.ratio(workload, product, goal.reference)
    verdict = "-" if value is None else "yes" if value <= goal.most else "no"
    if other and value is not None:
        verdict += f" ({number(value)})"
    return [f"{goal.most:g}" + (f" of {goal.reference}" if other else ""), verdict]


def ratios(results: Results, workloads: Sequence[Workload], names: Sequence[str], reference: str) -> Rows:
    """Return the ratio of each contestant in each workload, and the goals."""
    shown = [name for name in names if name != DIRECT]
    product = next((name for name in shown if name.startswith("product")), "product")
    rows = [["workload", *shown, "at most", "reached"]]
    for one in workloads:
        cells = [ratio_cell(results, one.name, name, reference) for name in shown]
        rows.append([one.name, *cells, *goal_cells(results, one.name, reference, product)])
    return rows


def pairs_of_versions(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return which checkouts of the product are compared: the first one with each other one."""
    old = next((name for name in names if "@" in name), None)
    return [(old, name) for name in names if old and name != old and name.startswith("product")]


def versions(results: Results, workloads: Sequence[Workload], old: str, new: str) -> Rows:
    """Return how the rounds' ratios of two versions spread."""
    rows = [["workload", "median", "half of the rounds within", "lowest", "highest", "rounds"]]
    for one in workloads:
        every = results.ratios(one.name, new, old)
        if not every:
            continue
        low, middle, high = quantiles(every, n=4, method="inclusive") if len(every) > 1 else every * 3
        within = f"{number(low)} to {number(high)}"
        rows.append([one.name, number(middle), within, number(every[0]), number(every[-1]), str(len(every))])
    return rows


def linearity(results: Results, names: Sequence[str]) -> Rows:
    """Return what a chunk costs in streams of several lengths."""
    workloads = [one for one in measured_workloads(results) if "linear" in one.groups]
    rows = [["microseconds of CPU per chunk", *(one.about for one in workloads)]]
    for name in names:
        values = [results.middle(one.name, name, "cpu_ms") for one in workloads]
        if any(value is not None for value in values):
            rows.append([name, *(number(None if value is None else value * 1000) for value in values)])
    return rows


def crowd_title(case: str) -> str:
    """Return a case like ``1000x3`` in words."""
    streams, rate = case.split("x")
    return f"{int(streams):,} streams, {rate} event{'s' if rate != '1' else ''} a second each"


def _by_streams(results: Results) -> list[str]:
    return sorted(results.crowds, key=lambda case: int(case.split("x")[0]))


def crowd_value(results: Results, case: str, name: str, figure: str) -> float | None:
    """Return the median of a crowd's figure over the rounds."""
    rounds = results.crowds.get(case, {}).get(name, {}).values()
    values = [value for one in rounds if (value := getattr(one, figure)) is not None]
    return median(values) if values else None


def crowds(results: Results, names: Sequence[str]) -> Rows:
    """Return the delays of events in crowds of streams."""
    rows = [["delay of an event, ms: p50 / p99", *(TITLES.get(name, name) for name in names)]]
    for case in _by_streams(results):
        cells = []
        for name in names:
            p50, p99 = (crowd_value(results, case, name, one) for one in ("p50_ms", "p99_ms"))
            failed = "fails" if (case, name) in results.failures else "-"
            cells.append(failed if p50 is None else f"{number(p50)} / {number(p99)}")
        rows.append([crowd_title(case), *cells])
    return rows


def crowd_costs(results: Results, names: Sequence[str]) -> Rows:
    """Return memory and CPU time in crowds of streams."""
    shown = [name for name in names if name != DIRECT]
    rows = [["KiB per open stream / CPU microseconds per event", *shown]]
    for case in _by_streams(results):
        cells = []
        for name in shown:
            kib, cpu = (crowd_value(results, case, name, one) for one in ("stream_kib", "cpu_us"))
            cells.append("-" if kib is None else f"{number(kib)} / {number(cpu)}")
        rows.append([crowd_title(case), *cells])
    return rows


def stalls(results: Results, names: Sequence[str], titles: dict[str, str]) -> Rows:
    """Return the longest waits of small requests beside a large body.

    :param titles: the cases in words.
    """
    shown = [name for name in names if name != DIRECT]
    rows = [["longest wait of another request, ms", *shown]]
    for case in results.stalls:
        cells = []
        for name in shown:
            rounds = list(results.stalls[case].get(name, {}).values())
            if not rounds:
                cells.append("fails" if (case, name) in results.failures else "-")
                continue
            cell = number(median(one.longest_ms for one in rounds))
            outcome = rounds[-1].outcome
            cells.append(cell if outcome in ("200", "-") else f"{cell} ({outcome})")
        rows.append([titles.get(case, case), *cells])
    return rows


def gateways(results: Results, workloads: Sequence[Workload]) -> Rows:
    """Return how many times the product's CPU time other gateways take, and LiteLLM's goal."""
    names = names_in(results, GATEWAYS)
    rows = [
        ["CPU time, product = 1", *(TITLES.get(name, name) for name in names), "goal for LiteLLM", "reached"]
    ]
    for one in workloads:
        cells = [ratio_cell(results, one.name, name, "product") for name in names]
        if all(cell == "-" for cell in cells):
            continue
        litellm = results.ratio(one.name, "litellm", "product")
        goal = ["", ""]
        if litellm is not None and one.kind != "hold":
            goal = [f"{LITELLM_LEAST:g}", "yes" if litellm >= LITELLM_LEAST else "no"]
        rows.append([one.name, *cells, *goal])
    return rows
