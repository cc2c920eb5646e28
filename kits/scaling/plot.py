"""Plot of the calls that each instance has, one picture a policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib import pyplot

#: A grey with enough contrast on white and on a dark page, as the background is transparent.
_TEXT, _GRID = "#6b7785", "#76839050"
_COLOURS = ("#e5484d", "#3e8bff", "#1fa885", "#a07cf0", "#d08a10", "#8b949e")
_STYLE = {
    "font.size": 11,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "svg.hashsalt": "openai-stream-proxy",
    "text.color": _TEXT,
    "axes.labelcolor": _TEXT,
    "axes.edgecolor": _GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
    "grid.color": _GRID,
}
#: Every so many seconds there is a point.
_STEP = 20


def draw(
    runs: Mapping[str, Sequence[Sequence[int]]], events: Mapping[str, int], start: int, path: Path
) -> None:
    """Draw the runs below each other.

    :param events: what happens, and in which second.
    :param start: the first second that is shown.
    """
    matplotlib.use("agg")
    with matplotlib.rc_context(_STYLE):
        figure, axes = pyplot.subplots(len(runs), 1, figsize=(9, 2.1 * len(runs)), sharex=True, sharey=True)
        for axis, (name, rows) in zip(axes, runs.items(), strict=True):
            minutes = [second / 60 for second in range(start, len(rows), _STEP)]
            for number, colour in zip(range(len(rows[0])), _COLOURS, strict=False):
                calls = [rows[second][number] for second in range(start, len(rows), _STEP)]
                axis.plot(minutes, calls, color=colour, linewidth=1.4)
            axis.set_title(name, loc="left", fontsize=12)
            axis.set_ylim(bottom=0)
            axis.grid(axis="y")
            for event, second in events.items():
                axis.axvline(second / 60, color=_TEXT, linestyle=":", linewidth=1)
                if axis is axes[0]:
                    axis.annotate(
                        event,
                        (second / 60, 1.0),
                        xycoords=("data", "axes fraction"),
                        ha="center",
                        va="bottom",
                    )
        axes[-1].set_xlabel("minutes")
        figure.supylabel("calls under way, by instance", fontsize=12)
        figure.tight_layout()
        figure.savefig(path, transparent=True, metadata={"Date": None})
        pyplot.close(figure)
