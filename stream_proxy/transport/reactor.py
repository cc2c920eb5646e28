"""Reactors that this package runs on: their interface, the time that they count, and how they poll."""

from __future__ import annotations

import sys
import time
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
from twisted.logger import Logger

from stream_proxy.transport import eager_tls, eager_write

_log = Logger()


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
    """Return the process's reactor, which counts monotonic time from now on, and polls leanly if it can.

    The first import installs Twisted's default one.
    """
    from twisted.internet import reactor

    # Twisted declares only what all platforms have; every POSIX reactor provides the rest.
    installed = cast(IReactor, reactor)
    count_monotonic_time(installed)
    fits = eager_write.FITS and eager_tls.FITS
    if sys.platform == "linux":
        from stream_proxy.transport import lean_epoll

        lean_epoll.poll_leanly(installed)
        fits = fits and lean_epoll.FITS
    if not fits:
        _log.debug("Twisted or pyOpenSSL is not as expected, so some connections take the plain, slower way")
    return installed


def count_monotonic_time(reactor: IReactor) -> None:
    """Have `reactor` count time that no step of the wall clock moves.

    Twisted's reactors count with ``time.time``. A clock that is set forward by an hour would end everything
    that has a limit; one that is set back would stop all delayed calls for as long.

    :raises RuntimeError: the reactor's delayed calls do not follow its ``seconds``.
    """
    if reactor.seconds is not time.time:  # a clock of its own, or this has been done
        return
    monotonic = time.monotonic
    # Delayed calls that exist already are due by the wall clock, so this one goes on from there.
    offset = time.time() - monotonic()

    def seconds() -> float:
        return monotonic() + offset

    reactor.seconds = seconds  # type: ignore[method-assign]
    call = reactor.callLater(0, int)
    call.cancel()
    if getattr(call, "seconds", None) is not seconds:
        raise RuntimeError("this version of Twisted offers no way to count monotonic time")
