"""Page of the documentation: its tables and plots, made from the results that are kept."""

from __future__ import annotations

import re
from pathlib import Path

from kits.benchmarks.contestants.base import DIRECT
from kits.benchmarks.goals import TUNED
from kits.benchmarks.report import tables
from kits.benchmarks.report.plots import draw
from kits.benchmarks.report.tables import Rows, markdown, number
from kits.benchmarks.results import Results
from kits.benchmarks.stalls import CASES
from kits.benchmarks.workloads import Workload

BENCHMARKS = Path(__file__).parent.parent
DOCS = BENCHMARKS.parent.parent / "docs"
PAGE = DOCS / "performance.md"
#: The results that the page shows.
KEPT = BENCHMARKS / "measured.json"
_SHOWN = ("product", "aiohttp", "nginx")
_SCALE = (DIRECT, "nginx", "aiohttp", TUNED, "product")


def write_page(results: Results) -> None:
    """Write the tables into the page and draw its plots."""
    PAGE.write_text(filled(PAGE.read_text(), made_tables(results)))
    draw(results, DOCS / "images")


def filled(page: str, made: dict[str, str]) -> str:
    """Return the page with each table between its markers: ``<!-- table: NAME -->`` and ``<!-- end -->``.

    :raises KeyError: if the page asks for a table that is not made.
    """

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}\n\n{made[match[2]]}\n\n<!-- end -->"

    return re.sub(r"(<!-- table: ([\w-]+) -->).*?<!-- end -->", fill, page, flags=re.S)


def made_tables(results: Results) -> dict[str, str]:
    """Return the tables of the page by name."""
    workloads = [one for one in tables.measured_workloads(results) if "linear" not in one.groups]
    titles = {name: case.about for name, case in CASES.items()}
    made: dict[str, Rows] = {
        "ratios": _ratios(results, workloads),
        "delays": _delays(results, [one for one in workloads if one.kind == "events"]),
        "gateways": tables.gateways(results, workloads),
        "chunks": tables.linearity(results, tables.names_in(results, ("aiohttp", TUNED, "product"))),
        "crowds": tables.crowds(results, tables.names_in(results, _SCALE)),
        "crowd-costs": tables.crowd_costs(results, tables.names_in(results, _SCALE)),
        "stalls": tables.stalls(results, tables.names_in(results, _SCALE), titles),
    }
    texts = {name: markdown(rows) if len(rows) > 1 else "Not measured." for name, rows in made.items()}
    return texts | {"measured": _measured(results)}


def _measured(results: Results) -> str:
    """Return when and how the results were measured."""
    crowds = [len(rounds) for by_name in results.crowds.values() for rounds in by_name.values()]
    figures = [len(rounds) for by_name in results.figures.values() for rounds in by_name.values()]
    lines = []
    for what, title, counts in (
        ("workloads", "CPU time and idle memory", figures),
        ("scale", "Many streams and large bodies", crowds),
    ):
        about = results.about.get(what)
        if about and counts:
            least, most = min(counts), max(counts)
            rounds = (
                f"{most} round{'s' if most > 1 else ''}" if least == most else f"{least} to {most} rounds"
            )
            where = f"{about['cpus']} cores, Python {about['python']}"
            lines.append(f"- {title}: {about['time'][:10]}, {where}, medians of {rounds}")
    return "\n".join(lines)


def _ratios(results: Results, workloads: list[Workload]) -> Rows:
    names = tables.names_in(results, _SHOWN)
    rows = [["workload", f"{TUNED}, ms", *names, "goal", "reached"]]
    for one in workloads:
        unit = " KiB" if one.kind == "hold" else ""
        rows.append(
            [
                f"{one.name}: {one.about}",
                number(results.middle(one.name, TUNED, "cost"), unit),
                *(_bold(tables.ratio_cell(results, one.name, name, TUNED), name) for name in names),
                *tables.goal_cells(results, one.name, TUNED),
            ]
        )
    return rows


def _bold(cell: str, name: str) -> str:
    return f"**{cell}**" if name == "product" and cell != "-" else cell


def _delays(results: Results, workloads: list[Workload]) -> Rows:
    names = tables.names_in(results, ("nginx", "aiohttp", TUNED, "product", "litellm"))
    rows = [["delay of an event, ms: p50 / p99", *(tables.TITLES.get(name, name) for name in names)]]
    for one in workloads:
        cells = []
        for name in names:
            p50, p99 = (results.middle(one.name, name, figure) for figure in ("p50_ms", "p99_ms"))
            cells.append("-" if p50 is None else f"{number(p50)} / {number(p99)}")
        rows.append([one.name, *cells])
    return rows
