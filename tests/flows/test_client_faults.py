"""Faults of clients and of timing: each has one outcome in each flow, and leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Callable

from twisted.internet.defer import Deferred

from tests.support.faults import (
    ADAPT_STREAM,
    BEGUN,
    CONVERT,
    DONE,
    FLOWS,
    HEAD,
    RELAY,
    RESPONSE,
    SILENT,
    SILENT_AT_ONCE,
    TIMED_OUT,
    Outcomes,
    chunked,
    half_close,
    sends,
    text_chunk,
)
from tests.support.loopback import turns
from tests.support.movements import Movements
from tests.support.stage import FaultTestCase, eventually
from tests.support.strict import read_responses
from tests.support.wire import Stream, read_head, read_request, respond


class TimeTests(FaultTestCase):
    """Upstreams that are slow or silent; time passes only when the test advances it."""

    async def silent(self, name: str, data: bytes, outcomes: Outcomes) -> None:
        """Check the outcome in each flow when nothing follows `data`."""
        movements = Movements(self)
        for flow, expected in zip(FLOWS, outcomes, strict=True):
            responded: list[Stream] = []
            async with self.stage(flow, sends(data, responded.append)) as stage:
                clock = stage.manual_time()
                client = await self.client(stage.port)
                client.write(flow.request())
                await eventually(lambda responded=responded: bool(responded))  # type: ignore[misc]
                if data:
                    clock.advance(1)
                    await movements.now(clock, 200)
                    await turns(10)
                clock.advance(600)
                self.assertEqual(flow.outcome(await client.rest()), expected, f"{name}, {flow.name}")

    async def test_silence(self) -> None:
        """``timeoutSeconds`` of silence is a 504, or truncates the response."""
        await self.silent("before the head", b"", TIMED_OUT)
        await self.silent("after the head", HEAD, SILENT_AT_ONCE)
        await self.silent("in the response", BEGUN, SILENT)

    async def test_drip(self) -> None:
        """A dripping stream is never cut off."""
        movements = Movements(self)
        for flow in FLOWS:
            steps: list[Deferred[None]] = []

            async def script(stream: Stream, steps: list[Deferred[None]] = steps) -> None:
                await read_request(stream)
                stream.write(HEAD)
                body = RESPONSE[len(HEAD) :]
                for start in range(0, len(body), 16):
                    steps.append(Deferred())
                    await steps[-1]
                    stream.write(body[start : start + 16])
                await stream.rest()

            async with self.stage(flow, script) as stage:
                clock = stage.manual_time()
                client = await self.client(stage.port)
                client.write(flow.request())
                while True:
                    await eventually(lambda: bool(steps) or client.lost is not None)  # noqa: B023
                    if client.lost is not None:
                        break
                    await movements.now(clock)
                    clock.advance(599)
                    steps.pop().callback(None)
                self.assertEqual(flow.outcome(await client.rest()), "complete", flow.name)

    async def test_dripping_head(self) -> None:
        """The whole head has to arrive within ``timeoutSeconds``, however it drips."""
        for flow in FLOWS:
            begun: Deferred[Stream] = Deferred()

            async def script(stream: Stream, begun: Deferred[Stream] = begun) -> None:
                await read_request(stream)
                stream.write(b"HTTP/1.1 200 OK\r\nX: ")
                begun.callback(stream)
                await stream.rest()

            async with self.stage(flow, script) as stage:
                clock = stage.manual_time()
                client = await self.client(stage.port)
                client.write(flow.request())
                stream = await begun
                for _ in range(5):
                    clock.advance(119)
                    stream.write(b"x")
                    await turns(5)
                self.assertEqual(bytes(client.buffer), b"", flow.name)
                clock.advance(5)
                self.assertEqual(flow.outcome(await client.rest()), "504 upstream_timeout", flow.name)


class UploadTests(FaultTestCase):
    """Upstreams that respond before the upload ends, or do not read it."""

    async def test_early(self) -> None:
        """A response that arrives before the end of the upload is relayed, although the upload continues."""

        async def script(stream: Stream) -> None:
            await read_head(stream)
            respond(stream, 413, b"{}")
            await stream.rest()

        async with self.stage(RELAY, script) as stage:
            client = await self.client(stage.port)
            client.write(b"POST /v1/files HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 99)
            await client.until(b"\r\n\r\n")
            client.write(b"x" * 8_999_901)
            self.assertEqual(await client.rest(), b"{}")

    async def test_never_read(self) -> None:
        """An upstream that reads nothing of a large request counts as silent."""

        async def script(stream: Stream) -> None:
            stream.transport.pauseProducing()
            reached.callback(stream)
            await stream.gone()

        for flow in FLOWS:
            reached: Deferred[Stream] = Deferred()
            async with self.stage(flow, script) as stage:
                clock = stage.manual_time()
                client = await self.client(stage.port)
                client.write(flow.request(padding=16 * 2**20))
                while not reached.called:
                    await turns()
                    clock.advance(0)  # a large body is looked at over many turns
                stream = await reached
                await turns(20)
                clock.advance(601)
                self.assertEqual(flow.outcome(await client.rest()), "504 upstream_timeout", flow.name)
                stream.transport.resumeProducing()


class ClientTests(FaultTestCase):
    """Clients that disconnect or misbehave."""

    ways: tuple[Callable[[Stream], object], ...] = (Stream.close, Stream.abort, half_close)

    async def test_leaves_while_sending(self) -> None:
        """A client that leaves in the head, after it, or in the body: nothing is dialled."""
        for flow in FLOWS:
            request = flow.request()
            for place in (10, request.index(b"\r\n\r\n") + 4, len(request) - 1):
                for way in self.ways:
                    async with self.stage(flow, sends(b"")) as stage:
                        assert stage.upstream is not None
                        client = await self.client(stage.port)
                        client.write(request[:place])
                        await eventually(lambda stage=stage: bool(stage.site.channels))  # type: ignore[misc]
                        await turns(3)
                        way(client)
                        await client.gone()
                        self.assertEqual(stage.upstream.connections, [])

    async def test_leaves_while_dialling(self) -> None:
        """A client that leaves while the TLS handshake with the upstream is under way."""

        async def script(stream: Stream) -> None:
            await stream.some()
            reached.callback(None)
            await stream.rest()

        for flow in FLOWS:
            for way in self.ways:
                reached: Deferred[None] = Deferred()
                async with self.stage(flow, script, scheme="https") as stage:
                    assert stage.upstream is not None
                    client = await self.client(stage.port)
                    client.write(flow.request())
                    await reached
                    way(client)
                    await stage.upstream.connections[0].gone()

    async def test_leaves_before_the_end(self) -> None:
        """A client that leaves before the response or inside it: the upstream's connection ends at once."""
        for flow in FLOWS:
            for data in (b"", HEAD[:-2], HEAD, BEGUN):
                for way in self.ways:
                    said: Deferred[Stream] = Deferred()

                    async def script(
                        stream: Stream, data: bytes = data, said: Deferred[Stream] = said
                    ) -> None:
                        await read_request(stream)
                        stream.write(data)
                        said.callback(stream)
                        await stream.rest()

                    async with self.stage(flow, script) as stage:
                        client = await self.client(stage.port)
                        client.write(flow.request())
                        stream = await said
                        if data == BEGUN and flow in (RELAY, ADAPT_STREAM):
                            await client.until(b"Hel")
                        way(client)
                        await stream.gone()

    async def test_garbage(self) -> None:
        """Bytes that are not a request get a 400, and a request after them is not processed."""
        for garbage in (b"\0" * 99 + b"\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n", b"rubbish\r\n" * 999):
            async with self.stage(RELAY, sends(RESPONSE)) as stage:
                assert stage.upstream is not None
                client = await self.client(stage.port)
                client.write(garbage + RELAY.request())
                self.assertEqual(RELAY.outcome(await client.rest()), "400 invalid_request_error")
                self.assertEqual(stage.upstream.connections, [])

    async def test_garbage_after(self) -> None:
        """Bytes after a request get a 400 after the response to the request."""
        for flow in FLOWS:
            async with self.stage(flow, sends(RESPONSE)) as stage:
                client = await self.client(stage.port)
                client.write(flow.request(close=False) + b"rubbish\r\n\r\n")
                responses = read_responses(await client.rest(), closed=True)
                self.assertEqual([response.status for response in responses], [200, 400], flow.name)

    async def test_pipelined(self) -> None:
        """Pipelined requests are answered in order; none is lost, none is mixed up."""

        async def script(stream: Stream) -> None:
            while True:
                got = await read_request(stream)
                text = (got.json()["n"] if got.body else got.target).encode()
                body = text_chunk(text, b'"stop"') + DONE
                stream.write(HEAD + chunked(body) + b"0\r\n\r\n")

        async with self.stage(CONVERT, script) as stage:
            client = await self.client(stage.port)
            sent = b""
            for number in range(6):
                stream = number % 2 == 0
                body = json.dumps(
                    {"model": "m", "stream": stream, "messages": [], "n": f"n{number}"}
                ).encode()
                sent += CONVERT.head(len(body), close=number == 5) + body
            client.write(sent)
            responses = read_responses(await client.rest(), closed=True)
        texts = []
        for number, response in enumerate(responses):
            value = json.loads(response.body.split(b"\n")[0].removeprefix(b"data: "))["choices"][0]
            texts.append(value["delta" if number % 2 == 0 else "message"]["content"])
        self.assertEqual(texts, [f"n{number}" for number in range(6)])

    async def test_drip(self) -> None:
        """A request that arrives byte by byte is accepted."""
        for flow in FLOWS:
            async with self.stage(flow, sends(RESPONSE)) as stage:
                client = await self.client(stage.port)
                client.transport.setTcpNoDelay(True)
                for byte in flow.request():
                    client.write(bytes([byte]))
                    await turns(1)
                self.assertEqual(flow.outcome(await client.rest()), "complete", flow.name)

    async def test_never_reads(self) -> None:
        """A client that reads nothing and then leaves ends its upstream connection."""
        piece = chunked(text_chunk(b"x" * 60_000))

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(HEAD + piece * 200)
            await stream.rest()

        for flow in (RELAY, ADAPT_STREAM):
            async with self.stage(flow, script) as stage:
                assert stage.upstream is not None
                client = await self.client(stage.port)
                client.transport.pauseProducing()
                client.write(flow.request())
                await eventually(lambda stage=stage: bool(stage.upstream.connections))  # type: ignore[misc]
                await turns(50)
                client.abort()
                await stage.upstream.connections[0].gone()
