"""Twisted endpoints in two steps: one process opens the sockets, the same or another one listens on them.

An endpoint asks its reactor to listen. The stand-ins for the reactor here use that request to open sockets
(:class:`Opener`), or to listen on open ones (:class:`Adopter`).
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Collection

from OpenSSL import SSL
from twisted.internet import tcp, unix
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IOpenSSLContextFactory, IProtocolFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from stream_proxy.transport.ports import BACKLOG, probe, tcp_socket
from stream_proxy.transport.reactor import IReactor


def listen(endpoint: str, reactor: object, factory: IProtocolFactory) -> IListeningPort | None:
    """Listen, and return what the method of `reactor` returned: the endpoint's Deferred has fired by then."""
    outcome: list[IListeningPort | Failure | None] = []
    serverFromString(reactor, endpoint).listen(factory).addBoth(outcome.append)
    port = outcome[0] if outcome else None
    if isinstance(port, Failure):
        port.raiseException()
    return port


class CannotOpenError(Exception):
    """A socket that the system refuses to open, as opposed to an endpoint that makes no sense."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Opener:
    """Stand-in for an endpoint's reactor: opens the sockets and does not listen on them.

    :param count: how many processes accept; none, if the endpoint is only checked.
    :param ours: TCP ports that processes of ours listen on; they may be shared.
    """

    def __init__(self, count: int, ours: Collection[int]) -> None:
        self.sockets: list[socket.socket] = []
        #: The file of a UNIX socket.
        self.path: str | None = None
        #: When the certificate expires, since the epoch.
        self.expires: float | None = None
        self._count = count
        self._ours = ours

    # The methods have the names and parameters of the reactor's.
    def listenTCP(self, port: int, factory: object, backlog: int = 50, interface: str = "") -> None:
        """Open a TCP socket for each process."""
        try:
            if self._count and port not in self._ours:
                probe(port, interface)
            # The system distributes the connections between the sockets.
            for _ in range(self._count):
                self.sockets.append(_tcp_socket(port, interface, max(backlog, BACKLOG)))
        except OSError as error:
            self._fail(error)

    def listenSSL(
        self,
        port: int,
        factory: object,
        contextFactory: IOpenSSLContextFactory,
        backlog: int = 50,
        interface: str = "",
    ) -> None:
        """Check that key and certificate belong together, and open TCP sockets."""
        certificate = SSL.Connection(contextFactory.getContext()).get_certificate()
        if certificate is not None:
            self.expires = certificate.to_cryptography().not_valid_after_utc.timestamp()
        self.listenTCP(port, factory, backlog, interface)

    def listenUNIX(
        self, address: str, factory: object, backlog: int = 50, mode: int = 0o666, wantPID: bool = False
    ) -> None:
        """Open a UNIX socket, and replace a file that no process serves any more."""
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sockets.append(server)
        try:
            _remove_stale(address)
            server.bind(address)
            self.path = os.path.abspath(address)
            os.chmod(address, mode)
            server.listen(max(backlog, BACKLOG))
        except OSError as error:
            self._fail(error)
        server.setblocking(False)
        self._share(server)

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: object) -> None:
        """Take over a socket that was open before, such as systemd's."""
        server = socket.fromfd(fileDescriptor, addressFamily, socket.SOCK_STREAM)
        server.setblocking(False)
        self.sockets.append(server)
        self._share(server)

    def _share(self, server: socket.socket) -> None:
        """Let all processes accept on the one socket."""
        self.sockets += [server.dup() for _ in range(self._count - 1)]

    def _fail(self, error: OSError) -> None:
        for each in self.sockets:
            each.close()
        raise CannotOpenError(error) from None


class _UNIXPort(unix.Port):
    """A UNIX socket shared with other processes; the one that opened it removes its file."""

    def connectionLost(self, reason: Failure) -> None:
        tcp.Port.connectionLost(self, reason)  # unix.Port's removes the file


class Adopter:
    """Stand-in for an endpoint's reactor: listens on a socket that is open."""

    def __init__(self, reactor: IReactor, server: socket.socket) -> None:
        self._reactor = reactor
        self._server = server

    def __getattr__(self, name: str) -> object:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: IProtocolFactory, *_: object, **__: object) -> IListeningPort:
        """Accept on the socket, whatever its family: systemd's is described as TCP."""
        server = self._server
        if server.family == socket.AF_UNIX:
            return self.listenUNIX("", factory)
        return self._reactor.adoptStreamPort(server.fileno(), server.family, factory)

    def listenSSL(
        self,
        port: int,
        factory: IProtocolFactory,
        contextFactory: IOpenSSLContextFactory,
        *_: object,
        **__: object,
    ) -> IListeningPort:
        """Accept TLS on the socket."""
        return self.listenTCP(port, TLSMemoryBIOFactory(contextFactory, False, factory))

    def listenUNIX(self, address: str, factory: IProtocolFactory, *_: object, **__: object) -> IListeningPort:
        """Accept on a UNIX socket."""
        port: _UNIXPort = _UNIXPort._fromListeningDescriptor(self._reactor, self._server.fileno(), factory)
        # The port sets the file's mode when it begins to listen; that must change nothing.
        port.mode = stat.S_IMODE(os.stat(self._server.getsockname()).st_mode)
        port.startListening()
        return port


def _tcp_socket(port: int, interface: str, backlog: int) -> socket.socket:
    server = tcp_socket(interface)
    try:
        if hasattr(socket, "SO_REUSEPORT"):
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind((interface, port))
        server.listen(backlog)
        server.setblocking(False)
    except OSError:
        server.close()
        raise
    return server


def _remove_stale(path: str) -> None:
    """Remove the file of a UNIX socket that no process listens on any more."""
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
