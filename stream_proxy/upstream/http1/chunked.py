"""Chunked bodies of responses (RFC 9112 section 7.1), decoded by llhttp. Sans-I/O."""

from __future__ import annotations

from httptools import HttpParserError, HttpResponseParser

#: Head that tells llhttp to expect one chunked body, and to refuse all that follows it.
_HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
#: Bytes beside the content that each piece of content may have around it: its size line with extensions.
_LINE_BYTES = 1024
#: Further bytes beside the content, such as trailers, as for requests.
_BESIDE_BYTES = 65_536
_END = b"\r\n\r\n"


class _Events:
    """Receiver of llhttp's events.

    It refers to nothing, so that decoder and parser are free without the cycle collector. Without
    ``on_header`` httptools keeps no trailers.
    """

    __slots__ = ("ended", "on_body", "pieces")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        #: A method in C: there is no call in Python for each chunk.
        self.on_body = self.pieces.append
        self.ended = False

    def on_message_complete(self) -> None:
        self.ended = True


class ChunkedBody:
    """Decoder of one body.

    It accepts less than RFC 9112 allows where other readers disagree: no blanks around a size or its
    extensions, no line that ends with a bare LF or CR, no trailer that could be framing.
    """

    __slots__ = ("_beside", "_events", "_last", "_parser", "_surplus", "ended", "fault")
    #: Whether an orderly close is its end.
    ends_with_connection = False

    def __init__(self) -> None:
        #: Whether the body and its trailers are complete; nothing may be fed after that.
        self.ended = False
        #: What the coding is not, if it is malformed; nothing may be fed after that.
        self.fault: str | None = None
        self._events = _Events()
        self._parser = HttpResponseParser(self._events)
        self._parser.feed_data(_HEAD)
        self._beside = 0
        self._last = b""
        self._surplus = False

    @property
    def surplus(self) -> bool:
        """Whether bytes came behind the end of the body; llhttp does not say which."""
        # llhttp skips line ends there without a word, but the body itself ends with exactly two.
        return self._surplus or self._last[-4:] != _END or self._last[-5:-4] in (b"\r", b"\n")

    def feed(self, data: bytes) -> bytes:
        """Decode the next bytes, and return the content that they hold, which may precede a fault."""
        events = self._events
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            if events.ended:
                self._surplus = True
            else:
                self.fault = str(error)
        self.ended = events.ended
        self._last = data[-5:] if len(data) > 4 else (self._last + data)[-5:]
        pieces = events.pieces
        content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        # llhttp has no bounds of its own for extensions and trailers.
        beside = self._beside + len(data) - len(content) - _LINE_BYTES * len(pieces)
        self._beside = beside if beside > 0 else 0
        if beside > _BESIDE_BYTES and self.fault is None:
            self.fault = "too many bytes beside the content"
        pieces.clear()
        return content
