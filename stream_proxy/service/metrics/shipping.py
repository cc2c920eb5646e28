"""Shipping: a worker's figures, sent to its parent every second."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from stream_proxy.observe.metrics.cells import Cells
from stream_proxy.service.configuration.types import Config
from stream_proxy.service.metrics.collection import Collection
from stream_proxy.service.metrics.figures import Figures
from stream_proxy.service.rules import ProxyService
from stream_proxy.transport.reactor import IReactor
from stream_proxy.transport.timers import Timeout

#: How often figures are sent.
SHIP_SECONDS = 1.0
#: How many cells one message has, and how long the next one waits: the pipe must not become full.
_MOST_CELLS, _PAUSE_SECONDS = 100, 0.03


class Shipping:
    """Figures of a worker, on their way to its parent.

    :param service: serves the rules.
    :param send: writes a message at once.
    """

    def __init__(self, reactor: IReactor, service: ProxyService, send: Callable[[Figures], None]) -> None:
        self._cells = Cells()
        self._collection = Collection(reactor, service, self._cells, "")
        self._send = send
        self._timeout = Timeout(reactor)
        self._steps: Iterator[None] = iter(())
        self._ships = False

    def apply(self, config: Config) -> None:
        """Send what `config` says, from now on."""
        self._collection.apply(config)
        self._ships = config.admin is not None
        if not self._ships:
            self._timeout.stop()
        elif not self._timeout.running:
            self._begin()

    def stop(self) -> None:
        """Send the last figures, and no more."""
        self._timeout.stop()
        self._collection.stop()
        if self._ships:
            self._ships = False
            for deltas in self._cells.take(_MOST_CELLS):
                self._send(Figures(deltas))

    def _begin(self) -> None:
        self._steps = self._ship()
        self._next()

    def _next(self) -> None:
        for _ in self._steps:
            self._timeout.start(_PAUSE_SECONDS, self._next)
            return
        self._timeout.start(SHIP_SECONDS, self._begin)

    def _ship(self) -> Iterator[None]:
        yield from self._collection.look()
        # The parent knows what may be 0: a message must not grow with the rules.
        self._send(Figures(gauges=tuple(each for each in self._collection.gauges() if each.value)))
        for deltas in self._cells.take(_MOST_CELLS):
            self._send(Figures(deltas))
            yield
