"""Pipelined requests, each of which has a turn of the reactor, once the client reads what came before.

Requests that are answered at once do not keep other clients waiting, however many come in one read. Nor do
responses pile up for a client that does not read them.
"""

from __future__ import annotations

from functools import partial

from twisted.internet.interfaces import IReactorTime

from stream_proxy.downstream.strict_channel import StrictChannel
from stream_proxy.transport.timers import Timeout

#: How many requests that were pipelined are still answered on a connection that is to close.
_MOST_FURTHER = 100
#: For how long a connection that could not say that it ends takes further requests, one after the other.
_PATIENCE_SECONDS = 10.0


class Pipeline:
    """Requests of a connection that wait for the next turn, or for the client to read.

    :param clock: the reactor.
    """

    __slots__ = ("_clock", "_ends_since", "_further", "_next_turn")

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._next_turn = Timeout(clock)
        self._further = 0
        self._ends_since: float | None = None

    def answered(self, channel: StrictChannel) -> None:
        """Leave what comes after a request that was answered while its read is worked on, or is not read."""
        channel.paused = channel._busyReceiving or channel._waitingForTransport

    def is_last(self, channel: StrictChannel) -> bool:
        """Report whether the client has sent nothing behind the request that is answered, or too much."""
        return not (any(channel._dataBuffer) or channel._buffer) or self._further >= _MOST_FURTHER

    def end(self, channel: StrictChannel, *, at_once: bool) -> None:
        """Let the response that is complete be the last, unless the client has sent more.

        It may have had no length, and could not say so: the client would not know what became of the rest.

        :param at_once: otherwise further requests may still come for some seconds.
        """
        now = self._clock.seconds()
        if self._ends_since is None:
            self._ends_since = now
        if self.is_last(channel) and (at_once or now - self._ends_since >= _PATIENCE_SECONDS):
            channel.persistent = False
        self._further += 1

    def end_turn(self, channel: StrictChannel) -> bool:
        """Begin the next request in the next turn, or once the client reads; return whether it waits."""
        waits = channel._buffer or channel._waitingForTransport
        if not (channel.paused and waits) or channel.is_closing:
            channel.paused = False
            return False
        if channel._buffer:
            channel.pause_reading()
            if not self._next_turn.running:
                self._next_turn.start(0, partial(self._begin_turn, channel))
        return True

    def _begin_turn(self, channel: StrictChannel) -> None:
        if channel._waitingForTransport:
            # The channel ends this turn again when the client has read. Under TLS this may be known only now,
            # because what a turn wrote is encrypted at its end.
            return
        channel.paused = False
        channel.dataReceived(b"")
        if not (channel.paused or channel.is_closing or channel._waitingForTransport or channel.is_full):
            channel.resume_reading()

    def stop(self) -> None:
        """Leave what waits unread."""
        self._next_turn.stop()
