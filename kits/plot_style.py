"""Style of plots, which are readable on a light page and on a dark one."""

from __future__ import annotations

from typing import Any, Final

#: A grey with enough contrast on white and on a dark page, as the background is transparent.
TEXT: Final = "#6b7785"
GRID: Final = "#76839050"
#: Colours of lines, each of which is told from the others on either page.
RED: Final = "#e5484d"
BLUE: Final = "#3e8bff"
GREEN: Final = "#1fa885"
PURPLE: Final = "#a07cf0"
ORANGE: Final = "#d08a10"
GREY: Final = "#8b949e"


def style(font_size: int, **more: object) -> Any:
    """Return matplotlib's settings, as for its ``rc_context``; matplotlib's type for them names each one.

    :param more: further settings, with an underscore in place of the dot.
    """
    settings = {
        "font.size": font_size,
        "font.family": "sans-serif",
        "svg.fonttype": "none",
        "svg.hashsalt": "openai-stream-proxy",
        "text.color": TEXT,
        "axes.labelcolor": TEXT,
        "axes.edgecolor": GRID,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": TEXT,
        "ytick.color": TEXT,
        "grid.color": GRID,
    }
    return settings | {name.replace("_", "."): value for name, value in more.items()}
