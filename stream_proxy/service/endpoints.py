"""Twisted endpoints in two steps: one process opens the sockets, the same or another listens on them.

An endpoint asks its reactor to listen. What stands in for the reactor here opens the sockets that this takes,
or listens on those that are open.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Collection
from typing import Any, cast

from twisted.internet import tcp, unix
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from stream_proxy.transport.ports import BACKLOG, address_family, probe


def listen(endpoint: str, reactor: Any, factory: Any) -> Any:
    """Listen, and have the outcome at once."""
    outcome: list[Any] = []
    serverFromString(reactor, endpoint).listen(factory).addBoth(outcome.append)
    if outcome and isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return outcome[0] if outcome else None


class CannotOpenError(Exception):
    """The system refuses, for this reason."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Opener:
    """Takes a reactor's place in an endpoint: opens the sockets, and leaves the listening to others."""

    def __init__(self, count: int, ours: Collection[int]) -> None:
        self.sockets: list[socket.socket] = []
        self.path: str | None = None
        self._count = count
        self._ours = ours

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> None:
        """The reactor's method of this name, as are the others."""
        try:
            if self._count and port not in self._ours:
                probe(port, interface)
            # Each process has a socket of its own, between which the system distributes the connections.
            for _ in range(self._count):
                self.sockets.append(_tcp_socket(port, interface, max(backlog, BACKLOG)))
        except OSError as error:
            self._fail(error)

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> None:
        contextFactory.getContext()  # whether key and certificate belong together
        self.listenTCP(port, factory, backlog, interface)

    def listenUNIX(
        self, address: str, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sockets.append(listener)
        try:
            _remove_stale(address)
            listener.bind(address)
            self.path = os.path.abspath(address)
            os.chmod(address, mode)
            listener.listen(max(backlog, BACKLOG))
        except OSError as error:
            self._fail(error)
        listener.setblocking(False)
        self._share(listener)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> None:
        listener = socket.fromfd(fileDescriptor, addressFamily, socket.SOCK_STREAM)
        listener.setblocking(False)
        self.sockets.append(listener)
        self._share(listener)

    def _share(self, listener: socket.socket) -> None:
        """All processes accept on the one socket that there is."""
        self.sockets += [listener.dup() for _ in range(self._count - 1)]

    def _fail(self, error: OSError) -> None:
        for each in self.sockets:
            each.close()
        raise CannotOpenError(error) from None


class _UNIXPort(unix.Port):
    """A UNIX socket that is shared: whoever opened it removes its file."""

    def connectionLost(self, reason: Failure) -> None:
        tcp.Port.connectionLost(self, reason)


class Adopter:
    """Takes a reactor's place in an endpoint: listens on a socket that is open."""

    def __init__(self, reactor: Any, listener: socket.socket) -> None:
        self._reactor = reactor
        self._listener = listener

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> IListeningPort:
        listener = self._listener
        if listener.family == socket.AF_UNIX:
            return self.listenUNIX("", factory)
        adopted: IListeningPort = self._reactor.adoptStreamPort(listener.fileno(), listener.family, factory)
        return adopted

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        return self.listenTCP(port, TLSMemoryBIOFactory(contextFactory, False, factory))

    def listenUNIX(
        self, address: str, factory: Any, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> IListeningPort:
        port: Any = _UNIXPort._fromListeningDescriptor(self._reactor, self._listener.fileno(), factory)
        port.mode = stat.S_IMODE(os.stat(self._listener.getsockname()).st_mode)  # what it listens with
        port.startListening()
        return cast(IListeningPort, port)


def _tcp_socket(port: int, interface: str, backlog: int) -> socket.socket:
    listener = socket.socket(address_family(interface), socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((interface, port))
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _remove_stale(path: str) -> None:
    """Remove the file of a UNIX socket that nobody listens on any more."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
