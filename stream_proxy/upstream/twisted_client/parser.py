"""Twisted's parser of responses, bounded, and strict about what another reader could read differently."""

from __future__ import annotations

from collections.abc import Callable

from twisted.web._newclient import HTTPClientParser, ParseError
from twisted.web.http import NO_CONTENT, SWITCHING, _DataLoss

from stream_proxy.http.strictness import has_controls, is_folded, is_length, is_status_line
from stream_proxy.upstream.http1.chunked import ChunkedBody
from stream_proxy.upstream.http1.faults import HeadTooLargeError
from stream_proxy.upstream.http1.head import MAX_HEAD_BYTES, MAX_HEAD_FIELDS, first_bytes


class _ChunkedDecoder:
    """Decoder of a chunked body, as Twisted's parser wants it."""

    def __init__(
        self, dataCallback: Callable[[bytes], None], finishCallback: Callable[[bytes], None]
    ) -> None:
        self._data_received = dataCallback
        self._ended = finishCallback
        self._body = ChunkedBody()

    def dataReceived(self, data: bytes) -> None:
        """Decode the next bytes."""
        content = self._body.feed(data)
        if content:
            self._data_received(content)
        if self._body.fault is not None:
            raise ParseError(self._body.fault, b"")
        if self._body.ended:
            self._ended(b"\n" if self._body.surplus else b"")

    def noMoreData(self) -> None:
        """Check that the body was complete."""
        if not self._body.ended:
            raise _DataLoss("in the midst of a chunked body")


class ResponseParser(HTTPClientParser):
    """Parser that refuses every response that another reader could read differently."""

    MAX_LENGTH = MAX_HEAD_BYTES
    _transferDecoders = {b"chunked": _ChunkedDecoder}  # type: ignore[dict-item]
    _field_count = 0
    _first = b""

    def dataReceived(self, data: bytes) -> None:
        if self.state == "STATUS":
            # At once, because such a peer may never send the end of a line, nor close the connection.
            self._first = first_bytes(self._first, data)
        super().dataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        text = line.removesuffix(b"\r")
        begins = self.state == "STATUS"
        if (
            has_controls(text)
            or (begins and not is_status_line(text))
            or (not begins and is_folded(text) and self._partialHeader is None)
        ):
            raise ParseError("not HTTP", text)
        super().lineReceived(line)

    def headerReceived(self, name: bytes, value: bytes) -> None:
        self._field_count += 1
        if self._field_count > MAX_HEAD_FIELDS:
            raise HeadTooLargeError()
        super().headerReceived(name, value)

    def allHeadersReceived(self) -> None:
        response = self.response
        if response.code == SWITCHING:  # no request asked for that
            raise ParseError("101", b"")
        if response.code >= 200:
            codings = self.connHeaders.getRawHeaders(b"Transfer-Encoding", ())
            lengths = [
                *self.connHeaders.getRawHeaders(b"Content-Length", ()),
                *self.headers.getRawHeaders(b"Content-Length", ()),
            ]
            if len(codings) > 1 or (lengths and not is_length(lengths)):
                raise ParseError("doubtful framing", b"")
            body = response.code == NO_CONTENT and (codings or lengths not in ([], [b"0"]))
            if body or (codings and (lengths or response.version < (b"HTTP", 1, 1))):
                # The body is clear, but not where its sender sees the end of it.
                self.connHeaders.addRawHeader(b"Connection", b"close")
        super().allHeadersReceived()


def bound_head(parser: HTTPClientParser) -> None:
    """Have `parser` refuse a response that is doubtful, or has too long lines or too many fields.

    ``HTTP11ClientProtocol.request`` makes its parser itself and offers no other way to choose its class.
    """
    parser.__class__ = ResponseParser


def in_head(parser: HTTPClientParser) -> bool:
    return parser.state in ("STATUS", "HEADER")
