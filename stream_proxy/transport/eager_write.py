"""Eager writes, which go out at the end of their reactor turn without first polling for room."""

from __future__ import annotations

from weakref import ref

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IReactorTime
from twisted.internet.tcp import Connection


class _Prompt:
    """Replacement for one transport's ``startWriting``."""

    __slots__ = ("_clock", "_transport", "_waiting")

    def __init__(self, transport: Connection) -> None:
        # The transport holds this; with a strong reference back, only the cycle collector would free them.
        self._transport = ref(transport)
        self._clock = IReactorTime(transport.reactor)
        self._waiting = False

    def start_writing(self) -> None:
        transport = self._transport()
        if transport is not None and not self._waiting:
            self._waiting = True
            self._clock.callLater(0, self._flush, transport)

    def at_once(self) -> None:
        """Send now, for transports that are written to once in a turn and so need not wait for its end."""
        transport = self._transport()
        if transport is None:
            return
        if len(transport.dataBuffer) > transport.offset:
            # With a backlog this may be loseConnection, which sets `disconnecting` only after this call.
            FileDescriptor.startWriting(transport)
        else:
            self._flush(transport)

    def _flush(self, transport: Connection) -> None:
        self._waiting = False
        if not transport.connected or transport.fileno() < 0:
            return
        # Closing is left to the reactor; so are errors, which its own attempt to write meets again.
        busy = transport.disconnecting or not unsent(transport)
        if busy or transport.doWrite() or unsent(transport):
            FileDescriptor.startWriting(transport)


def send_promptly(transport: object, *, at_once: bool = False) -> None:
    """Let `transport`, a TCP connection, send without polling first.

    Everything that one turn wrote is sent together at its end; with `at_once`, each write by itself.

    Twisted polls for room after each write, which takes two system calls and a turn of the reactor, although
    there nearly always is room. Where there is none, the rest waits for the poll as usual.
    """
    inner = tcp_connection(transport)
    if inner is not None:
        prompt = _Prompt(inner)
        inner.startWriting = prompt.at_once if at_once else prompt.start_writing  # type: ignore[method-assign]


def tcp_connection(transport: object) -> Connection | None:
    """Return the TCP or UNIX connection below TLS and other wrappers, if there is one."""
    inner: object | None = transport
    while inner is not None and not isinstance(inner, Connection):
        inner = getattr(inner, "transport", None)
    return inner


def unsent(connection: Connection) -> int:
    """Return how many written bytes the kernel has not been given yet."""
    return len(connection.dataBuffer) - int(connection.offset) + int(connection._tempDataLen)
