"""Sending what one reactor turn wrote at the end of that turn, instead of after the next poll."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

from twisted.internet.abstract import FileDescriptor
from twisted.internet.tcp import Connection


class _Prompt:
    """Stands in for one transport's ``startWriting``."""

    __slots__ = ("_transport", "_waiting")

    def __init__(self, transport: Any) -> None:
        # The transport holds this; with a strong reference back, only the cycle collector would free them.
        self._transport: Callable[[], Any] = ref(transport)
        self._waiting = False

    def start_writing(self) -> None:
        if not self._waiting:
            self._waiting = True
            transport = self._transport()
            transport.reactor.callLater(0, self._flush, transport)

    def at_once(self) -> None:
        """Send now: for transports that are written to once in a turn, and so need not wait for its end."""
        transport = self._transport()
        if len(transport.dataBuffer) > transport.offset:
            # With a backlog this may be a close, which Twisted marks as one only after this call.
            FileDescriptor.startWriting(transport)
        else:
            self._flush(transport)

    def _flush(self, transport: Any) -> None:
        self._waiting = False
        if not transport.connected or transport.fileno() < 0:
            return
        # Whatever is no writing, such as closing, is the reactor's business; so are errors, which the next
        # attempt meets again.
        busy = transport.disconnecting or not unsent(transport)
        if busy or transport.doWrite() or unsent(transport):
            FileDescriptor.startWriting(transport)


def send_promptly(transport: object, *, at_once: bool = False) -> None:
    """Let `transport`, a TCP connection, send without the reactor's asking first whether it may.

    What one turn wrote is sent together at its end; or, if `at_once`, each write by itself.

    Twisted watches for room to write after each write, which takes two system calls and a turn of the
    reactor; nearly always there is room. Where there is none, the rest waits as ever.
    """
    inner = tcp_connection(transport)
    if inner is not None:
        prompt = _Prompt(inner)
        inner.startWriting = prompt.at_once if at_once else prompt.start_writing  # type: ignore[method-assign]


def tcp_connection(transport: object) -> Connection | None:
    """What is below TLS and other wrappers, if that is a TCP or UNIX connection."""
    inner: object | None = transport
    while inner is not None and not isinstance(inner, Connection):
        inner = getattr(inner, "transport", None)
    return inner


def unsent(connection: Any) -> int:
    """How many bytes have been written to a connection and not yet handed to the kernel."""
    return len(connection.dataBuffer) - int(connection.offset) + int(connection._tempDataLen)
