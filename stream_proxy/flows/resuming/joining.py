"""Joining: a retry that takes the answer which the call before it left, without asking the upstream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from stream_proxy.downstream.closing import service_stopping
from stream_proxy.downstream.request import has_left
from stream_proxy.flows.exchange import Exchange, heartbeat_for
from stream_proxy.flows.resuming.orphan import Joiner, Result
from stream_proxy.observe.record import Phase
from stream_proxy.request_log import Outcome

#: Tells clients that the answer is that of a call before.
RESUMED = (b"x-stream-proxy-resumed", b"true")


class Source(Protocol):
    """Where the answer comes from."""

    def join(self, joiner: Joiner) -> None:
        """Give `joiner` the result as soon as there is one."""

    def part(self) -> None:
        """Note that the retry has left without it."""

    def end(self) -> None:
        """Note that the retry has it."""


class KnownResult:
    """Result that is there, and stays."""

    def __init__(self, result: Result) -> None:
        self._result = result

    def join(self, joiner: Joiner) -> None:
        joiner.resumed(self._result)

    def part(self) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""


class Joining:
    """Flow of a retry.

    :param exchange: the retry.
    :param source: where its answer comes from.
    :param late: called with an error that goes out after a head.
    """

    def __init__(self, exchange: Exchange, source: Source, late: Callable[[Result], None]) -> None:
        self._exchange = exchange
        self._late = late
        self._source: Source | None = source
        self._heartbeat = heartbeat_for(exchange, self._head_due, self._stopped)
        exchange.record.mode = "resumed"
        exchange.record.phase = Phase.FIRST_EVENT

    def start(self) -> None:
        """Wait for the answer."""
        self._heartbeat.start()
        if self._source is not None:
            self._source.join(self)

    def cancel(self) -> None:
        """End because the client has left, too, and the answer waits for the next retry; or was ended."""
        source, self._source = self._source, None
        if source is not None:
            source.part()
            if not has_left(self._exchange.request):
                source.end()
        self._end(Outcome.gone(self._heartbeat.sent))

    def resumed(self, result: Result) -> None:
        """Answer as the call before would have."""
        heartbeat = self._heartbeat
        headers = [*result.headers, RESUMED]
        if heartbeat.begun:
            self._late(result)
        if result.error is not None:
            heartbeat.fail(result.error, headers)
            self._taken(Outcome.failed(result.error, heartbeat.sent))
        elif len(result.pieces) <= 1:
            heartbeat.respond(result.status, result.reason, headers, b"".join(result.pieces))
            self._taken(Outcome(result.status, heartbeat.sent))
        else:
            heartbeat.respond_in_pieces(
                result.status,
                result.reason,
                headers,
                result.pieces,
                lambda: self._taken(Outcome(result.status, heartbeat.sent)),
            )

    def _taken(self, outcome: Outcome) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.end()
        self._end(outcome)

    def _end(self, outcome: Outcome) -> None:
        outcome = self._heartbeat.amended(outcome)
        self._heartbeat.stop()
        self._exchange.finished(outcome)

    def _head_due(self) -> None:
        self._heartbeat.begin(200, None, (RESUMED,))

    def _stopped(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.part()
        error = service_stopping()
        self._heartbeat.fail(error, ())
        self._end(Outcome.failed(error, self._heartbeat.sent))
