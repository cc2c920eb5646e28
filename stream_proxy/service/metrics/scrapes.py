"""Scrapes: texts for Prometheus, made over several turns of the reactor."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted.python.failure import Failure

from stream_proxy.observe.metrics.exposition import OPEN_METRICS, TEXT, accepts_open_metrics, exposition
from stream_proxy.service.metrics.gathering import Gathering
from stream_proxy.service.metrics.processes import Processes
from stream_proxy.transport.reactor import IReactor
from stream_proxy.transport.timers import Timeout

#: How many scrapes there may be at once.
MOST_SCRAPES = 2


class Scrape:
    """One text, a slice a turn.

    :param steps: makes it.
    :param ended: called once with the text, or with why there is none; not after :meth:`stop`.
    """

    def __init__(
        self, reactor: IReactor, steps: Iterator[bytes], ended: Callable[[bytes | Failure], None]
    ) -> None:
        self._steps = steps
        self._ended = ended
        self._timeout = Timeout(reactor)
        self._text: list[bytes] = []

    def start(self) -> None:
        """Make the first slice in the next turn."""
        self._timeout.start(0, self._next)

    def stop(self) -> None:
        """Make no more of it."""
        self._timeout.stop()

    def _next(self) -> None:
        try:
            step = next(self._steps, None)
        except Exception:
            self._ended(Failure())
            return
        if step is None:
            self._ended(b"".join(self._text))
        else:
            self._text.append(step)
            self._timeout.start(0, self._next)


class Scrapes:
    """Scrapes under way.

    :param gathering: has the figures.
    """

    def __init__(self, reactor: IReactor, gathering: Gathering) -> None:
        self._reactor = reactor
        self._gathering = gathering
        self._processes = Processes()
        self._running: set[Scrape] = set()

    def begin(
        self, accept: str, ended: Callable[[bytes, bytes | Failure], None]
    ) -> Callable[[], None] | None:
        """Begin a scrape; return what stops it, or ``None`` if there are too many.

        :param accept: the request's ``Accept``.
        :param ended: called once with the content type and the text, or why there is none.
        """
        if len(self._running) >= MOST_SCRAPES:
            return None
        open_metrics = accepts_open_metrics(accept)

        def done(text: bytes | Failure) -> None:
            self._running.discard(scrape)
            ended(OPEN_METRICS if open_metrics else TEXT, text)

        def stop() -> None:
            self._running.discard(scrape)
            scrape.stop()

        scrape = Scrape(self._reactor, self._text(open_metrics=open_metrics), done)
        self._running.add(scrape)
        scrape.start()
        return stop

    def _text(self, *, open_metrics: bool) -> Iterator[bytes]:
        for _ in self._gathering.look():
            yield b""
        series = list(self._gathering.series())
        yield b""
        series += self._processes.series(self._gathering.processes)
        yield b""
        yield from exposition(series, open_metrics=open_metrics)
