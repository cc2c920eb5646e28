"""Observation of a worker: the feed of its requests, for its parent alone, on a UNIX socket."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from stream_proxy.downstream.site import ProxySite
from stream_proxy.request_log import RequestLog
from stream_proxy.service.admin.access import AdminAccess
from stream_proxy.service.admin.feed import Feed, Source, serve_feed
from stream_proxy.service.admin.router import AdminResource
from stream_proxy.service.workers.private_port import PrivatePort
from stream_proxy.transport.reactor import IReactor


class ObservationPort:
    """What a worker serves its parent.

    :param path: where, in a directory that nobody else can enter.
    :param source: the worker's requests.
    """

    def __init__(self, reactor: IReactor, path: str, source: Source, log: RequestLog) -> None:
        #: Others may serve more on it.
        self.resource = AdminResource(reactor, AdminAccess(), log)
        self._feed = Feed(reactor, source)
        serve_feed(self.resource, self._feed, source)
        self._port = PrivatePort(reactor, path, ProxySite(self.resource, reactor=reactor, log=log))

    def close(self) -> Deferred[None]:
        """Stop at once."""
        self._feed.stop()
        return Deferred.fromCoroutine(self._port.close(0))
