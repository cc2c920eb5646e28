"""Figures: what a worker tells its parent of its metrics."""

from __future__ import annotations

from msgspec import Struct

from stream_proxy.observe.metrics.cells import Deltas
from stream_proxy.observe.metrics.gauges import Gauge


class Figures(Struct, frozen=True, array_like=True, tag="figures"):
    """A part of a worker's figures.

    ``gauges`` are all that it has above 0, in place of those before; ``None`` if they come with another part.
    """

    deltas: Deltas = Deltas()
    gauges: tuple[Gauge, ...] | None = None
