"""Lifetime of a request's objects: they are free once it has ended, without the cycle collector."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable
from typing import Any

from stream_proxy import AdapterConfig, AdapterResource, Limits
from stream_proxy.adapter.flow import AdapterCall
from stream_proxy.aggregate.accumulator import EventAccumulator
from stream_proxy.downstream.heartbeat import Heartbeat
from stream_proxy.downstream.request import ProxyRequest
from stream_proxy.downstream.request_body import RequestBody
from stream_proxy.flows.body_collection import BodyCollection, PacedScan
from stream_proxy.flows.conversion.aggregation import JSONAggregation, StreamAggregation
from stream_proxy.flows.conversion.convert import Conversion
from stream_proxy.flows.conversion.fallbacks import Fallbacks
from stream_proxy.flows.conversion.inspection import Inspection
from stream_proxy.flows.exchange import Exchange
from stream_proxy.flows.pacing import PacedBody
from stream_proxy.flows.relay import Relay
from stream_proxy.flows.upstream_call import UpstreamCall
from stream_proxy.flows.websocket import WebSocketRelay
from stream_proxy.http.json_scan import ObjectScan
from stream_proxy.upstream.asking import PooledAsking
from stream_proxy.upstream.response import UpstreamResponse
from stream_proxy.upstream.upload import ProducedUpload, SlicedUpload
from tests.support.loopback import LoopbackTestCase, Script, Upstream, turns
from tests.support.payloads import CHAT, CHAT_BODY, HELLO
from tests.support.sessions import WebSocketTestCase, close_frame, handshake
from tests.support.wire import Stream, event_stream_head, head, read_request, read_response, send_request

WATCHED = (
    BodyCollection,
    EventAccumulator,
    Exchange,
    Fallbacks,
    Heartbeat,
    Inspection,
    JSONAggregation,
    ObjectScan,
    PacedBody,
    PacedScan,
    PooledAsking,
    ProducedUpload,
    ProxyRequest,
    RequestBody,
    SlicedUpload,
    StreamAggregation,
    UpstreamCall,
    UpstreamResponse,
)


def living() -> list[Any]:
    """Return every object of this test whose life is bounded by a request."""
    return [each for each in gc.get_objects() if isinstance(each, WATCHED)]


class LifetimeTests(LoopbackTestCase):
    """Weak references to the objects of a request, with the cycle collector off."""

    def setUp(self) -> None:
        gc.disable()
        self.addCleanup(gc.enable)
        # What there is already, such as the modules of the whole suite, is not searched again and again.
        gc.freeze()
        self.addCleanup(gc.unfreeze)
        self.born: dict[str, list[weakref.ref[Any]]] = {}

    def watch(self) -> None:
        """Take weak references to the objects that exist now."""
        for each in living():
            kind = ProxyRequest if isinstance(each, ProxyRequest) else type(each)
            born = self.born.setdefault(kind.__name__, [])
            # The objects of compiled classes have no weak references; `living` finds those that are left.
            with contextlib.suppress(TypeError):
                born.append(weakref.ref(each))

    async def assert_free(self, *expected: type, left: tuple[type, ...] = ()) -> None:
        """Fail if anything watched, or created since, is alive; `expected` must have been watched."""
        await turns(4)
        self.assertLessEqual({each.__name__ for each in expected}, set(self.born))
        alive = [name for name, refs in self.born.items() if any(ref() is not None for ref in refs)]
        alive += [type(each).__name__ for each in living() if not isinstance(each, left)]
        self.assertEqual(alive, [])

    def script(self, *parts: bytes, end: Callable[[Stream], object] | None = None) -> Script:
        """Return an upstream that sends each of `parts` after the request's objects have been watched."""

        async def script(stream: Stream) -> None:
            while True:
                await read_request(stream)
                for part in parts:
                    await turns(4)
                    self.watch()
                    stream.write(part)
                await turns(4)
                self.watch()
                if end is not None:
                    end(stream)
                    return

        return script

    async def ask(
        self, port: int, method: str = "POST", target: str = CHAT, body: object = None, end: bool = True
    ) -> bytes:
        """Return the response body of one request, on a connection that stays open."""
        client = await self.client(port)
        send_request(client, method, target, CHAT_BODY if body is None and method == "POST" else body)
        return (await read_response(client, method)).body if end else await client.rest()

    async def leave(
        self, port: int, upstream: Upstream, target: str = CHAT, body: object = CHAT_BODY
    ) -> None:
        """Send a request and disconnect once the upstream has sent its part."""
        client = await self.client(port)
        send_request(client, "POST", CHAT, body)
        while not self.born:
            await turns()
        await turns(6)
        client.abort()
        await upstream.connections[0].gone()


STREAM = event_stream_head() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(HELLO), HELLO)
STREAMING_BODY = {**CHAT_BODY, "stream": True}
REFUSAL = b'{"error": {"message": "stream_options: extra fields not permitted"}}'


def whole(body: bytes, status: int = 200) -> bytes:
    """Return a JSON response."""
    fields = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    return head(status, fields) + body


