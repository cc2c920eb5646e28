"""Dead paths: connections whose peer acknowledges nothing of what is sent.

TCP itself gives up after some 15 minutes, and probes of idle connections do not run while data is under way.
``TCP_USER_TIMEOUT`` is no answer: it also ends connections whose peer acknowledges, but does not read.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from stream_proxy.transport.eager_write import tcp_connection
from stream_proxy.transport.timers import Timeout

#: How long a peer may acknowledge nothing.
DEAD_SECONDS = 30.0
_LOOK_SECONDS = 5.0
#: How much Linux may be behind with a time that it counts in ticks.
_TICKS_SECONDS = 0.5

#: ``struct tcp_info`` of Linux's linux/tcp.h: tcpi_retransmits, tcpi_probes, tcpi_unacked,
#: tcpi_last_data_sent, tcpi_last_ack_recv, tcpi_notsent_bytes (since Linux 4.6).
_INFO = struct.Struct("=2x2B20xI16xI8xI84xI")


@dataclass(frozen=True, slots=True)
class PathState:
    """State of one connection as TCP sees it.

    :param retransmits: attempts to send again what is under way, since some of it was acknowledged.
    :param probes: unanswered probes of a closed window, or of an idle connection.
    :param under_way: segments and bytes that are not acknowledged.
    :param sent: seconds since anything was sent.
    :param acknowledged: seconds since the last acknowledgement.
    """

    retransmits: int
    probes: int
    under_way: int
    sent: float
    acknowledged: float

    @property
    def unanswered(self) -> bool:
        """Whether TCP has tried again and waits for the peer.

        The waits between two attempts grow to minutes. They are no silence of a peer that has acknowledged,
        without progress, the last one.
        """
        if not self.under_way:  # only an idle connection is probed, which has a limit of its own
            return False
        return self.probes > 0 or (self.retransmits > 0 and self.sent < self.acknowledged)


def path_state(connection: object) -> PathState | None:
    """Return the state of a TCP connection, where the system tells."""
    handle = getattr(connection, "getHandle", lambda: None)()
    if sys.platform == "linux" and isinstance(handle, socket.socket):
        with contextlib.suppress(OSError, struct.error):
            info = handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
            retransmits, probes, unacked, sent, acknowledged, unsent = _INFO.unpack(info)
            return PathState(retransmits, probes, unacked + unsent, sent / 1000, acknowledged / 1000)
    return None


class Path:
    """Path to the peer of one connection.

    :param transport: any transport; without TCP below it, the path is never dead.
    """

    __slots__ = ("_connection", "_since")

    def __init__(self, transport: object) -> None:
        self._connection = tcp_connection(transport)
        #: When an attempt was first seen that the peer has not answered.
        self._since: float | None = None

    def is_dead(self, now: float) -> bool:
        """Report whether nothing was acknowledged for so long, as far as earlier calls have seen.

        The last acknowledgement may be hours old when data is sent again, so it alone means nothing.
        """
        state = path_state(self._connection)
        if state is None or not state.unanswered:
            self._since = None
        elif self._since is None or state.acknowledged + _TICKS_SECONDS < now - self._since:
            self._since = now
        return self._since is not None and now - self._since >= DEAD_SECONDS


class Traveller(Protocol):
    """Connection on a path."""

    @property
    def transport(self) -> object:
        """The transport, TLS included."""

    def path_died(self) -> None:
        """End the connection."""


class PathWatch:
    """Watch over connections, which ends those whose path is dead.

    :param clock: the reactor.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._timeout = Timeout(clock)
        self._paths: dict[Traveller, Path] = {}

    def add(self, connection: Traveller) -> None:
        """Watch over `connection`."""
        self._paths[connection] = Path(connection.transport)
        if not self._timeout.running:
            self._timeout.start(_LOOK_SECONDS, self._look)

    def discard(self, connection: Traveller) -> None:
        """Leave `connection` alone."""
        self._paths.pop(connection, None)
        if not self._paths:
            self._timeout.stop()

    def _look(self) -> None:
        self._timeout.start(_LOOK_SECONDS, self._look)
        now = self._clock.seconds()
        for connection, path in list(self._paths.items()):
            if connection in self._paths and path.is_dead(now):
                connection.path_died()
