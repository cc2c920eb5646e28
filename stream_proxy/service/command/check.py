"""Check of a configuration as far as it can be checked without opening a port."""

from __future__ import annotations

import re
from collections.abc import Callable

from twisted.internet.interfaces import IOpenSSLContextFactory

from stream_proxy.service.configuration.types import Admin, Config, Rule
from stream_proxy.service.listening import Listener, describe, gather_listeners
from stream_proxy.service.loops import Place, plain

#: Endpoints whose sockets come from whoever starts the process.
_INHERITED = re.compile(r"\bsystemd:")


def check_listening(config: Config, named: Callable[[str], str]) -> None:
    """Check where a configuration would listen.

    :param named: returns the name that errors give to a key of the config.
    :raises ConfigError: with a line for each endpoint that is none or is there twice, each rule that would
        spend its key for everyone, and each that leads back to itself.
    """
    gather_listeners(config, named, _unopened)


class _Unopened(Listener):
    """A listener without sockets."""

    def __init__(self, endpoint: str, place: Place | None) -> None:
        super().__init__(endpoint, [])
        self._place = place

    @property
    def place(self) -> Place | None:
        """The address and TCP port that it would have."""
        return self._place


def _unopened(endpoint: str, section: Rule | Admin) -> Listener:
    told = _Told()
    if not _INHERITED.search(endpoint):
        describe(endpoint, told)
    return _Unopened(endpoint, told.place)


class _Told:
    """A stand-in for a reactor that only notes where it should listen."""

    def __init__(self) -> None:
        self.place: Place | None = None

    def listenTCP(self, port: int, factory: object, backlog: int = 50, interface: str = "") -> None:
        """Note address and port."""
        self.place = plain(interface or "0.0.0.0"), port

    def listenSSL(
        self,
        port: int,
        factory: object,
        contextFactory: IOpenSSLContextFactory,
        backlog: int = 50,
        interface: str = "",
    ) -> None:
        """Check that key and certificate belong together, and note address and port."""
        contextFactory.getContext()
        self.listenTCP(port, factory, backlog, interface)

    def listenUNIX(self, address: str, factory: object, *_: object, **__: object) -> None:
        """Do nothing: only opening the file would show whether it can be opened."""
