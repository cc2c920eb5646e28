"""Lane for plain requests: whatever it takes means the same as read line by line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from stream_proxy import ProxyResource, ProxySite
from stream_proxy.downstream import channel as channel_module
from stream_proxy.downstream.lane import take_plain
from stream_proxy.downstream.plain_request import PlainRequest
from stream_proxy.downstream.request import ProxyRequest, is_framed, request_fields
from stream_proxy.downstream.request_body import RequestBody
from stream_proxy.downstream.response import respond, respond_error, start_response
from stream_proxy.errors import invalid_target
from stream_proxy.limits import Limits
from stream_proxy.request_log import RequestLog
from tests.support.loopback import Lines, reactor
from tests.support.properties import examples
from tests.support.ways import take_ways
from tests.support.wire import GET


def read(request: Request) -> list[object]:
    """Return all that a resource may ask of a request."""
    uri: bytes = request.uri
    return [
        (request.method, uri, request.path, request.clientproto, request.args),
        request_fields(request),
        is_framed(request),
        sorted(request.requestHeaders.getAllRawHeaders()),
        sorted(request.received_cookies.items()),
        (request.client, request.host, request.prepath, request.postpath),
        request.getHeader(b"host"),
    ]


class Echo(Resource):
    """A resource that responds with what it was sent, once it has all of it.

    :param streams: it is rendered before the body is in.
    :param waits: it does not respond by itself.
    :param way: how it responds.
    """

    isLeaf = True

    def __init__(self, *, streams: bool, waits: bool, way: Callable[[Request, bytes], None]) -> None:
        super().__init__()
        self.streamsUploads = streams
        self.waits = waits
        self.way = way
        self.seen: list[object] = []
        self.waiting: list[tuple[Request, bytes]] = []

    def render(self, request: Request) -> int:
        self.seen.append(read(request))
        body = getattr(request, "body", None)
        request.notifyFinish().addBoth(lambda result: self.seen.append(type(result)))
        if isinstance(request, ProxyRequest):
            request.gone = lambda failure: self.seen.append(str(failure.value))
        limit = 2 if request.method == b"PUT" else 1000
        if isinstance(body, RequestBody) and body.arrived and body.received <= limit:
            body.hand_over(lambda data: self.whole(request, data))
        elif isinstance(body, RequestBody):
            collected = body.collect(limit)
            collected.addCallbacks(
                lambda data: self.whole(request, data),
                lambda failure: respond_error(request, invalid_target()),
            )
        else:
            assert request.content is not None
            self.whole(request, request.content.read())
        return NOT_DONE_YET

    def whole(self, request: Request, data: bytes) -> None:
        """Respond, now or later, to a request whose body is in."""
        self.seen.append(data)
        if self.waits:
            self.waiting.append((request, data))
        elif request.channel is not None:
            self.way(request, data)

    def answer(self) -> None:
        """Respond to the request that waits."""
        if self.waiting:
            request, data = self.waiting.pop(0)
            if request.channel is not None:
                self.way(request, data)


def with_length(request: Request, data: bytes) -> None:
    """Respond with a length."""
    respond(request, 200, None, [(b"x-Made-By", b"us"), (b"X-A", b"1"), (b"x-a", b"2")], data)


def with_error(request: Request, data: bytes) -> None:
    """Respond with an error."""
    respond_error(request, invalid_target())


def in_chunks(request: Request, data: bytes) -> None:
    """Respond in pieces."""
    start_response(request, 201, b"Fine", [(b"X-A", b"1")])
    request.write(b"")
    request.write(data)
    request.write(b"more")
    request.finish()


def without_body(request: Request, data: bytes) -> None:
    """Respond with a status that has no body, whatever is written."""
    start_response(request, 304, None, [(b"ETag", b"x")])
    request.write(data)
    request.finish()


def nothing(request: Request, data: bytes) -> None:
    """Respond with an empty body."""
    start_response(request, 200, None, [])
    request.finish()


def twisted_way(request: Request, data: bytes) -> None:
    """Respond as any resource of Twisted's does."""
    request.setHeader(b"X-A", b"1")
    request.addCookie(b"c", b"d")
    request.write(data)
    request.finish()


def amended(request: Request, data: bytes) -> None:
    """Respond with fields that are amended after the start."""
    start_response(request, 200, None, [(b"X-A", b"1")])
    request.setHeader(b"X-B", b"2")
    request.addCookie(b"c", b"d")
    request.write(data)
    request.finish()


WAYS = [with_length, with_error, in_chunks, without_body, nothing, twisted_way, amended]


