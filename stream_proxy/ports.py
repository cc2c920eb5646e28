"""What is listened on: opened once, before anything else is begun, and kept open over reloads.

A place is a Twisted endpoint description (``tcp:8080``, ``ssl:443:…``, ``unix:…``, ``systemd:…``,
``haproxy:tcp:8080``). Its sockets are opened by one process and listened on by the same or by others; the
description then says how (TLS, the PROXY protocol).
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
from collections.abc import Callable, Collection, Mapping
from ipaddress import ip_address
from typing import Any, cast

from msgspec import UnsetType
from OpenSSL import SSL, crypto
from twisted.internet import tcp, unix
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from stream_proxy.config import Admin, Config, ConfigError, Rule

#: How many connections may wait to be accepted.
BACKLOG = 1024
#: systemd's sockets can be taken over once; whoever has them afterwards listens on what they are.
_SYSTEMD = re.compile(r"\b(systemd:.*)")


class Place:
    """One place that is listened on.

    :param endpoint: its description.
    :param sockets: open and bound, one for each process that accepts there.
    :param path: of a UNIX socket that is ours to remove.
    """

    def __init__(self, endpoint: str, sockets: list[socket.socket], path: str | None = None) -> None:
        self.endpoint = endpoint
        self.sockets = sockets
        self._path = path

    @property
    def port(self) -> int | None:
        """Its TCP port, if it has one."""
        name = self.sockets[0].getsockname()
        return name[1] if isinstance(name, tuple) else None

    @property
    def encrypted(self) -> bool:
        """Whether it takes a key and a certificate, which may be renewed while it is open."""
        return bool(re.search(r"\bssl:", self.endpoint))

    @property
    def local(self) -> bool:
        """Whether only this machine reaches it."""
        name = self.sockets[0].getsockname()
        return not isinstance(name, tuple) or ip_address(name[0].partition("%")[0]).is_loopback

    def listen(self, reactor: Any, factory: Any) -> IListeningPort:
        """Accept connections on the first socket."""
        adopter = _Adopter(reactor, self.sockets[0])
        port: IListeningPort = _listen(_SYSTEMD.sub("tcp:0", self.endpoint), adopter, factory)
        return port

    def close(self) -> None:
        """Listen no more, in this process."""
        for each in self.sockets:
            each.close()
        if self._path is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)


def endpoint_of(place: Rule | Admin) -> str:
    """The description of where `place` is listened on."""
    if isinstance(place, Rule) and place.listen is not None:
        return place.listen
    assert not isinstance(place.listen_port, UnsetType)
    interface = place.listen_address or any_interface()
    where = f":interface={quoteStringArgument(interface)}" if interface else ""
    return f"tcp:{place.listen_port}{where}"


def any_interface() -> str:
    """All addresses: ``::`` takes IPv6 and IPv4, where there is IPv6."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return ""
    return "::"


def open_places(
    config: Config,
    named: Callable[[str], str],
    held: Mapping[str, Place] | None = None,
    ours: Collection[int] = (),
) -> dict[str, Place]:
    """Open what `config` wants to be listened on.

    :param named: what an error calls the place of a key.
    :param held: what is open already, and stays so.
    :param ours: TCP ports that processes of ours listen on, or did until just now.
    :return: all places by their descriptions.
    :raises ConfigError: one cannot be opened. Then none is.
    """
    held = held or {}
    wanted: list[tuple[str, Rule | Admin]] = [
        (f"rules[{i}].{'listenPort' if rule.listen is None else 'listen'}", rule)
        for i, rule in enumerate(config.rules)
    ]
    if config.admin is not None:
        wanted.append(("admin.listenPort", config.admin))
    places: dict[str, Place] = {}
    opened: list[Place] = []
    try:
        for key, each in wanted:
            endpoint = endpoint_of(each)
            place = held.get(endpoint)
            if endpoint in places:
                raise ConfigError(f"{named(key)}: {endpoint} is used already")
            if place is not None and place.encrypted:
                _open_named(endpoint, 0, ours, named(key))  # whether its files are still good
            if place is None:
                count = config.workers if isinstance(each, Rule) else 1
                place = _open_named(endpoint, count, ours, named(key))
                opened.append(place)
            if place.port is not None and any(place.port == other.port for other in places.values()):
                raise ConfigError(f"{named(key)}: port {place.port} is used already")
            if isinstance(each, Rule) and each.open_wallet and not place.local:
                rule = named(key.partition(".")[0])
                raise ConfigError(
                    f"{rule}.clientKeys: is required where a rule with a key of its own can be reached from "
                    "elsewhere; or set listenAddress to 127.0.0.1"
                )
            places[endpoint] = place
    except ConfigError:
        for place in opened:
            place.close()
        raise
    return places


def _open_named(endpoint: str, count: int, ours: Collection[int], name: str) -> Place:
    try:
        return open_place(endpoint, count, ours)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None
    except OSError as error:
        port = re.match(r"tcp:(\d+)", endpoint)
        where = f"port {port[1]}" if port else endpoint
        raise ConfigError(f"{name}: cannot listen on {where}: {error.strerror or error}") from None


def open_place(endpoint: str, count: int = 1, ours: Collection[int] = ()) -> Place:
    """Open a place.

    :param count: for how many processes; for none, its description is only checked.
    :param ours: TCP ports that processes of ours listen on; they may be shared.
    :raises ValueError: `endpoint` is no description of a place that can be listened on.
    :raises OSError: it cannot be.
    """
    opener = _Opener(count, ours)
    try:
        _listen(endpoint, opener, Factory())
    except _CannotOpenError as error:
        raise error.reason from None
    except (SSL.Error, crypto.Error):
        raise ValueError(f"{endpoint} names a key or certificate that cannot be used") from None
    except OSError as error:
        raise ValueError(f"{endpoint} cannot be used: {error.strerror}: {error.filename}") from None
    except Exception as error:
        words = " ".join(str(error).split())
        raise ValueError(f"{endpoint} is no Twisted endpoint description: {words}") from None
    if count and not opener.sockets:
        raise ValueError(f"{endpoint} is nothing that can be listened on")
    return Place(endpoint, opener.sockets, opener.path)


def stop_accepting(port: Any) -> Any:
    """Stop a port once what waits to be accepted is; closing it would reset these connections.

    :return: a Deferred, or ``None``.
    """
    before = None
    while before != (before := getattr(port, "sessionno", None)):
        port.doRead()
    return port.stopListening()


def _listen(endpoint: str, reactor: Any, factory: Any) -> Any:
    """Listen, and have the outcome at once."""
    outcome: list[Any] = []
    serverFromString(reactor, endpoint).listen(factory).addBoth(outcome.append)
    if outcome and isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    return outcome[0] if outcome else None


class _CannotOpenError(Exception):
    """The system refuses, for this reason."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class _Opener:
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
        raise _CannotOpenError(error) from None


class _UNIXPort(unix.Port):
    """A UNIX socket that is shared: whoever opened it removes its file."""

    def connectionLost(self, reason: Failure) -> None:
        tcp.Port.connectionLost(self, reason)


class _Adopter:
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


def probe(port: int, interface: str) -> None:
    """See that nobody else listens on a port, which shared sockets would not notice.

    :raises OSError: somebody does, or the port cannot be had.
    """
    with socket.socket(_family(interface), socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((interface, port))
        listener.listen(1)


def _tcp_socket(port: int, interface: str, backlog: int) -> socket.socket:
    listener = socket.socket(_family(interface), socket.SOCK_STREAM)
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


def _family(interface: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in interface else socket.AF_INET


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
