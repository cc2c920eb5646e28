"""Opening of connections that requests are sent on: when the first one may be sent."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener, ISSLTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from stream_proxy.transport.tuning import tune
from stream_proxy.upstream.failures import DeadPathError
from stream_proxy.upstream.slots import Occupant


@implementer(IHandshakeListener)
class Opening(Occupant):
    """Connection that is ready once it is made, over TLS once the handshake is done."""

    transport: Any

    #: Fires once when the first request may be sent; fails if the connection or its handshake does.
    ready: Deferred[None]

    def connectionMade(self) -> None:
        tune(self.transport)
        if not ISSLTransport.providedBy(self.transport):
            self.ready.callback(None)

    def handshakeCompleted(self) -> None:
        if not self.ready.called:
            self.ready.callback(None)

    def not_opened(self, reason: Failure) -> Failure:
        """Tell who waits that the connection has ended; return the reason, which a dead path replaces."""
        if self.path_is_dead:
            reason = Failure(DeadPathError())
        if not self.ready.called:
            self.ready.errback(reason)
        self.ready.addErrback(lambda _: None)  # whoever waited has got the failure
        return reason
