"""Responses as our client and Twisted's read them, and how the two readings differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web._newclient import Request as TwistedRequest
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from stream_proxy.errors import APIError
from stream_proxy.http.headers import RawHeader, raw_headers, response_headers
from stream_proxy.upstream.connection import Request, State, UpstreamConnection
from stream_proxy.upstream.failures import Peer, request_failure
from stream_proxy.upstream.response import UpstreamResponse
from stream_proxy.upstream.twisted_client.connection import TwistedConnection
from stream_proxy.upstream.twisted_client.response import upstream_response

ORIGIN = "http://upstream"


@dataclass
class Reading:
    """What a client makes of a response.

    :param failure: why there is no response, in the words for users.
    :param fields: with names in lower case, sorted.
    :param end: of the body: ``None`` before it, ``"whole"``, or why it broke off.
    :param reused: whether the connection may be used for another request.
    """

    failure: str | None = None
    status: int = 0
    reason: bytes = b""
    fields: tuple[RawHeader, ...] = ()
    length: int | None = None
    body: bytes = b""
    end: str | None = None
    reused: bool = False


class _Wire(StringTransport):
    """Transport that ends when it is told to."""

    def __init__(self) -> None:
        super().__init__(lenient=True)
        self.ended = False

    def abortConnection(self) -> None:
        self.ended = True

    def loseConnection(self) -> None:
        self.ended = True


class _Reader:
    """Asker and sink at once."""

    def __init__(self) -> None:
        self.reading = Reading()

    def responded(self, response: UpstreamResponse) -> None:
        fields = sorted((name.lower(), value) for name, value in response.headers)
        self.reading = Reading(
            None, response.status, response.reason, tuple(fields), response.length, self.reading.body
        )
        response.start(self)

    def uploaded(self) -> None: ...

    def failed(self, failure: Failure) -> None:
        error = request_failure(failure, Peer(ORIGIN, "upstream"), 10).value
        self.reading.failure = error.message if isinstance(error, APIError) else repr(error)

    def body_received(self, data: bytes) -> None:
        self.reading.body += data

    def body_ended(self, error: APIError | None) -> None:
        self.reading.end = "whole" if error is None else error.message


class _Keeper:
    def __init__(self) -> None:
        self.clock: Any = Clock()

    def keep(self, connection: UpstreamConnection) -> None: ...

    def forget(self, connection: UpstreamConnection) -> None: ...


def _played(
    connection: Any,
    wire: _Wire,
    reads: list[bytes],
    close: type[Exception] | None,
    is_idle: Callable[[], bool],
) -> bool:
    """Play a response, and return whether the connection could be used again before it was closed."""
    for read in reads:
        if wire.ended:
            break
        connection.dataReceived(read)
    reused = is_idle() and not wire.ended
    if wire.ended:
        connection.connectionLost(Failure(ConnectionDone()))
    elif close is not None:
        connection.connectionLost(Failure(close()))
    return reused


def ours(reads: list[bytes], method: bytes = b"GET", close: type[Exception] | None = None) -> Reading:
    """Return our client's reading of a response.

    :param close: how the connection ends behind it; by default it stays open.
    """
    wire, reader = _Wire(), _Reader()
    connection = UpstreamConnection(_Keeper(), ORIGIN)
    connection.makeConnection(wire)
    connection.send(Request(b"", None, method == b"HEAD"), reader)
    reused = _played(connection, wire, reads, close, lambda: connection.state is State.IDLE)
    return replace(reader.reading, reused=reused)


def twisteds(reads: list[bytes], method: bytes = b"GET", close: type[Exception] | None = None) -> Reading:
    """Return the reading of Twisted's client, with our checks."""
    wire, reader = _Wire(), _Reader()
    kept: list[TwistedConnection] = []
    connection = TwistedConnection(kept.append)
    connection.makeConnection(wire)
    headers = Headers({b"Host": [b"upstream"]})
    sent = connection.request(TwistedRequest._construct(method, b"/", headers, None, persistent=True))
    parser = connection._parser
    assert parser is not None

    def responded(response: IResponse) -> None:
        own = list(parser.connHeaders.getRawHeaders(b"Connection", ()))
        if response.code == 304:
            for value in parser.connHeaders.getRawHeaders(b"Content-Length", ()):
                response.headers.addRawHeader(b"Content-Length", value)
        raw = raw_headers(response.headers.getAllRawHeaders())
        reader.responded(upstream_response(response, list(response_headers(raw, own)), connection, ORIGIN))

    sent.addCallbacks(responded, reader.failed)
    reused = _played(connection, wire, reads, close, lambda: bool(kept))
    return replace(reader.reading, reused=reused)


