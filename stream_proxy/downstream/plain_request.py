"""Plain request: one whose head needed no reading line by line, without what nobody asks it for."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from twisted.web.http_headers import Headers

from stream_proxy.downstream.lean_request import headers_of
from stream_proxy.downstream.request import ProxyRequest, set_target
from stream_proxy.downstream.strict_channel import StrictChannel
from stream_proxy.http.plain_head import PlainHead


class PlainRequest(ProxyRequest):
    """Request whose head is plain, and so asks for no other protocol.

    Whatever else twisted.web's requests have is made when it is asked for, so that any resource can be
    rendered with it.
    """

    clientproto = b"HTTP/1.1"
    queued = False
    _parsePOSTFormSubmission = False

    def __init__(self, channel: StrictChannel, head: PlainHead) -> None:
        # Not the base class's, which makes four objects of which most requests use none.
        self.channel = channel
        self.transport = channel.transport
        self.notifications = []
        self.raw_fields = head.fields
        self.framed = head.length is not None
        set_target(self, channel.site, head.method, head.target)

    @cached_property
    def requestHeaders(self) -> Headers:  # type: ignore[override]
        return headers_of(self.raw_fields)

    @cached_property
    def received_cookies(self) -> dict[bytes, bytes]:  # type: ignore[override]
        cookies = self.__dict__["received_cookies"] = {}
        self.parseCookies()
        return cookies

    @cached_property
    def args(self) -> dict[bytes, list[bytes]]:  # type: ignore[override]
        return {}

    @cached_property
    def cookies(self) -> list[bytes]:  # type: ignore[override]
        return []

    @cached_property
    def client(self) -> Any:
        return self.transport.getPeer()

    @cached_property
    def host(self) -> Any:
        return self.transport.getHost()

    @cached_property
    def _adapterCache(self) -> dict[str, object]:  # type: ignore[override]
        return {}
