"""Lean request: one whose response goes out as it was given, without Twisted's sorted headers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

from twisted.python.failure import Failure
from twisted.web import server
from twisted.web.http import NO_BODY_CODES
from twisted.web.http_headers import Headers

from stream_proxy.downstream.request_body import RequestBody
from stream_proxy.downstream.strict_channel import StrictChannel
from stream_proxy.http.headers import RawHeader
from stream_proxy.http.plain_response import plain_response_head

#: The largest part of a body that is copied, to be sent together with what frames it.
_JOINED_BYTES = 16_384

#: Who writes the body of a response: Twisted, in whatever way, or this request in the one that it knows.
_BY_TWISTED, _IN_CHUNKS, _AS_IT_IS, _NOT_AT_ALL = range(4)


def headers_of(fields: Iterable[RawHeader]) -> Headers:
    """Return `fields` as Twisted keeps them."""
    headers = Headers()
    for name, value in fields:
        headers.addRawHeader(name, value)
    return headers


def ends_by_itself(request: server.Request) -> bool:
    """Report whether clients see where a response ends even if they expect the connection to close.

    After ``Connection: close``, Node's fetch without undici's fix of May 2026 (nodejs/undici#5273) takes the
    close for the end of a response in chunks, so that one which was cut off looks complete.
    """
    return _is_bodiless(request) or request.responseHeaders.hasHeader(b"Content-Length")


def _is_bodiless(request: server.Request) -> bool:
    return request.method == b"HEAD" or request.code in NO_BODY_CODES


class LeanRequest(server.Request):
    """Request whose response, if :meth:`start_response` gave its head, is written piece by piece as it is.

    A response with anything else to it is left to Twisted.
    """

    transport: Any
    defaultContentType = None
    #: The body on its way in, if the resource reads it like that.
    body: RequestBody | None = None
    #: Called once if the connection is lost before the response is whole, with the reason.
    gone: Callable[[Failure], None] | None = None
    #: The fields of the response, if it was started with them.
    _response_fields: Sequence[RawHeader] | None = None
    _writer = _BY_TWISTED

    def connectionLost(self, reason: Failure) -> None:
        self._writer = _BY_TWISTED
        super().connectionLost(reason)
        gone, self.gone = self.gone, None
        if gone is not None:
            gone(reason)

    @property
    def given_fields(self) -> Sequence[RawHeader] | None:
        """The fields that :meth:`start_response` gave, if nothing was added to them."""
        return None if "responseHeaders" in vars(self) else self._response_fields

    @cached_property
    def responseHeaders(self) -> Headers:  # type: ignore[override]
        return headers_of(self._response_fields or ())

    def start_response(self, status: int, reason: bytes | None, fields: Sequence[RawHeader]) -> None:
        """Set the head of the response: exactly these fields, and those of the connection.

        :param reason: ``None`` for the standard one.
        """
        self.setResponseCode(status, reason)
        self._response_fields = fields
        self.__dict__.pop("responseHeaders", None)

    def write(self, data: bytes) -> None:
        writer = self._writer
        if writer == _IN_CHUNKS:
            if len(data) > _JOINED_BYTES:
                self.transport.writeSequence((b"%x\r\n" % len(data), data, b"\r\n"))
            elif data:
                self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        elif writer == _AS_IT_IS:
            self.transport.write(data)
        elif writer == _BY_TWISTED and (self.startedWriting or not self._write_head(data)):
            super().write(data)

    def _write_head(self, data: bytes) -> bool:
        """Write the head of the response and a part of its body, unless Twisted has to."""
        channel: StrictChannel | None = self.channel  # type: ignore[assignment]
        if channel is None or self.finished:
            return False
        if self.body is not None and not self.body.ended:
            channel.persistent = False  # or the rest of the body would be read as the next request
        if channel.persistent and channel.ends_with(self._ends_by_itself):
            channel.persistent = False
        if self._response_fields is not None and not self._was_amended:
            bodiless = _is_bodiless(self)
            head = plain_response_head(
                b"%b %d %b" % (self.clientproto, self.code, self.code_message),
                self._response_fields,
                chunks=self.clientproto == b"HTTP/1.1",
                bodiless=bodiless,
                last=not channel.persistent,
            )
            if head is not None:
                self._write_first(*head, b"" if bodiless else data)
                if bodiless:
                    self._writer = _NOT_AT_ALL
                return True
        if not channel.persistent and ends_by_itself(self):
            self.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return False

    def _ends_by_itself(self) -> bool:
        fields = self._response_fields
        if fields is None or self._was_amended:
            return ends_by_itself(self)
        return _is_bodiless(self) or any(name.lower() == b"content-length" for name, _ in fields)

    @property
    def _was_amended(self) -> bool:
        """Whether the response is more than the fields that it was started with."""
        own = vars(self)
        headers = "responseHeaders" in own or own.get("cookies") or self.etag or self.lastModified
        return bool(headers or self._encoder or self._inFakeHead)

    def _write_first(self, head: bytes, chunked: bool, data: bytes) -> None:
        self.startedWriting = 1
        if chunked:
            self.chunked = 1
            self._writer = _IN_CHUNKS
        else:
            self._writer = _AS_IT_IS
        if len(data) > _JOINED_BYTES:
            self.transport.write(head)
            self.write(data)
        elif chunked and data:
            self.transport.write(b"%b%x\r\n%b\r\n" % (head, len(data), data))
        else:
            self.transport.write(head + data)

    def finish(self) -> None:
        if not self.startedWriting:
            self.write(b"")
        self._writer = _BY_TWISTED
        super().finish()
        self.gone = None