class Played:
    """A connection on which a client has sent `pieces`."""

    def __init__(self, pieces: Iterable[bytes], echo: Echo, limits: Limits, *, lane: bool) -> None:
        log = Lines()
        self.log = log.lines
        self.clock = Clock()
        site = ProxySite(echo, reactor=self.clock, limits=limits, log=RequestLog(observer=log))
        site.lane = lane
        self.channel: Any = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        transport: Any = StringTransport()
        transport.abortConnection = transport.loseConnection
        self.transport: Any = transport
        self.channel.makeConnection(self.transport)
        write = transport.write
        #: What was written, call by call.
        self.writes: list[bytes] = []

        def noting(data: bytes) -> None:
            self.writes.append(data)
            write(data)

        transport.write = noting
        for piece in pieces:
            self.channel.dataReceived(piece)
            echo.answer()
            self.clock.advance(0)
        self.clock.advance(limits.client_idle_seconds)
        for _ in range(10):
            echo.answer()
            self.clock.advance(0)
        self.clock.advance(limits.client_idle_seconds)
        state = (
            self.channel.line_mode,
            self.channel.persistent,
            self.channel.timeOut,
            self.transport.disconnecting,
        )
        self.channel.connectionLost(Failure(ConnectionDone()))
        self.left = self.clock.getDelayedCalls()
        sent = re.sub(rb"\r\nDate: [^\r]*", b"", self.transport.value())
        self.outcome = [sent, echo.seen, self.log, state, self.transport.producerState]


