"""Offer of a worker: the answers that it keeps, for retries that came to other workers, on a UNIX socket."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IReactorUNIX

from stream_proxy.downstream.site import ProxySite
from stream_proxy.flows.resuming.offering import OfferResource
from stream_proxy.flows.resuming.resumption import LostCalls
from stream_proxy.service.workers.messages import Kept, KeptHere
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
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # of a worker that was killed
        unix: Any = IReactorUNIX(reactor)
        self._port: IListeningPort = unix.listenUNIX(path, self._site, mode=0o600)
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
        return Deferred.fromCoroutine(self._close(grace))

    async def _close(self, grace: float) -> None:
        self._lost.orphans.announce = None
        await maybeDeferred(self._port.stopListening)
        await self._site.drain(grace)
