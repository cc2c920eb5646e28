"""Connections of ours in a pool of the library's user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from zope.interface import implementer

from stream_proxy.upstream.twisted_client.connection import TwistedConnection


class _Factory(Factory):
    noisy = False

    def __init__(self, quiescent: Callable[[TwistedConnection], None]) -> None:
        self._quiescent = quiescent

    def buildProtocol(self, addr: object) -> TwistedConnection:
        return TwistedConnection(self._quiescent)


@implementer(IStreamClientEndpoint)
class PooledEndpoint:
    """Endpoint with which any ``HTTPConnectionPool`` makes connections of :class:`TwistedConnection`.

    :param endpoint: the endpoint to connect to.
    """

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, factory: Any) -> Any:
        return self._endpoint.connect(_Factory(factory._quiescentCallback))


def unwrapped(connection: Any) -> TwistedConnection:
    """Return a pool's connection without the wrapper that would send a request again."""
    return getattr(connection, "_clientProtocol", connection)  # type: ignore[no-any-return]
