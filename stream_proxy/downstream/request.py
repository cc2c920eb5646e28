"""Request that can be rendered before its body is in."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http import NO_BODY_CODES
from twisted.web.resource import IResource

from stream_proxy.downstream.channel import DownstreamChannel
from stream_proxy.downstream.request_body import RequestBody


def ends_by_itself(request: server.Request) -> bool:
    """Report whether clients see where a response ends even if they expect the connection to close.

    After ``Connection: close``, Node's fetch without undici's fix of May 2026 (nodejs/undici#5273) takes the
    close for the end of a response in chunks, so that one which was cut off looks complete.
    """
    bodiless = request.method == b"HEAD" or request.code in NO_BODY_CODES
    return bodiless or request.responseHeaders.hasHeader(b"Content-Length")


class ProxyRequest(server.Request):
    """Request that can be rendered before its body is in.

    A resource with ``streamsUploads = True`` is rendered as soon as the head is in and finds the body in
    ``request.body`` (an :class:`RequestBody`); every other resource finds it in ``request.content``.
    """

    defaultContentType = None
    body: RequestBody | None = None
    #: The resource has been rendered, and logs the request from now on.
    rendered = False
    #: Called when the service stops, to end a response whose head went out before there was one.
    stopping: Callable[[], None] | None = None
    _resource: IResource | None = None

    def gotLength(self, length: int | None) -> None:
        channel = cast(DownstreamChannel, self.channel)
        self.method, self.uri, self.clientproto = channel._command, channel._path, channel._version
        self.path = self.uri.split(b"?", 1)[0]
        self.args = {}
        self.site = cast(server.Site, channel.site)
        self.prepath = []
        self.postpath = self.path[1:].split(b"/")
        found = channel.site.getResourceFor(self)
        if getattr(found, "streamsUploads", False):
            self._resource = found
            self.body = RequestBody(channel, length)
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

    def write(self, data: bytes) -> None:
        if not self.startedWriting and self.channel is not None:
            if self.body is not None and not self.body.ended:
                self.channel.persistent = False  # or the rest of the body would be read as the next request
            if not self.channel.persistent and ends_by_itself(self):
                self.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        super().write(data)
