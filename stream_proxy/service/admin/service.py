"""Service of the admin port, and what it is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort

from stream_proxy.downstream.site import ProxySite
from stream_proxy.limits import Limits
from stream_proxy.observe.rows import Row
from stream_proxy.request_log import RequestLog
from stream_proxy.service.admin.access import AdminAccess
from stream_proxy.service.admin.feed import Feed, Source, serve_feed
from stream_proxy.service.admin.files import serve_page
from stream_proxy.service.admin.health import Status, serve_health
from stream_proxy.service.admin.router import AdminResource
from stream_proxy.service.listening import Listener
from stream_proxy.transport.reactor import IReactor

#: Clients of this port are few and near.
_LIMITS = Limits(
    client_idle_seconds=60.0, timeout_seconds=60.0, request_head_seconds=20.0, max_connections=256
)


class AdminService(Service):
    """Health checks and the page, on a port of their own.

    :param listener: where; it is closed when the service stops.
    :param access: who is answered.
    :param status: returns the state of the process.
    :param source: where requests are seen.
    :param state: returns what the page says of the service.
    """

    def __init__(
        self,
        reactor: IReactor,
        listener: Listener,
        access: AdminAccess,
        *,
        status: Callable[[], Status],
        source: Source,
        state: Callable[[], Row | None],
        log: RequestLog,
    ) -> None:
        self._reactor = reactor
        self._listener = listener
        #: Others may serve more on it.
        self.resource = AdminResource(reactor, access, log)
        self._feed = Feed(reactor, source, lambda: self._with_access(state()))
        serve_health(self.resource, status)
        serve_page(self.resource)
        serve_feed(self.resource, self._feed, source)
        self._site = ProxySite(self.resource, reactor=reactor, limits=_LIMITS, log=log)
        self._port: IListeningPort | None = None

    def change_access(self, keys: Iterable[bytes], hosts: Iterable[str]) -> None:
        """Answer for these from now on; viewers have to show a key again if these have changed."""
        before = self.resource.access
        access = self.resource.access = before.changed(keys, hosts)
        if not access.same_keys(before):
            self._feed.send_away()

    def _with_access(self, state: Row | None) -> Row:
        """Return `state`, and whether there is anything to log out of."""
        return {**(state or {}), "keyed": self.resource.access.has_keys}

    def startService(self) -> None:
        """Listen."""
        super().startService()
        self._port = self._listener.listen(self._reactor, self._site)

    def stopService(self) -> Deferred[None]:
        """Stop at once."""
        super().stopService()
        self._feed.stop()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
        self._listener.close()
        await self._site.drain(0)
