"""Agent for HTTP between processes of one service, on UNIX sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.web.client import URI, Agent
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer


def unix_agent(reactor: IReactorTime, path: Callable[[bytes], str]) -> Agent:
    """Return an agent that makes a connection for each request, and logs none of them.

    :param path: returns the path of the socket that the host of a URL stands for.
    """
    agent: Agent = Agent.usingEndpointFactory(reactor, _Sockets(reactor, path))
    return agent


@implementer(IAgentEndpointFactory)
class _Sockets:
    """Endpoints by the host of a URL."""

    def __init__(self, reactor: IReactorTime, path: Callable[[bytes], str]) -> None:
        self._reactor = reactor
        self._path = path

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return _Quiet(UNIXClientEndpoint(self._reactor, self._path(uri.host)))


@implementer(IStreamClientEndpoint)
class _Quiet:
    """Endpoint whose connections are not in the log."""

    def __init__(self, endpoint: UNIXClientEndpoint) -> None:
        self._endpoint = endpoint

    def connect(self, factory: Any) -> Any:
        factory.noisy = False
        return self._endpoint.connect(factory)
