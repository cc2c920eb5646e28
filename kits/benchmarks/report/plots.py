"""Plots of results, as SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kits.benchmarks.contestants.base import DIRECT
from kits.benchmarks.goals import GOALS, TUNED
from kits.benchmarks.report.tables import TITLES, crowd_value, measured_workloads, names_in
from kits.benchmarks.results import Results
from kits.plot_style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, style

_COLOURS = {
    "product": RED,
    TUNED: BLUE,
    "aiohttp": GREEN,
    "nginx": PURPLE,
    DIRECT: GREY,
    "litellm": ORANGE,
}
_MARKERS = {"product": "o", TUNED: "s", "aiohttp": "D", "nginx": "^", DIRECT: "x", "litellm": "v"}
_CONTESTANTS = tuple(_COLOURS)
_STYLE = style(12, legend_frameon=False, lines_linewidth=2, lines_markersize=7)


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw what there are results for; return the files."""
    drawn = []
    for name, plot in (
        ("ratios", _ratios),
        ("chunks", _chunks),
        ("delay", _delay),
        ("memory", _memory),
    ):
        path = folder / f"performance-{name}.svg"
        if plot(results, path):
            drawn.append(path)
    return drawn


@contextmanager
def _figure(path: Path, height: float) -> Iterator[Any]:
    """Yield the axes of a figure, which is written to `path` afterwards."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(6.8, height), layout="constrained")
        axes = figure.subplots()
        axes.set_axisbelow(True)
        yield axes
        # Without a date the same results make the same file.
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, transparent=True, metadata={"Date": None})


def _style(name: str) -> dict[str, Any]:
    return {
        "color": _COLOURS[name],
        "marker": _MARKERS[name],
        "label": TITLES.get(name, name),
        "zorder": 4 if name == "product" else 3,
    }


def _numbers(axis: Any) -> None:
    """Label a logarithmic axis with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def _ratios(results: Results, path: Path) -> bool:
    """Draw a row for each workload: the contestants' cost relative to the reference, and the goal."""
    workloads = [
        one
        for one in measured_workloads(results)
        if "linear" not in one.groups and results.ratio(one.name, "product", TUNED) is not None
    ]
    if not workloads:
        return False
    names = [name for name in names_in(results, _CONTESTANTS) if name not in (TUNED, DIRECT, "litellm")]
    with _figure(path, 1.3 + 0.33 * len(workloads)) as axes:
        rows = range(len(workloads))
        axes.axvline(1, color=_COLOURS[TUNED], linewidth=2, label=f"{TUNED} = 1", zorder=2)
        for name in names:
            points = [
                (results.ratio(one.name, name, TUNED), row) for one, row in zip(workloads, rows, strict=True)
            ]
            hollow = [(one.name, name) in results.relayed for one in workloads]
            style = _style(name)
            label = style.pop("label")
            for full in (True, False):
                chosen = [
                    point
                    for point, relayed in zip(points, hollow, strict=True)
                    if point[0] is not None and relayed is not full
                ]
                if chosen:
                    note = label if full else f"{label}, only relaying"
                    face = style["color"] if full else "none"
                    axes.plot(
                        *zip(*chosen, strict=True), **style, linestyle="", markerfacecolor=face, label=note
                    )
        goals = [
            (goal.most * (results.ratio(one.name, goal.reference, TUNED) or 0), row)
            for one, row in zip(workloads, rows, strict=True)
            if (goal := GOALS.get(one.name))
        ]
        style = {"color": _COLOURS["product"], "marker": "|", "markersize": 13, "markeredgewidth": 1.5}
        axes.plot(
            *zip(*goals, strict=True), **style, linestyle="", label="goal of product", alpha=0.7, zorder=3
        )
        axes.set_xscale("log")
        _numbers(axes.xaxis)
        axes.set_yticks(list(rows), [one.name for one in workloads])
        axes.invert_yaxis()
        axes.grid(True)
        axes.set_xlabel("CPU time (idle: memory), ratio to aiohttp-tuned; less is better")
        axes.figure.legend(loc="outside upper left", ncols=3, fontsize=10)
    return True


def _chunks(results: Results, path: Path) -> bool:
    """Draw the cost of a chunk in conversions of several lengths."""
    workloads = [one for one in measured_workloads(results) if "linear" in one.groups]
    lines = {
        name: [
            (float(one.units), cost * 1000)
            for one in workloads
            if (cost := results.middle(one.name, name, "cpu_ms")) is not None
            and (one.name, name) not in results.relayed
        ]
        for name in _CONTESTANTS
    }
    return _lines(path, lines, "chunks in the stream", "CPU microseconds per chunk", logarithmic=("x", "y"))


def _delay(results: Results, path: Path) -> bool:
    """Draw the delay of events as streams grow."""
    return _lines(
        path,
        _crowd_lines(results, "p99_ms"),
        "open streams",
        "delay of an event, p99, ms",
        logarithmic=("x", "y"),
    )


def _memory(results: Results, path: Path) -> bool:
    """Draw the memory of a process as streams grow."""
    return _lines(
        path, _crowd_lines(results, "resident_mib"), "open streams", "resident memory, MiB", logarithmic=()
    )


def _crowd_lines(results: Results, figure: str) -> dict[str, list[tuple[float, float]]]:
    return {
        name: [
            (int(case.split("x")[0]), value)
            for case in results.crowds
            if (value := crowd_value(results, case, name, figure)) is not None
        ]
        for name in _CONTESTANTS
    }


def _lines(
    path: Path,
    lines: dict[str, list[tuple[float, float]]],
    across: str,
    up: str,
    *,
    logarithmic: Sequence[str],
) -> bool:
    """Draw a line for each contestant that has two points at least."""
    lines = {name: sorted(points) for name, points in lines.items() if len(points) > 1}
    if not lines:
        return False
    with _figure(path, 3.6) as axes:
        for name, points in lines.items():
            axes.plot(*zip(*points, strict=True), **_style(name))
        if "x" in logarithmic:
            axes.set_xscale("log")
        if "y" in logarithmic:
            axes.set_yscale("log")
            _numbers(axes.yaxis)
        else:
            axes.set_ylim(bottom=0)
        every = sorted({point[0] for points in lines.values() for point in points})
        axes.set_xticks(every, [f"{one:,.0f}" for one in every])
        axes.xaxis.set_minor_locator(_no_ticks())
        axes.grid(True)
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.figure.legend(loc="outside upper left", ncols=5, fontsize=10)
    return True


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()