def worse(reads: list[bytes], method: bytes = b"GET", close: type[Exception] | None = None) -> str | None:
    """Return how our reading is worse than Twisted's: it is the same, or a refusal of something odd."""
    mine, theirs = ours(reads, method, close), twisteds(reads, method, close)
    if mine == theirs:
        return None
    what = f"{mine} in place of {theirs}"
    if theirs.failure is not None:
        # Ours may say so earlier, and then it is no cut.
        return None if mine.failure is not None and "invalid" in mine.failure else what
    if mine.failure is not None:
        # A line is refused when it is there; Twisted looks at a field when the next line is.
        later = twisteds([*reads, b"X: y\r\n\r\n"], method, close)
        return None if not theirs.status and later.failure == mine.failure else what
    if replace(mine, fields=(), body=b"", end=None, reused=False) != replace(
        theirs, fields=(), body=b"", end=None, reused=False
    ):
        return what
    # Where bytes are left over, Twisted's way forgets which fields belong to the connection.
    if mine.fields != theirs.fields and (theirs.reused or not set(mine.fields) < set(theirs.fields)):
        return what
    if mine.end == theirs.end:
        return None if (mine.body, mine.reused) == (theirs.body, theirs.reused) else what
    # llhttp has refused a chunk or a trailer, when Twisted has not or not yet.
    refused = mine.end not in (None, "whole") and not mine.reused
    return None if refused and theirs.body.startswith(mine.body) else what


def answer(
    *fields: bytes, line: bytes = b"HTTP/1.1 200 OK", body: bytes = b"", end: bytes = b"\r\n"
) -> bytes:
    """Return a response of these lines."""
    return end.join([line, *fields, b"", body])


_LINES = [
    *[b"HTTP/1.1 200 OK"] * 6,
    b"HTTP/1.1 200",
    b"HTTP/1.1 200 ",
    b"HTTP/1.0 200 OK",
    b"HTTP/1.2 404 \xe9\tx",
    b"HTTP/1.1 204 No Content",
    b"HTTP/1.1 304 Not Modified",
    b"HTTP/1.1 999 X",
    b"HTTP/1.1 103 Early Hints",
    b"HTTP/1.1 100 Continue",
    b"HTTP/1.1 101 Switching Protocols",
    b"HTTP/1.1 099 X",
    b"HTTP/1.1 20 X",
    b"HTTP/1.1  200 OK",
    b"HTTP/2.0 200 OK",
    b"HTTP/1.1 200 O\rK",
    b"http/1.1 200 OK",
    b"",
]
_FIELDS = [
    b"Content-Length: 5",
    b"content-length:5",
    b"Content-Length: 0",
    b"Content-Length: 05",
    b"Content-Length: 5, 5",
    b"Content-Length: 5, 6",
    b"Content-Length: 6",
    b"Content-Length: +5",
    b"Content-Length: ",
    b"Content-Length: " + b"0" * 17 + b"5",
    b"Content-Length: " + b"0" * 18 + b"5",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: CHUNKED",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: identity",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Connection: Keep-Alive, X-A",
    b"Connection: x, CLOSE",
    b"Keep-Alive: timeout=5",
    b"X-A: b",
    b"X-A:  b\t",
    b"x-a: \xff",
    b"Set-Cookie: a=b",
    b" folded: x",
    b"\tfolded",
    b"no colon",
    b"X : y",
    b": y",
    b"X: a\0b",
    b"X: a\rb",
    b"Upgrade: h2c",
    b"Proxy-Authenticate: Basic",
]
_BODIES = [
    b"",
    b"abc",
    b"abcde",
    b"abcdef",
    b"5\r\nabcde\r\n0\r\n\r\n",
    b"5\r\nabcde\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    b"5;a=b\r\nabcde\r\n0\r\nX: y\r\n\r\n",
    b"5\r\nabcde",
    b"x\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde",
]
_INTERIM = [b"", b"", b"", b"HTTP/1.1 103 Hint\r\nLink: x\r\n\r\n"]
_ENDS = [b"\r\n", b"\r\n", b"\r\n", b"\n"]
_CLOSES = [None, ConnectionDone, ConnectionLost]
_METHODS = [b"GET", b"GET", b"HEAD"]
RESPONSES = st.one_of(
    st.builds(
        lambda interim, line, fields, body, end: interim + answer(*fields, line=line, body=body, end=end),
        st.sampled_from(_INTERIM),
        st.sampled_from(_LINES),
        st.lists(st.one_of(st.sampled_from(_FIELDS), st.binary(max_size=12)), max_size=5),
        st.one_of(st.sampled_from(_BODIES), st.binary(max_size=30)),
        st.sampled_from(_ENDS),
    ),
    st.binary(max_size=60),
)
CLOSES = st.sampled_from(_CLOSES)
METHODS = st.sampled_from(_METHODS)


def random_exchange(source: Random) -> tuple[list[bytes], bytes, type[Exception] | None]:
    """Return reads, the method of the request and the end of the connection, as from the strategies above."""
    pick = source.choice
    fields = [
        pick(_FIELDS) if source.random() < 0.9 else source.randbytes(source.randrange(12))
        for _ in range(source.randrange(6))
    ]
    body = pick(_BODIES) if source.random() < 0.8 else source.randbytes(source.randrange(30))
    data = pick(_INTERIM) + answer(*fields, line=pick(_LINES), body=body, end=pick(_ENDS))
    if source.random() < 0.2:  # one byte is another one
        at = source.randrange(len(data))
        data = data[:at] + source.randbytes(1) + data[at + 1 :]
    places = sorted(source.randrange(len(data) + 1) for _ in range(source.randrange(5)))
    reads = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
    return reads, pick(_METHODS), pick(_CLOSES)
