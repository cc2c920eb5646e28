"""Resource whose requests are answered out of one upstream."""

from __future__ import annotations

from typing import Any, TypedDict, Unpack

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import IAgent
from twisted.web.resource import Resource

from stream_proxy.http.access import Access
from stream_proxy.http.url import UpstreamURL, doubled_path
from stream_proxy.limits import Limits
from stream_proxy.observe.ledger import Ledger
from stream_proxy.request_log import RequestLog
from stream_proxy.upstream.client import Upstream
from stream_proxy.upstream.route import Route


class ResourceOptions(TypedDict, total=False):
    """Keywords that every resource with an upstream takes; each may be left out or ``None``.

    ``reactor``: the reactor; by default the running one.
    ``limits``: times, sizes and counts, as in the configuration.
    ``agent``: an agent to send requests through; it stays the caller's.
    ``pool``: a pool of connections to share; it stays the caller's.
    ``log``: the log of finished requests.
    ``access``: the keys that clients call with, and the one that the upstream is called with.
    ``route``: the egress proxy, the authorities to trust and the certificate to show; by default those of the
    environment and the system.
    ``ledger``: lists the requests under way.
    ``name``: the rule's name there and in the log; by default the upstream's origin.
    """

    reactor: Any
    limits: Limits | None
    agent: IAgent | None
    pool: HTTPConnectionPool | None
    log: RequestLog | None
    access: Access | None
    route: Route | None
    ledger: Ledger | None
    name: str | None


class UpstreamResource(Resource):
    """Base of the resources that answer out of one upstream.

    :param url: the upstream's base URL.
    :raises ValueError: if the route leads nowhere.
    """

    isLeaf = True
    #: ProxySite renders such a resource as soon as a request's head is in.
    streamsUploads = True

    def __init__(self, url: UpstreamURL, **options: Unpack[ResourceOptions]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        reactor: Any = options.get("reactor")
        if reactor is None:
            from twisted.internet import reactor
        self.limits = options.get("limits") or Limits()
        self.clock: IReactorTime = reactor
        self.log = options.get("log") or RequestLog()
        self.access = options.get("access") or Access()
        self.ledger = options.get("ledger") or Ledger(self.clock.seconds)
        self.name = options.get("name") or url.origin
        #: Requests have to stay below the upstream's URL: its path or the key is the operator's.
        self.is_confined = bool(url.prefix) or self.access.injects
        self._warned = False
        #: Only the requests under way are answered, by what was configured before.
        self.closed = False
        self.upstream = Upstream(
            reactor,
            url,
            self.limits,
            agent=options.get("agent"),
            pool=options.get("pool"),
            access=self.access,
            route=options.get("route"),
        )

    def not_found(self, path: bytes) -> None:
        """Warn once if the upstream's 404 for `path` comes of two base URLs that end alike."""
        url = self.upstream.url
        doubled = None if self._warned else doubled_path(url.prefix, path)
        if doubled is not None:
            self._warned = True
            version = doubled.decode("ascii", "backslashreplace")
            self.log.warn(
                f"{url.origin} answers 404 to paths with {version * 2}; remove {version} from the end of "
                "upstreamUrl, or of the client's base URL"
            )

    def close(self) -> Deferred[object]:
        """Drop the idle connections. Requests under way end with their clients."""
        self.closed = True
        return self.upstream.close()
