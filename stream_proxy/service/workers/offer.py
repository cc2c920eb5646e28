"""Offer of a worker: the answers that it keeps, for retries that came to other workers, on a UNIX socket."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from stream_proxy.downstream.site import ProxySite
from stream_proxy.flows.resuming.offering import OfferResource
from stream_proxy.flows.resuming.resumption import LostCalls
from stream_proxy.service.workers.messages import Kept, KeptHere
from stream_proxy.service.workers.private_port import PrivatePort
from stream_proxy.transport.reactor import IReactor


class OfferPort:
    """What a worker gives the others, and what it knows of them.

    :param path: where, in a directory that nobody else can enter.
    :param lost: what it keeps.
    :param tell: tells the parent.
    """

    def __init__(
        self, reactor: IReactor, path: str, lost: LostCalls, tell: Callable[[KeptHere], None]
    ) -> None:
        self._lost = lost
        self._site = ProxySite(OfferResource(reactor, lost), reactor=reactor)
        self._port = PrivatePort(reactor, path, self._site)
        lost.orphans.announce = lambda digest, there: tell(KeptHere(digest, there))

    def note(self, news: Kept) -> None:
        """Note what another worker keeps."""
        elsewhere = self._lost.elsewhere
        for digest in news.digests:
            if news.there:
                elsewhere[digest] = news.path
            elif elsewhere.get(digest) == news.path:
                del elsewhere[digest]

    def abort(self) -> None:
        """Abort what is being waited for."""
        self._site.abort()

    def close(self, grace: float) -> Deferred[None]:
        """Stop offering, and give what is being waited for so many seconds."""
        self._lost.orphans.announce = None
        return Deferred.fromCoroutine(self._port.close(grace))
