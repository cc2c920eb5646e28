"""Interface of the reactors that this package runs on."""

from __future__ import annotations

from socket import AddressFamily
from typing import cast

from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorCore,
    IReactorFromThreads,
    IReactorProcess,
    IReactorSocket,
    IReactorTCP,
    IReactorTime,
)


class IReactor(IReactorCore, IReactorFromThreads, IReactorProcess, IReactorSocket, IReactorTCP, IReactorTime):
    """A POSIX reactor, as far as this package uses it.

    Code that only needs a part asks for that part, such as ``IReactorTime``: tests can then pass a ``Clock``.
    """

    # Twisted's own interfaces promise less than each of its reactors does: here are the types that hold.

    def run(installSignalHandlers: bool = True) -> None:
        """Run until it is stopped."""

    def listenTCP(
        port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """Accept TCP connections."""

    def adoptStreamPort(
        fileDescriptor: int, addressFamily: AddressFamily, factory: IProtocolFactory
    ) -> IListeningPort:
        """Accept connections on a socket that listens."""

    def adoptStreamConnection(
        fileDescriptor: int, addressFamily: AddressFamily, factory: IProtocolFactory
    ) -> None:
        """Use a socket that is connected."""


def installed_reactor() -> IReactor:
    """Return the process's reactor; the first import installs Twisted's default one."""
    from twisted.internet import reactor

    # Twisted declares only what all platforms have; every POSIX reactor provides the rest.
    return cast(IReactor, reactor)
