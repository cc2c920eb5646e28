"""Stalled clients: those that stop reading, vanish, or leave while their upload is paused, are dropped."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from collections.abc import Collection
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime

from stream_proxy.transport.dead_path import DEAD_SECONDS, Path
from stream_proxy.transport.eager_write import tcp_connection, unsent
from stream_proxy.transport.timers import Timeout

#: Looks at the connections within the time that a stall may take, and the longest time between two.
_LOOKS = 4
_LONGEST_SECONDS = 10.0
#: TCP_CLOSE and TCP_CLOSE_WAIT of Linux's net/tcp_states.h.
_PEER_CLOSED = (7, 8)


class StalledError(Exception):
    """A client was dropped because bytes for it did not move; the text says why."""

    @classmethod
    def took_nothing(cls, seconds: float) -> StalledError:
        """Return the error for a client that read nothing while bytes waited for it."""
        return cls(f"The client took nothing for {seconds:g} seconds.")

    @classmethod
    def vanished(cls) -> StalledError:
        """Return the error for a client whose system acknowledges nothing."""
        return cls(f"The path to the client is dead: it acknowledged nothing for {DEAD_SECONDS:g} seconds.")


class Outbox:
    """Bytes that wait to be sent on a connection, and for how long the peer has read none of them.

    :param transport: any transport; without a TCP or UNIX connection below it, nothing ever waits.
    """

    __slots__ = ("_connection", "_given", "_send", "_since", "_taken", "path")

    def __init__(self, transport: object) -> None:
        self._connection: Any = tcp_connection(transport)
        #: The way that they take.
        self.path = Path(transport)
        self._send: Any = None
        self._given = self._taken = 0
        self._since = 0.0

    @property
    def waiting(self) -> bool:
        """Whether any bytes wait, besides those that the kernel holds."""
        return self._connection is not None and unsent(self._connection) > 0

    def stalled(self, now: float) -> float:
        """Return for how many seconds the peer has read nothing, as far as earlier calls have seen."""
        if not self.waiting:
            self.close()
            return 0.0
        if self._send is None:
            # Only now, because on most connections nothing ever waits.
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
        """Whether the peer has closed its end, even while nothing is read; known on Linux only."""
        if sys.platform == "linux" and self._connection is not None:
            with contextlib.suppress(OSError):
                state = self._connection.getHandle().getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
                return state[0] in _PEER_CLOSED
        return False

    def close(self) -> None:
        """Stop counting."""
        if self._send is not None:
            self._send = None
            del self._connection.writeSomeData

    def _count(self, data: bytes) -> Any:
        sent = self._send(data)
        if isinstance(sent, int):
            self._given += sent
        return sent


class Sending(Protocol):
    """Connection with an outbox."""

    outbox: Outbox

    def stalled(self, seconds: float) -> None:
        """End the connection, whose peer has read nothing for so long."""

    def check(self, now: float) -> None:
        """End the connection if its peer has left or vanished."""


class StallWatch:
    """Watch over connections, which ends those whose peers do not read.

    :param connections: the connections; whoever adds the first one calls :meth:`start`.
    :param seconds: for how long a peer may read nothing.
    """

    def __init__(self, clock: IReactorTime, connections: Collection[Sending], seconds: float) -> None:
        #: May change.
        self.seconds = seconds
        self._clock = clock
        self._connections = connections
        self._timeout = Timeout(clock)

    def start(self) -> None:
        """Start to watch, unless that is under way."""
        if not self._timeout.running:
            self._timeout.start(min(self.seconds / _LOOKS, _LONGEST_SECONDS), self._look)

    def stop(self) -> None:
        """Stop to watch."""
        self._timeout.stop()

    def _look(self) -> None:
        self.start()
        now = self._clock.seconds()
        for connection in list(self._connections):
            if connection.outbox.stalled(now) >= self.seconds:
                connection.stalled(self.seconds)
            else:
                connection.check(now)


def _unacknowledged(connection: Any) -> int:
    """Return how many bytes the kernel holds that the peer has not acknowledged; 0 where that is unknown.

    A kernel holds megabytes, and takes more only when a good part of that is gone: without this a client on a
    slow line would seem to stand still for minutes.
    """
    if sys.platform == "linux":
        import fcntl
        import termios

        with contextlib.suppress(OSError):
            count = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
            return int(struct.unpack("i", count)[0])
    return 0
