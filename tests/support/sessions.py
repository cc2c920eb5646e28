"""WebSocket helpers, byte for byte: handshakes, frames, and both ends of a session through the proxy."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

from twisted.internet.defer import Deferred, DeferredQueue
from twisted.web.server import Site

from stream_proxy import ProxyResource
from stream_proxy.flows import resource as resource_module
from stream_proxy.flows.websocket import WebSocketRelay
from stream_proxy.request_log import Outcome, RequestLog
from stream_proxy.websocket.frames import Close
from tests.support.loopback import LoopbackTestCase, Upstream, reactor, turns
from tests.support.wire import Headers, Message, Stream, read_head, read_response

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
KEY = b"\x01\x82\xfe\x40"
REALTIME = "/v1/realtime?model=m"
UPGRADE = (("Upgrade", "websocket"), ("Connection", "Upgrade"))
HANDSHAKE_KEY = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
VERSION = ("Sec-WebSocket-Version", "13")
HANDSHAKE = (*UPGRADE, HANDSHAKE_KEY, VERSION)
ABNORMAL = Close.of(1011, "upstream websocket disconnected abnormally")
GOING_AWAY = Close.of(1001)
QUIET = RequestLog(observer=cast(Any, lambda event: None))
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, key: bytes = b"", width: int = 0) -> bytes:
    """Return the bytes of a frame.

    :param width: bytes that its length takes, although fewer would do.
    """
    size = len(payload)
    mask = 0x80 if key else 0
    first = bytes((opcode | (0x80 if fin else 0),))
    if size > 0xFFFF or width == 8:
        head = first + bytes((mask | 127,)) + size.to_bytes(8, "big")
    elif size > 125 or width == 2:
        head = first + bytes((mask | 126,)) + size.to_bytes(2, "big")
    else:
        head = first + bytes((mask | size,))
    return head + key + (masked(payload, key) if key else payload)


def masked(payload: bytes, key: bytes) -> bytes:
    """Mask `payload`, or unmask it."""
    size = len(payload)
    mask = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")


@dataclass(frozen=True)
class Frame:
    """A frame that was read."""

    opcode: int
    payload: bytes
    fin: bool = True
    masked: bool = False


async def read_frame(stream: Stream) -> Frame:
    """Read the next frame."""
    first, second = await stream.exactly(2)
    size = second & 0x7F
    if size > 125:
        size = int.from_bytes(await stream.exactly(2 if size == 126 else 8), "big")
    key = await stream.exactly(4) if second & 0x80 else b""
    payload = await stream.exactly(size)
    return Frame(first & 0x0F, masked(payload, key) if key else payload, bool(first & 0x80), bool(key))


def close_frame(code: int | None = None, reason: str = "", *, client: bool = False) -> bytes:
    """Return the bytes of a close frame."""
    payload = b"" if code is None else code.to_bytes(2, "big") + reason.encode()
    return frame(CLOSE, payload, key=KEY if client else b"")


def accepted(request: Message, headers: Headers = ()) -> bytes:
    """Return the 101 that accepts `request`."""
    key = request.get("sec-websocket-key")
    digest = base64.b64encode(hashlib.sha1(f"{key}{_GUID}".encode()).digest()).decode()
    fields = [*UPGRADE, ("Sec-WebSocket-Accept", digest), *headers]
    lines = ["HTTP/1.1 101 Switching Protocols", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def handshake(headers: Headers = HANDSHAKE, target: str = REALTIME, line: str | None = None) -> bytes:
    """Return the bytes of a client's handshake."""
    fields = [("Host", "localhost"), *headers]
    lines = [line or f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


@dataclass
class Pair:
    """Both ends of one session, and the handshake between them."""

    client: Stream
    server: Stream
    request: Message
    response: Message


class WebSocketTestCase(LoopbackTestCase):
    """Sessions through the proxy; a test ends when all of them have."""

    def setUp(self) -> None:
        #: Outcomes of sessions and refused handshakes, in order.
        self.outcomes: list[Outcome] = []
        self.relays: list[WebSocketRelay] = []
        self._ends: list[Deferred[None]] = []
        test = self

        class Recorded(WebSocketRelay):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                self._end: Deferred[None] = Deferred()
                test._ends.append(self._end)
                test.relays.append(self)

            def close(self, outcome: Outcome) -> None:
                first = not self.ended
                super().close(outcome)
                if first:
                    test.outcomes.append(outcome)
                    self._end.callback(None)

        self.patch(resource_module, "WebSocketRelay", Recorded)
        self.addCleanup(lambda: Deferred.fromCoroutine(self._all_ended()))

    async def ended(self) -> Outcome:
        """Wait until all sessions have ended, and return the last outcome."""
        await self._all_ended()
        return self.outcomes[-1]

    async def _all_ended(self) -> None:
        for end in list(self._ends):
            await end
        await turns(1)  # until it is in the log, too

    async def accepting(
        self, answer: Callable[[Message], bytes] = accepted
    ) -> tuple[Upstream, DeferredQueue[tuple[Message, Stream]]]:
        """Start an upstream that accepts every handshake; return it, and a queue of what arrives."""
        came: DeferredQueue[tuple[Message, Stream]] = DeferredQueue()

        async def script(stream: Stream) -> None:
            request = await read_head(stream)
            stream.write(answer(request))
            came.put((request, stream))

        return await self.upstream(script), came

    async def open(
        self,
        headers: Headers = (),
        target: str = REALTIME,
        answer: Callable[[Message], bytes] = accepted,
        pipelined: bytes = b"",
        prefix: str = "",
        **kwargs: Any,
    ) -> Pair:
        """Open a session through a proxy of its own; `kwargs` are ProxyResource's.

        :param answer: makes the upstream's answer, and what it sends with it.
        :param pipelined: sent with the client's handshake.
        """
        upstream, came = await self.accepting(answer)
        port = await self.proxy(upstream.url + prefix, **kwargs)
        return await self.join(port, came, handshake([*HANDSHAKE, *headers], target) + pipelined)

    async def plain_site(self, upstream: Upstream) -> int:
        """Serve a proxy in Twisted's own site, and return its port."""
        site = Site(ProxyResource(upstream.url, reactor=reactor, log=QUIET), reactor=reactor)
        site.noisy = False
        site.log = lambda request: None  # type: ignore[method-assign]
        return await self.listen(site)

    async def join(self, port: int, came: DeferredQueue[tuple[Message, Stream]], data: bytes = b"") -> Pair:
        """Open one more session through the proxy on `port`."""
        client = await self.client(port)
        client.write(data or handshake())
        request, server = await came.get()
        response = await read_head(client)
        self.assertEqual(response.status, 101, response)
        return Pair(client, server, request, response)

    async def refused(self, port: int, data: bytes | None = None) -> Message:
        """Send a handshake that will be refused, and return the response."""
        client = await self.client(port)
        client.write(handshake() if data is None else data)
        return await read_response(client, "GET")

    def assert_error(self, response: Message, status: int, kind: str, message: str = ".") -> None:
        """Expect an error of the proxy in OpenAI's envelope; `message` is a pattern for its text."""
        self.assertEqual(response.status, status, response)
        self.assertEqual(response.get("content-type"), "application/json")
        error = response.json()["error"]
        self.assertEqual((error["type"], error["param"]), (kind, None))
        self.assertRegex(error["message"], message)

    async def assert_closed(self, stream: Stream, close: Close, *, masked: bool = False) -> None:
        """Expect this close frame next."""
        self.assertEqual(await read_frame(stream), Frame(CLOSE, close.payload, masked=masked))

    async def assert_passes(self, source: Stream, target: Stream, *data: bytes) -> None:
        """Write `data` on one side, and expect it unchanged on the other."""
        for piece in data:
            source.write(piece)
        expected = b"".join(data)
        self.assertEqual(await target.exactly(len(expected)), expected)


def both(pair: Pair) -> Iterable[tuple[Stream, Stream, bytes]]:
    """Return each direction: writer, reader, and the key of the mask."""
    return ((pair.client, pair.server, KEY), (pair.server, pair.client, b""))


async def stuck(stream: Stream) -> int:
    """Wait until a stream sends nothing more, and return how many bytes it has left."""
    left = queued(stream.transport)
    while True:
        await turns(100)
        before, left = left, queued(stream.transport)
        if before == left:
            return left


def queued(transport: Any) -> int:
    """Return how many bytes wait in a transport."""
    return int(len(transport.dataBuffer) - transport.offset + transport._tempDataLen)