class ConversionLifetimeTests(LifetimeTests):
    """Converted calls."""

    async def test_stream(self) -> None:
        """A converted call leaves nothing behind on two connections that stay open."""
        upstream = await self.upstream(self.script(STREAM[:-20], STREAM[-20:]))
        self.assertIn(b"Hello", await self.ask(await self.proxy(upstream.url)))
        await self.assert_free(Exchange, Conversion, Fallbacks, Heartbeat, PacedBody, StreamAggregation)

    async def test_heartbeat(self) -> None:
        """A call leaves nothing after a heartbeat, followed by a stream or by JSON."""
        for response in (STREAM, whole(b"{}")):

            async def script(stream: Stream, response: bytes = response) -> None:
                await read_request(stream)
                while not any(each.begun for each in living() if isinstance(each, Heartbeat)):
                    await turns()
                self.watch()
                stream.write(response)

            upstream = await self.upstream(script)
            port = await self.proxy(upstream.url, limits=Limits(keep_alive_seconds=0.01))
            self.assertIn(b"}", await self.ask(port))
            await self.assert_free(Exchange, Conversion, Heartbeat)

    async def test_fallback(self) -> None:
        """A call leaves nothing after a second attempt without an option."""
        responses = iter((whole(REFUSAL, 400), STREAM))

        async def script(stream: Stream) -> None:
            while True:
                await read_request(stream)
                await turns(4)
                self.watch()
                stream.write(next(responses))

        upstream = await self.upstream(script)
        self.assertIn(b"Hello", await self.ask(await self.proxy(upstream.url)))
        await self.assert_free(Exchange, Conversion, Fallbacks)

    async def test_errors(self) -> None:
        """A call leaves nothing if its upstream refuses it, reports an error, or streams no JSON."""
        failed = b'data: {"error": {"message": "no", "code": 500}}\n\n'
        for response in (
            whole(b'{"error": {"message": "no"}}', 500),
            event_stream_head() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(failed), failed),
            event_stream_head() + b"8\r\ndata: {\n\r\n2\r\n\n\n\r\n0\r\n\r\n",
            event_stream_head([("Content-Encoding", "br")]) + b"2\r\nxx\r\n0\r\n\r\n",
        ):
            upstream = await self.upstream(self.script(response))
            self.assertIn(b"error", await self.ask(await self.proxy(upstream.url)))
            await self.assert_free(Exchange, Conversion)

    async def test_large(self) -> None:
        """A large call leaves nothing, converted or passed on."""
        text = "x" * 300_000
        for body, parts in (
            ({**CHAT_BODY, "more": text}, (STREAM[:-20], STREAM[-20:])),
            ({**CHAT_BODY, "more": text, "stream": True}, (STREAM[:-20], STREAM[-20:])),
        ):
            upstream = await self.upstream(self.script(*parts))
            await self.ask(await self.proxy(upstream.url), body=body)
            await self.assert_free(Exchange)

    async def test_large_result(self) -> None:
        """A large result leaves nothing, sent whole or left by its client."""
        text = b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % (b"x" * 900_000)
        body = text * 9 + b"data: [DONE]\n\n"
        parts = (event_stream_head() + b"%x\r\n" % len(body), body + b"\r\n0\r\n\r\n")
        upstream = await self.upstream(self.script(*parts))
        port = await self.proxy(upstream.url)
        self.assertGreater(len(await self.ask(port)), 8_000_000)
        await self.assert_free(Exchange, Conversion, Heartbeat, PacedBody, StreamAggregation)
        client = await self.client(port)
        send_request(client, "POST", CHAT, CHAT_BODY)
        await client.some()
        self.watch()
        client.abort()
        await client.gone()
        await turns(20)
        await self.assert_free(Conversion, Heartbeat)

    async def test_cut(self) -> None:
        """A call leaves nothing if its upstream closes or resets before, in and after the head."""
        for parts in ((), (event_stream_head(),), (STREAM[:-40],)):
            for end in (Stream.close, Stream.abort):
                upstream = await self.upstream(self.script(*parts, end=end))
                self.assertIn(b"upstream_error", await self.ask(await self.proxy(upstream.url)))
                await self.assert_free(Exchange, Conversion, PooledAsking)

    async def test_client_leaves(self) -> None:
        """A call leaves nothing if its client leaves before the stream or inside it."""
        for parts in ((), (event_stream_head(),), (STREAM[:-40],)):
            upstream = await self.upstream(self.script(*parts))
            await self.leave(await self.proxy(upstream.url), upstream)
            await self.assert_free(Exchange, Conversion, PooledAsking)
            self.born.clear()

    async def test_silence(self) -> None:
        """A call leaves nothing if its upstream stays silent."""
        upstream = await self.upstream(self.script(event_stream_head()))
        port = await self.proxy(upstream.url, limits=Limits(timeout_seconds=0.1))
        self.assertIn(b"upstream_timeout", await self.ask(port))
        await self.assert_free(Exchange, Conversion)

    async def test_unreachable(self) -> None:
        """A call leaves nothing if its upstream cannot be reached."""
        self.assertIn(b"upstream_error", await self.ask(await self.proxy("http://127.0.0.1:1")))
        await self.assert_free()

    async def test_too_large(self) -> None:
        """A request that is too large leaves nothing."""
        port = await self.proxy("http://127.0.0.1:1", limits=Limits(max_request_bytes=10))
        self.assertIn(b"maxRequestBytes", await self.ask(port, end=False))
        await self.assert_free()