METHODS = st.sampled_from(
    [b"GET", b"POST", b"HEAD", b"PUT", b"get", b"CONNECT", b"OPTIONS", b"M!", b"B@D", b""]
)
TARGETS = st.sampled_from(
    [b"/", b"/v1/x?a=b&a=c", b"//x/..", b"*", b"http://h/x", b"x", b"/%00", b"/a b", b"/\xc3", b"/\x7f", b""]
)
VERSIONS = st.sampled_from([b"HTTP/1.1"] * 8 + [b"HTTP/1.0", b"HTTP/2.0", b"http/1.1", b"HTTP/1.1 ", b""])
VALUES = st.one_of(
    st.sampled_from(
        [b"", b"x", b"a b", b"\tx", b"x ", b"x\t", b"\xe9", b"a:b", b"a\x00b", b"a\rb", b"a\nb", b"\x7f"]
    ),
    st.binary(max_size=4),
)
NAMES = st.sampled_from(
    [b"X", b"x-A", b"ACCEPT", b"Cookie", b"TE", b"Trailer", b"Origin", b"X ", b" X", b"", b"X\xe9"]
)
SPECIAL = st.sampled_from(
    [
        b"Host: h",
        b"Host: h:80",
        b"host: [::1]:80",
        b"Host: h:99999",
        b"Host: h:59999",
        b"Host: a,b",
        b"Host:",
        b"Host: a b",
        b"Connection: keep-alive",
        b"Connection: Close",
        b"Connection: x, close",
        b"Connection: upgrade",
        b"Upgrade: websocket",
        b"Expect: 100-continue",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: identity",
        b"Content-Length: 3",
        b"content-length:3",
        b"Content-Length: 003 ",
        b"Content-Length: 0",
        b"Content-Length: +3",
        b"Content-Length: 3, 3",
        b"Content-Length: ",
        b"Content-Length: 1001",
        b"Content-Length: 999999999999999999",
        b"Content-Length: 9999999999999999999",
        b"Cookie: a=b; c=d",
        b" folded",
        b"no colon",
    ]
)
FIELDS = st.one_of(st.builds(lambda name, value: b"%b: %b" % (name, value), NAMES, VALUES), SPECIAL, SPECIAL)
ENDS = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\r\n", b"\r\n "])
HOSTS = st.sampled_from(
    [b"Host: h", b"Host: h", b"host: h:65535", b"Host: h:65536", b"Host: [::1]", b"Host: [::g]"]
)
BODIES = st.sampled_from([b"", b"", b"abc", b"ab", b"abcdef", b"3\r\nabc\r\n0\r\n\r\n", b"\r\n", b"\r\n\r\n"])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Return a strategy for requests that are valid, nearly valid or hostile."""
    if draw(st.booleans()):
        fields = [draw(HOSTS), *draw(st.lists(FIELDS, max_size=3))]
        head = b"%b /x HTTP/1.1\r\n%b\r\n" % (
            draw(METHODS),
            b"".join(field + b"\r\n" for field in draw(st.permutations(fields))),
        )
    else:
        lines = [
            b"%b %b %b" % (draw(METHODS), draw(TARGETS), draw(VERSIONS)),
            *draw(st.lists(FIELDS, max_size=4)),
        ]
        head = b"".join(line + draw(ENDS) for line in [*lines, b""])
    return head + draw(BODIES)


@st.composite
def flows(draw: st.DrawFn) -> list[bytes]:
    """Return a strategy for the reads of a connection, most of which end where a request does."""
    sent = draw(st.lists(st.one_of(requests(), st.just(GET)), min_size=1, max_size=3))
    pieces: list[bytes] = []
    for data in sent:
        cut = draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))
        pieces += [data[:cut], data[cut:]]
    if draw(st.booleans()):
        pieces = [b"".join(pieces)]
    return [piece for piece in pieces if piece]


def post(*fields: bytes, body: bytes = b"") -> bytes:
    """Return a request with these fields."""
    return b"\r\n".join([b"POST /x HTTP/1.1", b"Host: h", *fields, b"", b""]) + body


class ArrivedTests(SynchronousTestCase):
    """Bodies that come with their heads."""

    def setUp(self) -> None:
        take_ways(self, plain=False)

    def connect(self, resource: Resource) -> Any:
        """Return the channel of a connection."""
        self.clock = Clock()
        channel: Any = ProxySite(resource, reactor=self.clock).buildProtocol(
            IPv4Address("TCP", "127.0.0.1", 1)
        )
        channel.makeConnection(StringTransport())
        return channel

    def test_arrived(self) -> None:
        """Such a body is known to have arrived when the head is looked at, and is handed over at its end."""
        seen: list[object] = []

        class Taking(Resource):
            isLeaf = True
            streamsUploads = True

            def render(self, request: Any) -> int:
                body = request.body
                seen.append((body.arrived, body.received, body.ended))
                if body.arrived:
                    body.hand_over(seen.append)
                return NOT_DONE_YET

        request = post(b"Content-Length: 3", body=b"abc")
        self.connect(Taking()).dataReceived(request + b"GET")
        self.assertEqual(seen, [(True, 3, False), b"abc"])
        seen.clear()
        self.connect(Taking()).dataReceived(request[:-1])
        self.assertEqual(seen, [(False, 0, False)])

    def test_no_timer(self) -> None:
        """No timer waits for a call whose body has arrived; a body that has not has one."""
        for whole in (True, False):
            resource = ProxyResource("http://127.0.0.1:9", reactor=reactor)
            channel = self.connect(resource)
            resource.clock = self.clock
            self.patch(resource, "_decide", lambda *arguments: None)
            made: list[float] = []

            def call_later(
                seconds: float, *arguments: Any, made: list[float] = made, clock: Clock = self.clock
            ) -> Any:
                made.append(seconds)
                return Clock.callLater(clock, seconds, *arguments)

            self.patch(self.clock, "callLater", call_later)
            data = b'{"model": "m"}'
            request = post(
                b"Content-Type: application/json", b"Content-Length: %d" % len(data), body=data
            ).replace(b"/x", b"/v1/chat/completions")
            channel.dataReceived(request if whole else request[:-1])
            self.assertEqual(len(made), 0 if whole else 1)


class LaneTests(SynchronousTestCase):
    """The same bytes, with the lane and without."""

    def both(self, pieces: Sequence[bytes], limits: Limits, **echo: Any) -> Played:
        """Check that both ways have the same outcome, and return the lane's."""
        lane, long = (Played(pieces, Echo(**echo), limits, lane=lane) for lane in (True, False))
        self.assertEqual(lane.outcome, long.outcome)
        self.assertEqual((lane.left, long.left), ([], []))
        return lane

    @examples(300)
    @example([post(b"Content-Length: 3", body=b"abc") + GET], 200, 5, True, False, with_length)
    @example([post(b"Content-Length: 3"), b"ab", b"c" + GET], 200, 5, True, True, in_chunks)
    @example([GET, b"\r\n", GET, b"\r\n", GET], 200, 5, True, False, with_length)
    @example([GET, b"\r\n", b"\r\n", GET], 200, 5, True, False, with_length)
    @example([post(b"X: " + b"x" * 30), post(b"X: " + b"x" * 60)], 80, 5, True, False, with_length)
    @example([post(b"X: x"), post(b"X: x", b"X: x")], 200, 2, True, False, with_length)
    @example([b"HEAD" + GET[3:] + GET], 200, 5, True, True, in_chunks)
    @example([GET.replace(b"1.1", b"1.0"), GET], 200, 5, True, False, in_chunks)
    @example([post(b"Connection: close"), GET], 200, 5, True, False, with_length)
    @example([post(b"Content-Length: 1001"), b"x" * 1001, GET], 200, 5, True, False, with_error)
    @example([post(b"Content-Length: 3", b"Expect: 100-continue"), b"abc"], 200, 5, True, False, with_length)
    @example([b"GET / HTTP/1.1\r\nHost: h:99999\r\n\r\n", GET], 200, 5, True, False, with_length)
    @example([post(b"Content-Length: 9999999999999999999")], 200, 5, True, False, with_length)
    @example(
        [b"PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc" + GET], 200, 5, True, False, nothing
    )
    @example([GET[:-2], GET, GET], 200, 5, True, False, with_length)
    @given(
        flows(),
        st.sampled_from([40, 60, 80, 65_536]),
        st.sampled_from([1, 2, 3, 500]),
        st.booleans(),
        st.booleans(),
        st.sampled_from(WAYS),
    )
    def test_same(
        self,
        pieces: list[bytes],
        most_bytes: int,
        most_fields: int,
        streams: bool,
        waits: bool,
        way: Callable[[Request, bytes], None],
    ) -> None:
        """Requests, responses, log, and the state of the connection are the same."""
        limits = Limits(max_header_bytes=most_bytes, max_header_count=most_fields)
        self.both(pieces, limits, streams=streams, waits=waits, way=way)

    def taken(self, *pieces: bytes, draining: bool = False) -> list[bool]:
        """Return for each piece that the lane was asked for whether it took it."""
        taken: list[bool] = []

        def noting(channel: Any, data: bytes) -> bool:
            taken.append(take_plain(channel, data))
            return taken[-1]

        self.patch(channel_module, "take_plain", noting)
        self.both(pieces, Limits(), streams=True, waits=False, way=with_length)
        self.patch(channel_module, "take_plain", take_plain)
        return taken

    def test_takes(self) -> None:
        """The lane takes plain requests, one after another, with their bodies or before them."""
        whole, early = post(b"Content-Length: 3", body=b"abc"), post(b"Content-Length: 3")
        self.assertEqual(self.taken(GET, whole, early, b"abc", GET), [True] * 4)
        fields = b"Cookie: a=b", b"Connection: Keep-Alive", b"Host-X: y"
        self.assertEqual(self.taken(post(*fields)), [True])

    def test_leaves(self) -> None:
        """Everything else is read line by line, and the lane is open again for the request after that."""
        for field in (
            b"Transfer-Encoding: chunked",
            b"Expect: 100-continue",
            b"Upgrade: websocket",
            b"Connection: x",
            b"Host: h",
            b"X: \x7f",
        ):
            self.assertEqual(self.taken(post(field))[:1], [False], field)
        self.assertEqual(self.taken(post(b"Expect: x"), GET), [False, True])
        self.assertEqual(self.taken(GET[:-1], GET[-1:], GET), [False, True])
        self.assertEqual(self.taken(b"\r\n", GET, GET), [False, True])
        self.assertEqual(self.taken(b"rubbish\r\n\r\n", GET), [False])

    def test_lazy(self) -> None:
        """A plain request and its response make no object that nobody asks for."""
        made: list[PlainRequest] = []

        class Ours(Resource):
            isLeaf = streamsUploads = True

            def render(self, request: Request) -> int:
                assert isinstance(request, PlainRequest)
                made.append(request)
                respond(request, 200, None, [], b"ok")
                return NOT_DONE_YET

        ours: Any = Ours()
        ours.seen, ours.answer = [], lambda: None
        played = Played([GET], ours, Limits(), lane=True)
        self.assertIn(b"ok", played.outcome[0])
        lazy = {"requestHeaders", "responseHeaders", "client", "host", "args", "cookies", "received_cookies"}
        self.assertEqual(lazy & set(vars(made[0])), set())

    def test_one_write(self) -> None:
        """A response with a length is one write, and so is each piece of a response in chunks."""

        def pieces(request: Request, data: bytes) -> None:
            start_response(request, 200, None, [])
            for piece in (b"first", b"second"):
                request.write(piece)
            request.finish()

        for way, count in ((with_length, 1), (pieces, 3)):
            written = Played([GET], Echo(streams=True, waits=False, way=way), Limits(), lane=True).writes
            self.assertEqual(len(written), count)
            self.assertTrue(written[0].startswith(b"HTTP/1.1 200 OK\r\n"))

    def test_gone(self) -> None:
        """``gone`` is called once if the client leaves before the response is whole, and not after that."""
        for pieces, waits, count in (([GET], True, 1), ([GET], False, 0), ([b"P" + GET], True, 1)):
            echo = Echo(streams=True, waits=waits, way=with_length)
            echo.answer = lambda: None  # type: ignore[method-assign]
            Played(pieces, echo, Limits(), lane=True)
            self.assertEqual(sum(isinstance(each, str) for each in echo.seen), count)

    def test_line_breaks(self) -> None:
        """Line breaks in a value become blanks, and the server's own fields are not sent twice."""

        def way(request: Request, data: bytes) -> None:
            start_response(request, 200, None, [(b"X", b"a\r\nEvil: b"), (b"transfer-encoding", b"gzip")])
            request.write(data)
            request.finish()

        echo = Echo(streams=True, waits=False, way=way)
        sent = Played([GET], echo, Limits(), lane=True).outcome[0]
        assert isinstance(sent, bytes)
        self.assertIn(b"\r\nX: a Evil: b\r\nTransfer-Encoding: chunked\r\n\r\n", sent)
