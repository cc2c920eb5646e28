"""Pings of the proxy's own, to a side that is silent: one that does not answer has vanished."""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from stream_proxy.transport.idle_timer import IdleTimer
from stream_proxy.websocket.frames import ping_frame
from stream_proxy.websocket.side import Connection, Side

#: Bytes of a ping's payload, by which its pong is known from those that answer the other side.
_PAYLOAD_BYTES = 8


class Pings:
    """Pings to one side, which end with its pongs: the other side sees neither.

    While a ping of the other side's is unanswered none is sent, as a peer may answer only the latest
    (RFC 6455 section 5.5.3).

    :param seconds: the silence after which a ping goes out, and then the time for an answer.
    :param side: the side that is pinged.
    :param other: the side whose frames it is sent.
    :param vanished: called once if nothing comes in answer.
    """

    def __init__(
        self,
        clock: IReactorTime,
        seconds: float,
        side: Side[Connection],
        other: Side[Connection],
        vanished: Callable[[], None],
    ) -> None:
        self._side = side
        self._other = other
        self._vanished: Callable[[], None] | None = vanished
        self._pinged = False
        #: The payload of each, for as long as the session: a late pong is known, too.
        self._payload = side.frames.awaited = os.urandom(_PAYLOAD_BYTES)
        self._timer = IdleTimer(clock, seconds, self._silent)

    def heard(self) -> None:
        """Note that something came from the side."""
        self._pinged = False
        self._timer.touch()

    def stop(self) -> None:
        """Send no more."""
        self._timer.stop()
        self._vanished = None

    def _silent(self) -> None:
        side, other, vanished = self._side, self._other, self._vanished
        # A side that is not read, or to which bytes still wait, cannot be judged by its silence.
        judged = not (side.paused or other.paused)
        if judged and self._pinged and vanished is not None:
            self.stop()
            vanished()
            return
        if judged and not other.frames.inside_frame and not self._is_asked():
            self._pinged = True
            side.write(ping_frame(self._payload, masked=side.masked))
        self._timer.touch()

    def _is_asked(self) -> bool:
        """Report whether a ping that was relayed to the side is unanswered."""
        asked = self._other.frames.ping
        return asked is not None and asked != self._side.frames.pong
