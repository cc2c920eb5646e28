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
from collections.abc import Callable, Collection, Mapping
from ipaddress import ip_address
from typing import Any

from msgspec import UnsetType
from OpenSSL import SSL, crypto
from twisted.internet.endpoints import quoteStringArgument
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory

from stream_proxy.errors import ConfigError
from stream_proxy.service.config import Admin, Config, Rule
from stream_proxy.service.endpoints import Adopter, CannotOpenError, Opener, listen

#: systemd's sockets can be taken over once; whoever has them afterwards listens on what they are.
_SYSTEMD = re.compile(r"\b(systemd:.*)")


class Listener:
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
        adopter = Adopter(reactor, self.sockets[0])
        port: IListeningPort = listen(_SYSTEMD.sub("tcp:0", self.endpoint), adopter, factory)
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


def open_listeners(
    config: Config,
    named: Callable[[str], str],
    held: Mapping[str, Listener] | None = None,
    ours: Collection[int] = (),
) -> dict[str, Listener]:
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
    places: dict[str, Listener] = {}
    opened: list[Listener] = []
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


def _open_named(endpoint: str, count: int, ours: Collection[int], name: str) -> Listener:
    try:
        return open_listener(endpoint, count, ours)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None
    except OSError as error:
        port = re.match(r"tcp:(\d+)", endpoint)
        where = f"port {port[1]}" if port else endpoint
        raise ConfigError(f"{name}: cannot listen on {where}: {error.strerror or error}") from None


def open_listener(endpoint: str, count: int = 1, ours: Collection[int] = ()) -> Listener:
    """Open a place.

    :param count: for how many processes; for none, its description is only checked.
    :param ours: TCP ports that processes of ours listen on; they may be shared.
    :raises ValueError: `endpoint` is no description of a place that can be listened on.
    :raises OSError: it cannot be.
    """
    opener = Opener(count, ours)
    try:
        listen(endpoint, opener, Factory())
    except CannotOpenError as error:
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
    return Listener(endpoint, opener.sockets, opener.path)


def stop_accepting(port: Any) -> Any:
    """Stop a port, once what waits to be accepted is: closing it resets these connections.

    :return: a Deferred, or ``None``.
    """
    lost = port.connectionLost

    def connection_lost(reason: Any) -> None:
        # Twisted closes a port one turn after it was asked to. Many may come in that time.
        before = None
        while before != (before := getattr(port, "sessionno", None)):
            port.doRead()
        lost(reason)

    port.connectionLost = connection_lost
    return port.stopListening()
