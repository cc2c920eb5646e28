"""Health checks for load balancers and orchestrators, on a port of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from stream_proxy.downstream.response import respond, respond_error
from stream_proxy.downstream.site import ProxySite
from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import invalid_request
from stream_proxy.service.listening import Listener
from stream_proxy.transport.reactor import IReactor

Status = Literal["starting", "ready", "draining"]
_IDLE_SECONDS = 60.0


class AdminResource(Resource):
    """``/healthz``: the process runs. ``/readyz``: it takes requests, else 503.

    :param status: returns the state of the process.
    """

    isLeaf = True
    #: Nothing here needs a body, so none is waited for or kept.
    streamsUploads = True

    def __init__(self, status: Callable[[], Status]) -> None:
        super().__init__()
        self._status = status

    def render(self, request: Request) -> int:
        """Respond to `request`."""
        path = request.path
        if path not in (b"/healthz", b"/readyz"):
            respond_error(
                request, invalid_request("Only /healthz and /readyz are served here.", ErrorCode.UNKNOWN_URL)
            )
        elif request.method not in (b"GET", b"HEAD"):
            respond_error(
                request,
                invalid_request("Only GET is served here.", ErrorCode.METHOD_NOT_SUPPORTED),
                [(b"Allow", b"GET, HEAD")],
            )
        else:
            status = "ok" if path == b"/healthz" else self._status()
            code = 200 if status in ("ok", "ready") else 503
            body = msgspec.json.encode({"status": status})
            respond(request, code, None, [(b"Cache-Control", b"no-store")], body)
        return NOT_DONE_YET


class AdminService(Service):
    """Serves :class:`AdminResource`.

    :param listener: where; it is closed when the service stops.
    """

    def __init__(self, reactor: IReactor, listener: Listener, status: Callable[[], Status]) -> None:
        self._reactor = reactor
        self._listener = listener
        self._site = ProxySite(AdminResource(status), reactor=reactor, idle_seconds=_IDLE_SECONDS)
        self._port: IListeningPort | None = None

    def startService(self) -> None:
        """Listen."""
        super().startService()
        self._port = self._listener.listen(self._reactor, self._site)

    def stopService(self) -> Deferred[None]:
        """Stop at once."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)
        self._listener.close()
        await self._site.drain(0)