class RelayLifetimeTests(LifetimeTests):
    """Relayed requests."""

    async def test_whole(self) -> None:
        """A relayed request leaves nothing behind: without a body, with one, and with a buffered one."""
        for method, target, body in (
            ("GET", "/v1/models", None),
            ("POST", "/v1/files", b"x" * 200_000),
            ("POST", CHAT, STREAMING_BODY),
        ):
            upstream = await self.upstream(self.script(STREAM[:-20], STREAM[-20:]))
            await self.ask(await self.proxy(upstream.url), method, target, body)
            await self.assert_free(Exchange, Relay, ProxyRequest)

    async def test_early_response(self) -> None:
        """A request leaves nothing if its response precedes the end of the upload."""
        upstream = await self.upstream(self.early)
        client = await self.client(await self.proxy(upstream.url))
        client.write(b"POST /v1/files HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nbegun")
        self.assertIn(b"413", await client.rest())
        # Twisted's request keeps an unfinished upload in a reference cycle of its own.
        self.born.pop("RequestBody")
        await self.assert_free(Exchange, Relay, left=(RequestBody,))

    async def early(self, stream: Stream) -> None:
        """Respond during the request."""
        await stream.until(b"begun")
        self.watch()
        stream.write(whole(b"{}", 413))

    async def test_cut(self) -> None:
        """A request leaves nothing if its upstream closes or resets."""
        for parts in ((), (STREAM[:-40],)):
            for end in (Stream.close, Stream.abort):
                upstream = await self.upstream(self.script(*parts, end=end))
                await self.ask(await self.proxy(upstream.url), "POST", CHAT, STREAMING_BODY, end=not parts)
                await self.assert_free(Exchange, Relay, PooledAsking)

    async def test_client_leaves(self) -> None:
        """A request leaves nothing if its client leaves."""
        for parts in ((), (STREAM[:-40],)):
            upstream = await self.upstream(self.script(*parts))
            await self.leave(await self.proxy(upstream.url), upstream, body=STREAMING_BODY)
            await self.assert_free(Exchange, Relay, PooledAsking)
            self.born.clear()


class AdapterLifetimeTests(LifetimeTests):
    """Calls of an adapter."""

    async def adapter(self, upstream_url: str) -> int:
        """Start an adapter and return its port."""

        def resource(url: str, **options: Any) -> AdapterResource:
            return AdapterResource(url, AdapterConfig(models=("m",)), **options)

        return await self.proxy(upstream_url, resource=resource)

    async def test_whole(self) -> None:
        """A call leaves nothing behind, streamed or not."""
        for body in (CHAT_BODY, STREAMING_BODY):
            upstream = await self.upstream(self.script(STREAM[:-20], STREAM[-20:]))
            await self.ask(await self.adapter(upstream.url), body=body)
            await self.assert_free(Exchange, AdapterCall, UpstreamResponse)

    async def test_errors(self) -> None:
        """A call leaves nothing if it fails, before or in the stream, or if its client leaves."""
        for body in (CHAT_BODY, STREAMING_BODY):
            for parts in ((), (whole(b"no", 500),), (STREAM[:-40],)):
                upstream = await self.upstream(self.script(*parts, end=Stream.close))
                await self.ask(await self.adapter(upstream.url), body=body)
                await self.assert_free(Exchange, AdapterCall)
            upstream = await self.upstream(self.script(STREAM[:-40]))
            self.born.clear()
            await self.leave(await self.adapter(upstream.url), upstream, body=body)
            await self.assert_free(Exchange, AdapterCall)


class WebSocketLifetimeTests(LifetimeTests, WebSocketTestCase):
    """WebSockets."""

    async def test_session(self) -> None:
        """A session leaves nothing behind once both connections have ended."""
        pair = await self.open()
        await turns(4)
        self.watch()
        pair.client.write(close_frame(1000, client=True))
        pair.server.write(close_frame(1000))
        pair.server.close()
        await pair.client.gone()
        await self.assert_free(Exchange, WebSocketRelay)

    async def test_unreachable(self) -> None:
        """A handshake leaves nothing if its upstream cannot be reached."""
        client = await self.client(await self.proxy("http://127.0.0.1:1"))
        client.write(handshake())
        self.assertEqual((await read_response(client)).status, 502)
        await self.assert_free()

    async def test_refusal(self) -> None:
        """A handshake that the upstream refuses leaves nothing."""
        upstream = await self.upstream(self.script(whole(b"{}", 401)))
        client = await self.client(await self.proxy(upstream.url))
        client.write(handshake())
        self.assertEqual((await read_response(client)).status, 401)
        await self.assert_free(Exchange, WebSocketRelay)
