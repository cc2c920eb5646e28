"""Clients that stop reading, or leave while nothing is read of them: neither is held for ever."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from collections.abc import Collection
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from stream_proxy.transport.eager_write import tcp_connection, unsent

#: How often connections are looked at: several times within the time that a stall may take, and seldom.
_LOOKS = 4
_LONGEST_SECONDS = 10.0
#: TCP_CLOSE and TCP_CLOSE_WAIT of Linux's net/tcp_states.h.
_PEER_CLOSED = (7, 8)


class StalledError(Exception):
    """A client took nothing of what was waiting for it, and was dropped."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The client took nothing for {seconds:g} seconds.")


class Outbox:
    """What waits to be sent on a connection, and for how long nothing of it has been taken.

    :param transport: any; where no TCP or UNIX connection is at the bottom of it, nothing ever waits.
    """

    __slots__ = ("_connection", "_given", "_send", "_since", "_taken")

    def __init__(self, transport: object) -> None:
        self._connection: Any = tcp_connection(transport)
        self._send: Any = None
        self._given = self._taken = 0
        self._since = 0.0

    @property
    def waiting(self) -> bool:
        """Whether there is anything, beside what the kernel holds."""
        return self._connection is not None and unsent(self._connection) > 0

    def stalled(self, now: float) -> float:
        """For how many seconds nothing has been taken; only what earlier calls have seen counts."""
        if not self.waiting:
            self.close()
            return 0.0
        if self._send is None:
            # Only now, because most connections never have anything that waits.
            self._send = self._connection.writeSomeData
            self._connection.writeSomeData = self._count
            self._given = 0
        elif self._given - _unacknowledged(self._connection) == self._taken:
            return now - self._since
        self._taken = self._given - _unacknowledged(self._connection)
        self._since = now
        return 0.0

    @property
    def deserted(self) -> bool:
        """Whether the peer has closed its end, also if nothing is read; where the system tells."""
        if sys.platform == "linux" and self._connection is not None:
            with contextlib.suppress(OSError):
                state = self._connection.getHandle().getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
                return state[0] in _PEER_CLOSED
        return False

    def close(self) -> None:
        """Look no longer."""
        if self._send is not None:
            self._send = None
            del self._connection.writeSomeData

    def _count(self, data: bytes) -> Any:
        sent = self._send(data)
        if isinstance(sent, int):
            self._given += sent
        return sent


class Sending(Protocol):
    """A connection with an outbox."""

    outbox: Outbox

    def stalled(self, seconds: float) -> None:
        """Its peer has taken nothing for so long."""

    def check(self) -> None:
        """See whether the peer is still there."""


class StallWatch:
    """Looks at connections from time to time, and tells those whose peers take nothing.

    :param connections: which; whoever adds the first calls :meth:`start`.
    :param seconds: for how long a peer may take nothing.
    """

    def __init__(self, clock: IReactorTime, connections: Collection[Sending], seconds: float) -> None:
        #: May change.
        self.seconds = seconds
        self._clock = clock
        self._connections = connections
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Look, unless that is under way."""
        if self._call is None:
            self._call = self._clock.callLater(min(self.seconds / _LOOKS, _LONGEST_SECONDS), self._look)

    def stop(self) -> None:
        """Look no longer."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _look(self) -> None:
        self._call = None
        self.start()
        now = self._clock.seconds()
        for connection in list(self._connections):
            if connection.outbox.stalled(now) >= self.seconds:
                connection.stalled(self.seconds)
            else:
                connection.check()


def _unacknowledged(connection: Any) -> int:
    """How many bytes the kernel holds that the peer's has not acknowledged, where the system tells.

    A kernel holds megabytes, and asks for more only when a good part of that is gone: by that alone, a client
    on a thin line would seem to stand still for minutes.
    """
    if sys.platform == "linux":
        import fcntl
        import termios

        with contextlib.suppress(OSError):
            count = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
            return int(struct.unpack("i", count)[0])
    return 0
