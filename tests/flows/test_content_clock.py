"""Limits on content: comments and pings do not keep a dead stream alive."""

from __future__ import annotations

import gzip
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from stream_proxy import AdapterConfig, AdapterResource, Limits, ProxyResource
from stream_proxy.observe.content_scan import ContentScan
from tests.support.loopback import LoopbackTestCase, turns
from tests.support.movements import Movements
from tests.support.payloads import CHAT, CHAT_BODY, RESPONSES, RESPONSES_BODY, chunk, event
from tests.support.wire import (
    Headers,
    Stream,
    event_stream_head,
    read_head,
    read_request,
    read_response,
    send_request,
)

STREAM = {**CHAT_BODY, "stream": True}
PING = b": ping\n\n"
WORD = chunk({"content": "a"})
PIECE = event(
    {"type": "response.output_text.delta", "delta": "a", "output_index": 0}, "response.output_text.delta"
)


class ContentClockTests(LoopbackTestCase):
    """A stream that the test moves, under a clock that it advances."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.movements = Movements(self)

    async def begun(
        self,
        body: object = CHAT_BODY,
        target: str = CHAT,
        kind: Any = ProxyResource,
        headers: Headers = (),
        **limits: Any,
    ) -> tuple[Stream, Stream]:
        """Send a call whose stream has begun; return its client, and the upstream's end."""
        asked: Deferred[Stream] = Deferred()

        async def script(stream: Stream) -> None:
            await read_request(stream)
            asked.callback(stream)
            await stream.rest()

        def make(*args: Any, **kwargs: Any) -> Any:
            resource = kind(*args, **kwargs)
            resource.clock = self.clock
            return resource

        upstream = await self.upstream(script)
        bounds = Limits(**{"keep_alive_seconds": 0, **limits})
        port = await self.proxy(upstream.url, resource=make, limits=bounds)
        client = await self.client(port)
        send_request(client, "POST", target, body)
        stream = await asked
        await self.moved(stream, event_stream_head(headers))
        return client, stream

    async def moved(self, stream: Stream, data: bytes, *, chunked: bool = False) -> None:
        """Let the upstream send something, and wait until the proxy has noted it; that takes a second."""
        self.clock.advance(1)
        (stream.chunk if chunked else stream.write)(data)
        await self.movements.now(self.clock)
        await turns()

    async def test_first(self) -> None:
        """A converted call without content in time is a 504, whatever else comes."""
        client, stream = await self.begun(first_event_seconds=30)
        await self.moved(stream, chunk({"role": "assistant"}), chunked=True)
        for _ in range(3):
            await self.moved(stream, PING, chunked=True)
        self.clock.advance(30)
        response = await read_response(client)
        self.assertEqual((response.status, response.json()["error"]["code"]), (504, "upstream_stalled"))
        self.assertIn("firstEventSeconds", response.json()["error"]["message"])
        await stream.gone()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_between(self) -> None:
        """So is one whose content stops; content that goes on, however slowly, is never cut."""
        for target, body, piece in ((CHAT, CHAT_BODY, WORD), (RESPONSES, RESPONSES_BODY, PIECE)):
            client, stream = await self.begun(body, target, stalled_seconds=30, first_event_seconds=100)
            self.clock.advance(60)
            for _ in range(4):
                await self.moved(stream, piece, chunked=True)
                self.clock.advance(20)
            await self.moved(stream, PING, chunked=True)
            self.clock.advance(10)
            response = await read_response(client)
            self.assertEqual((response.status, response.json()["error"]["code"]), (504, "upstream_stalled"))
            self.assertIn("stalledSeconds", response.json()["error"]["message"])
            await stream.gone()
            self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_relayed(self) -> None:
        """A relayed stream that stalls is cut, before its first content or later."""
        for words in (0, 2):
            client, stream = await self.begun(STREAM, first_event_seconds=30, stalled_seconds=30)
            await read_head(client)
            for _ in range(words):
                await self.moved(stream, WORD, chunked=True)
                self.clock.advance(20)
            for _ in range(3):
                await self.moved(stream, PING, chunked=True)
            self.clock.advance(30)
            await stream.gone()
            self.assertNotIn(b"0\r\n\r\n", await client.rest())
            self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_not_a_stream(self) -> None:
        """The limits are not about other responses."""
        client, stream = await self.begun({"model": "m"}, "/v1/embeddings", first_event_seconds=5)
        self.clock.advance(100)
        stream.chunk(b"x")
        stream.chunk(b"")
        self.assertEqual((await read_response(client)).status, 200)

    async def test_compressed(self) -> None:
        """Nor are they about a stream that a client wanted compressed: its content cannot be seen."""
        limits: dict[str, Any] = {"first_event_seconds": 30, "stalled_seconds": 30}
        client, stream = await self.begun(STREAM, headers=[("Content-Encoding", "gzip")], **limits)
        packed = gzip.compress(WORD)
        await self.moved(stream, packed[:10], chunked=True)
        self.clock.advance(31)
        await self.moved(stream, packed[10:], chunked=True)
        stream.chunk(b"")
        self.assertEqual(gzip.decompress((await read_response(client)).body), WORD)

    async def test_adapter(self) -> None:
        """An adapter's service is held to them as well."""

        def adapter(url: str, **kwargs: Any) -> AdapterResource:
            return AdapterResource(url, AdapterConfig(), **kwargs)

        body = {**CHAT_BODY, "model": "gpt-3.5-turbo"}
        client, stream = await self.begun(body, "/v1/chat/completions", adapter, first_event_seconds=30)
        await self.moved(stream, PING, chunked=True)
        self.clock.advance(30)
        response = await read_response(client)
        self.assertEqual((response.status, response.json()["error"]["code"]), (504, "upstream_stalled"))
        await stream.gone()


class ScanTests(LoopbackTestCase):
    """What counts as content in the bytes of a stream."""

    def test_reads(self) -> None:
        """Content is found wherever a read is cut, and not again in what follows it."""
        for at in range(1, len(WORD)):
            scan = ContentScan("chat")
            found = [scan.feed(WORD[:at]), scan.feed(WORD[at:])]
            self.assertIn(True, found, at)
            self.assertEqual([scan.feed(PING) for _ in range(5)], [False] * 5)

    def test_none(self) -> None:
        """Roles, empty texts, comments and the end are no content."""
        scan = ContentScan("chat")
        for data in (
            chunk({"role": "assistant", "content": ""}),
            PING,
            chunk({}, "stop"),
            b"data: [DONE]\n\n",
        ):
            self.assertFalse(scan.feed(data), data)
