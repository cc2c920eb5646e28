"""Pipelined requests, each of which has a turn of the reactor.

Requests that are answered at once do not keep other clients waiting, however many come in one read.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from stream_proxy.downstream.strict_channel import StrictChannel
from stream_proxy.transport.timers import Timeout


class Pipeline:
    """Requests of a connection that wait for the next turn.

    :param clock: the reactor.
    """

    __slots__ = ("_next_turn",)

    def __init__(self, clock: IReactorTime) -> None:
        self._next_turn = Timeout(clock)

    def answered(self, channel: StrictChannel) -> None:
        """Leave what has come after a request that was answered while its read is worked on."""
        channel.paused = channel._busyReceiving

    def end_turn(self, channel: StrictChannel, go_on: Callable[[], None]) -> bool:
        """Call `go_on` in the next turn if a request waits for it; return whether one does."""
        if not (channel.paused and channel._buffer) or channel.is_closing:
            channel.paused = False
            return False
        channel._networkProducer.pauseProducing()
        if not self._next_turn.running:
            self._next_turn.start(0, go_on)
        return True

    def begin_turn(self, channel: StrictChannel) -> None:
        """Let `channel` read what was left."""
        channel.paused = False
        channel.dataReceived(b"")

    def stop(self) -> None:
        """Leave what waits unread."""
        self._next_turn.stop()
