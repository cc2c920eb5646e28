"""Plot of the calls that each instance has, one picture a policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib import pyplot

from kits.plot_style import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, TEXT, style

_COLOURS = (RED, BLUE, GREEN, PURPLE, ORANGE, GREY)
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
    with matplotlib.rc_context(style(11)):
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
                axis.axvline(second / 60, color=TEXT, linestyle=":", linewidth=1)
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
