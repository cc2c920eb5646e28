"""Resource whose requests are answered out of one upstream."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import IAgent
from twisted.web.resource import Resource

from stream_proxy.http.access import Access
from stream_proxy.http.url import UpstreamURL
from stream_proxy.limits import Limits
from stream_proxy.request_log import RequestLog
from stream_proxy.upstream.client import Upstream
from stream_proxy.upstream.route import Route


class UpstreamResource(Resource):
    """A resource whose requests are answered out of one upstream, for which see its subclasses."""

    isLeaf = True
    #: Our own site renders this as soon as a request's head is in.
    streamsUploads = True

    def __init__(
        self,
        url: UpstreamURL,
        *,
        reactor: Any,
        limits: Limits | None,
        agent: IAgent | None,
        pool: HTTPConnectionPool | None,
        log: RequestLog | None,
        access: Access | None = None,
        route: Route | None = None,
    ) -> None:
        super().__init__()
        if reactor is None:
            from twisted.internet import reactor
        self.limits = limits if limits is not None else Limits()
        self.clock: IReactorTime = reactor
        self.log = log if log is not None else RequestLog()
        self.access = access if access is not None else Access()
        self.upstream = Upstream(
            reactor,
            url,
            agent=agent,
            pool=pool,
            access=self.access,
            route=route,
            connect_seconds=self.limits.connect_seconds,
            max_connections=self.limits.max_upstream_connections,
            max_waiting=self.limits.max_upstream_waiting,
        )

    def close(self) -> Deferred[object]:
        """Drop the connections that are idle. Requests under way end with their clients."""
        return self.upstream.close()
