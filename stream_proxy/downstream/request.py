"""Request that can be rendered before its body is in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.protocols.haproxy._wrapper import HAProxyProtocolWrapper
from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.resource import IResource

from stream_proxy.downstream.lean_request import LeanRequest
from stream_proxy.downstream.request_body import RequestBody
from stream_proxy.downstream.strict_channel import StrictChannel, StrictSite
from stream_proxy.http.headers import RawHeader, raw_headers
from stream_proxy.transport.peer import peer_host


def request_fields(request: server.Request) -> list[RawHeader]:
    """Return the header fields of `request`, as they came where it is a :class:`ProxyRequest`."""
    if isinstance(request, ProxyRequest):
        return request.raw_fields
    return raw_headers(request.requestHeaders.getAllRawHeaders())


def client_address(request: server.Request) -> str:
    """Return the client's address without its port, that of the PROXY protocol where it is spoken."""
    channel = request.channel
    if isinstance(channel, StrictChannel):
        return channel.client_address
    return peer_host(None if channel is None else channel.transport)


def is_framed(request: server.Request) -> bool:
    """Report whether the head of `request` announces a body, be it an empty one."""
    if isinstance(request, ProxyRequest):
        return request.framed
    headers = request.requestHeaders
    return headers.hasHeader(b"Content-Length") or headers.hasHeader(b"Transfer-Encoding")


def comes_through_hop(request: server.Request) -> bool:
    """Report whether HTTP/1.0 or the PROXY protocol shows a hop between the client and the proxy."""
    channel = request.channel
    return request.clientproto == b"HTTP/1.0" or isinstance(
        getattr(channel, "transport", None), HAProxyProtocolWrapper
    )


def when_gone(request: server.Request, gone: Callable[[Failure], None]) -> None:
    """Call `gone` with the reason if the client of `request` leaves before its response is whole."""
    if isinstance(request, LeanRequest):
        request.gone = gone
    else:
        request.notifyFinish().addErrback(gone)


def has_left(request: server.Request) -> bool:
    """Report whether the connection of `request` has ended before its response was whole."""
    return not request.finished and request.channel is None


def set_target(request: server.Request, site: StrictSite, method: bytes, target: bytes) -> None:
    """Tell `request` what `site` needs to find its resource."""
    request.method, request.uri = method, target
    request.path = target.partition(b"?")[0]
    request.site = site  # type: ignore[assignment]
    request.prepath = []
    request.postpath = request.path[1:].split(b"/")


class ProxyRequest(LeanRequest):
    """Request that can be rendered before its body is in.

    A resource with ``streamsUploads = True`` is rendered as soon as the head is in and finds the body in
    ``request.body`` (an :class:`RequestBody`); every other resource finds it in ``request.content``.
    """

    #: The header fields, names and values, in the order and the spelling in which they came.
    raw_fields: list[RawHeader]
    #: The head announces a body, be it an empty one.
    framed = False
    #: The resource has been rendered, and logs the request from now on.
    rendered = False
    #: Called when the service stops, to end a response whose head went out before there was one.
    stopping: Callable[[], None] | None = None
    _resource: IResource | None = None

    def __init__(self, channel: StrictChannel, *args: Any, **kwargs: Any) -> None:
        super().__init__(channel, *args, **kwargs)
        self.raw_fields = []

    def gotLength(self, length: int | None) -> None:
        channel = cast(StrictChannel, self.channel)
        self.clientproto = channel._version
        self.args = {}
        self.framed = channel._transferDecoder is not None
        set_target(self, channel.site, channel._command, channel._path)
        self.take_resource(channel.site.getResourceFor(self), length)

    def take_resource(self, found: IResource, length: int | None) -> None:
        """Prepare for the body as the resource wants it; ``None``: its length is not known."""
        if getattr(found, "streamsUploads", False):
            self._resource = found
            self.body = RequestBody(self.channel, length)  # type: ignore[arg-type]
        else:
            super().gotLength(length)

    def headReceived(self) -> None:
        """Render the resource, now that the channel has read the head."""
        if self._resource is not None and not self.rendered:
            self.rendered = True
            try:
                self.render(self._resource)
            except BaseException:
                self.processingFailed(Failure())

    def handleContentChunk(self, data: bytes) -> None:
        if self.body is None:
            super().handleContentChunk(data)
        else:
            self.body.data_received(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if self.body is None:
            super().requestReceived(command, path, version)
            return
        self.body.end_received()
        self.headReceived()
