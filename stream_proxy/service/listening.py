"""Listeners: opened once, before anything else starts, and kept open over reloads.

A listener is described by a Twisted endpoint (``tcp:8080``, ``ssl:443:…``, ``unix:…``, ``systemd:…``,
``haproxy:tcp:8080``). One process opens its sockets; the same or other processes listen on them, and the
endpoint tells them how (TLS, the PROXY protocol).
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Callable, Collection, Mapping

from msgspec import UnsetType
from OpenSSL import SSL, crypto
from twisted.internet import tcp
from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import quoteStringArgument
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from stream_proxy.errors import ConfigError
from stream_proxy.service.configuration.types import Admin, Config, Rule
from stream_proxy.service.endpoints import Adopter, CannotOpenError, Opener, listen
from stream_proxy.service.loops import Place, check_loops, plain
from stream_proxy.transport.ports import tcp_socket
from stream_proxy.transport.reactor import IReactor

#: systemd's sockets can be taken over once; afterwards they are listened on like others.
_SYSTEMD = re.compile(r"\b(systemd:.*)")


class Listener:
    """One endpoint and its open sockets.

    :param endpoint: the endpoint's description.
    :param sockets: bound sockets, one for each process that accepts.
    :param path: the file of a UNIX socket that is ours to remove.
    :param expires: when its certificate does, in seconds since the epoch, if it has one.
    """

    def __init__(
        self,
        endpoint: str,
        sockets: list[socket.socket],
        path: str | None = None,
        expires: float | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.sockets = sockets
        self.expires = expires
        self._path = path

    @property
    def port(self) -> int | None:
        """The TCP port, if it has one."""
        return self.place[1] if self.place is not None else None

    @property
    def place(self) -> Place | None:
        """The address and TCP port, if it has one."""
        name = self.sockets[0].getsockname()
        return (plain(name[0]), name[1]) if isinstance(name, tuple) else None

    @property
    def encrypted(self) -> bool:
        """Whether it has a key and a certificate, which may be renewed while it is open."""
        return bool(re.search(r"\bssl:", self.endpoint))

    @property
    def local(self) -> bool:
        """Whether only this machine can connect."""
        return self.place is None or self.place[0].is_loopback

    def listen(self, reactor: IReactor, factory: IProtocolFactory) -> IListeningPort:
        """Accept connections on the first socket."""
        port = listen(_SYSTEMD.sub("tcp:0", self.endpoint), Adopter(reactor, self.sockets[0]), factory)
        assert port is not None  # an endpoint of an open socket listens at once
        return port

    def close(self) -> None:
        """Close the sockets in this process; ports that listen on them have duplicates."""
        for each in self.sockets:
            each.close()
        if self._path is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)


def endpoint_of(section: Rule | Admin) -> str:
    """Return the endpoint that a section of the config describes."""
    if isinstance(section, Rule) and section.listen is not None:
        return section.listen
    assert not isinstance(section.listen_port, UnsetType)
    interface = section.listen_address or any_interface()
    where = f":interface={quoteStringArgument(interface)}" if interface else ""
    return f"tcp:{section.listen_port}{where}"


def any_interface() -> str:
    """Return the address that stands for all: ``::`` accepts IPv6 and IPv4, where there is IPv6."""
    try:
        with tcp_socket("::") as probe:
            probe.bind(("::", 0))
    except OSError:
        return ""
    return "::"


def open_listeners(
    config: Config,
    named: Callable[[str], str],
    held: Mapping[str, Listener] | None = None,
    ours: Collection[int] = (),
) -> dict[str, Listener]:
    """Open the listeners of a configuration.

    :param named: returns the name that errors give to a key of the config.
    :param held: listeners that are open already, and stay so.
    :param ours: TCP ports that processes of ours listen on, or did until just now.
    :return: all listeners of `config` by their endpoints.
    :raises ConfigError: one cannot be opened, or a rule leads back to itself. Then none is.
    """
    held = held or {}
    opened: list[Listener] = []
    renewed: dict[Listener, float | None] = {}

    def listener_of(endpoint: str, section: Rule | Admin) -> Listener:
        listener = held.get(endpoint)
        if listener is None:
            count = config.workers if isinstance(section, Rule) else 1
            listener = open_listener(endpoint, count, ours)
            opened.append(listener)
        elif listener.encrypted:
            # Whether its files are still good.
            renewed[listener] = open_listener(endpoint, 0, ours).expires
        return listener

    try:
        listeners = gather_listeners(config, named, listener_of)
    except ConfigError:
        for each in opened:
            each.close()
        raise
    for listener, expires in renewed.items():
        listener.expires = expires
    return listeners


def gather_listeners(
    config: Config, named: Callable[[str], str], listener_of: Callable[[str, Rule | Admin], Listener]
) -> dict[str, Listener]:
    """Return the listeners of a configuration by their endpoints.

    :param listener_of: returns the listener of an endpoint, and raises as :func:`open_listener` does.
    :raises ConfigError: with a line for each that cannot be used, and each rule that leads back to itself.
    """
    wanted: list[tuple[str, Rule | Admin]] = [
        (f"rules[{i}].{'listenPort' if rule.listen is None else 'listen'}", rule)
        for i, rule in enumerate(config.rules)
    ]
    if config.admin is not None:
        wanted.append(("admin.listenPort", config.admin))
    listeners: dict[str, Listener] = {}
    problems: list[str] = []
    for key, section in wanted:
        endpoint = endpoint_of(section)
        if endpoint in listeners:
            problems.append(f"{named(key)}: {endpoint} is used already")
            continue
        try:
            listener = listener_of(endpoint, section)
        except (ValueError, OSError) as error:
            problems.append(f"{named(key)}: {_problem(endpoint, error)}")
            continue
        if listener.port is not None and any(listener.port == each.port for each in listeners.values()):
            problems.append(f"{named(key)}: port {listener.port} is used already")
        if isinstance(section, Rule) and section.open_wallet and not listener.local:
            name = named(key.partition(".")[0])
            problems.append(
                f"{name}.clientKeys: is required where a rule with a key of its own can be reached from "
                "elsewhere; or set listenAddress to 127.0.0.1"
            )
        listeners[endpoint] = listener
    try:
        check_loops(config.rules, _places(config, listeners), named)
    except ConfigError as error:
        problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return listeners


def _places(config: Config, listeners: Mapping[str, Listener]) -> dict[int, Place]:
    found = ((index, listeners.get(endpoint_of(rule))) for index, rule in enumerate(config.rules))
    return {index: each.place for index, each in found if each is not None and each.place is not None}


def _problem(endpoint: str, error: ValueError | OSError) -> str:
    if not isinstance(error, OSError):
        return str(error)
    port = re.match(r"tcp:(\d+)", endpoint)
    where = f"port {port[1]}" if port else endpoint
    return f"cannot listen on {where}: {error.strerror or error}"


def open_listener(endpoint: str, count: int = 1, ours: Collection[int] = ()) -> Listener:
    """Open a listener.

    :param count: for how many processes; for none, the endpoint is only checked.
    :param ours: TCP ports that processes of ours listen on; they may be shared.
    :raises ValueError: `endpoint` does not describe anything that can be listened on.
    :raises OSError: the system refuses.
    """
    opener = Opener(count, ours)
    describe(endpoint, opener)
    if count and not opener.sockets:
        raise ValueError(f"{endpoint} is nothing that can be listened on")
    return Listener(endpoint, opener.sockets, opener.path, opener.expires)


def describe(endpoint: str, reactor: object) -> None:
    """Listen on an endpoint with a stand-in for a reactor, which is told what that means.

    :raises ValueError: `endpoint` does not describe anything that can be listened on.
    :raises OSError: the system refuses.
    """
    try:
        listen(endpoint, reactor, Factory())
    except CannotOpenError as error:
        raise error.reason from None
    except (SSL.Error, crypto.Error):
        raise ValueError(f"{endpoint} names a key or certificate that cannot be used") from None
    except OSError as error:
        raise ValueError(f"{endpoint} cannot be used: {error.strerror}: {error.filename}") from None
    except Exception as error:
        if _SYSTEMD.search(endpoint) and isinstance(error, LookupError):
            raise ValueError(f"{endpoint} is no socket that systemd has passed to this process") from None
        words = " ".join(str(error).split())
        raise ValueError(f"{endpoint} is no Twisted endpoint description: {words}") from None


async def stop_accepting(port: IListeningPort) -> None:
    """Close a port, but first accept all connections that wait on it: closing would reset them."""
    if not isinstance(port, tcp.Port):
        await maybeDeferred(port.stopListening)
        return
    port.stopReading()
    # Port.stopListening() would close it one turn later too, and reset the connections that came until then.
    await deferLater(IReactorTime(port.reactor), 0)
    before = None
    while before != (before := port.sessionno):  # how many connections it has accepted
        port.doRead()
    port.connectionLost(Failure(ConnectionDone()))
