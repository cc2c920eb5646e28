"""Faults of upstreams and of clients: each has one outcome in each flow, and leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.support.faults import (
    ADAPT,
    ADAPT_STREAM,
    ANSWER,
    BEGUN,
    BODY,
    COMPLETE,
    CONVERT,
    CUT,
    CUT_AT_ONCE,
    DONE,
    FIRST,
    FLOWS,
    HEAD,
    NO_ANSWER,
    RELAY,
    RESET,
    REST,
    SILENT,
    SILENT_AT_ONCE,
    TIMED_OUT,
    Fault,
    FaultTestCase,
    Flow,
    Outcomes,
    chunked,
    eventually,
    half_close,
    says,
    stay,
)
from tests.support.loopback import turns
from tests.support.strict import read_responses
from tests.support.wire import Stream, head, read_head, read_request, respond

EVENTS = ("Content-Type", "text/event-stream")


class ConnectionTests(FaultTestCase):
    """Upstreams whose connection ends too early."""

    async def test_refused(self) -> None:
        """Nobody listens."""
        for flow in FLOWS:
            async with self.stage(flow, None) as stage:
                self.assertEqual(await self.asked(stage), "502 upstream_error", flow.name)

    async def test_ends(self) -> None:
        """It ends in some way at some stage; what is whole by then is an answer all the same."""
        stages = [
            ("before the request", b"", False, NO_ANSWER, NO_ANSWER),
            ("after the request", b"", True, NO_ANSWER, NO_ANSWER),
            ("in the status line", b"HTTP/1.1 2", True, NO_ANSWER, NO_ANSWER),
            ("in the head", HEAD[:-2], True, NO_ANSWER, NO_ANSWER),
            ("after the head", HEAD, True, CUT_AT_ONCE, RESET),
            ("in a chunk", HEAD + chunked(FIRST)[:-9], True, None, RESET),
            ("after a chunk", BEGUN, True, CUT, RESET),
            ("in the last event", HEAD + chunked(FIRST, REST, DONE[:-1]), True, None, None),
        ]
        faults = [
            Fault(f"{way.__name__} {name}", says(data, way, reading), outcomes)
            for name, data, reading, closed, reset in stages
            for way, outcomes in ((Stream.close, closed), (half_close, closed), (Stream.abort, reset))
            if outcomes is not None
        ]
        await self.check(faults)


class FramingTests(FaultTestCase):
    """Upstreams whose HTTP is not what it should be."""

    async def test_heads(self) -> None:
        """A head that makes no sense, or has no end, is a 502."""
        heads = {
            "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
            "HTTP/0.9": BODY,
            "NUL bytes": b"\0" * 1000 + b"\r\n\r\n",
            "status 99": head(99),
            "status 000": b"HTTP/1.1 000 X\r\n\r\n",
            "status 1000": head(1000),
            "negative length": head(200, [EVENTS, ("Content-Length", "-1")]),
            "two lengths": head(200, [EVENTS, ("Content-Length", "5"), ("Content-Length", "6")]),
            "no number": head(200, [EVENTS, ("Content-Length", "five")]),
            "signed length": head(200, [EVENTS, ("Content-Length", "+5")]),
            "length with a gap": head(200, [EVENTS, ("Content-Length", " 5 5")]),
            "huge length": head(200, [EVENTS, ("Content-Length", "9" * 5000)]),
            "identity": head(200, [EVENTS, ("Transfer-Encoding", "identity")]),
            "gzip": head(200, [EVENTS, ("Transfer-Encoding", "gzip")]),
            "chunked twice": head(200, [EVENTS, ("Transfer-Encoding", "chunked, chunked")]),
            "two codings": head(
                200, [EVENTS, ("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "gzip")]
            ),
            "endless fields": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
            "endless line": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 10_000_000,
            "endless 1xx": b"HTTP/1.1 103 X\r\n\r\n" * 10_000,
            "101": head(101) + ANSWER,
        }
        await self.check([Fault(name, says(data, stay), NO_ANSWER) for name, data in heads.items()])

    async def test_chunks(self) -> None:
        """A chunk that is none ends the answer there."""
        chunks = {
            "negative": b"-5\r\nabcde\r\n",
            "prefixed": b"0x5\r\nabcde\r\n",
            "no number": b"zz\r\nabcde\r\n",
            "nothing": b"\r\nabcde\r\n",
            "junk after the size": b"5 x\r\nabcde\r\n",
            "blank after the size": b"5 \r\nabcde\r\n",
            "no line end": b"5\r\nabcde5\r\nabcde\r\n",
            "bare line feeds": b"5\nabcde\n\r\n",
            "extension of 1 MB": b"5;" + b"x" * 1_000_000 + b"\r\nabcde\r\n",
            "NUL bytes": b"\0" * 100 + b"\r\n",
            "endless trailers": b"0\r\n" + b"X: y\r\n" * 20_000,
        }
        await self.check([Fault(name, says(BEGUN + data, stay), CUT) for name, data in chunks.items()])
        await self.check([Fault("huge", says(BEGUN + b"f" * 30 + b"\r\nabcde\r\n"), CUT)])

    async def test_taken(self) -> None:
        """What is unusual but clear is an answer."""
        length = ("Content-Length", str(len(BODY)))
        answers = {
            "HTTP/1.0": head(200, [EVENTS]).replace(b"HTTP/1.1", b"HTTP/1.0") + BODY,
            "HTTP/1.0 with a length": head(200, [EVENTS, length]).replace(b"HTTP/1.1", b"HTTP/1.0") + BODY,
            "close-delimited": head(200, [EVENTS]) + BODY,
            "length": head(200, [EVENTS, length]) + BODY,
            "two equal lengths": head(200, [EVENTS, length, length]) + BODY,
            "length and chunks": ANSWER.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n", 1),
            "garbage after a length": head(200, [EVENTS, length]) + BODY + b"\0garbage\r\n" * 9,
            "garbage after chunks": ANSWER + b"\0garbage\r\n" * 9,
            "an answer after chunks": ANSWER * 2,
            "chunk extensions": HEAD + chunked(BODY).replace(b"\r\n", b';a="b";c\r\n', 1) + b"0;d\r\n\r\n",
            "trailers": ANSWER[:-2] + b"X: y\r\n\r\n",
            "a few 1xx": (head(103) + head(100)) * 20 + ANSWER,
            "bare line feeds": head(200, [EVENTS]).replace(b"\r\n", b"\n") + BODY,
        }
        await self.check([Fault(name, says(data), COMPLETE) for name, data in answers.items()])


def text_chunk(text: bytes, finish: bytes = b"null") -> bytes:
    """An event with this in its JSON string."""
    return b'data: {"choices": [{"index": 0, "delta": {"content": "%b"}, "finish_reason": %b}]}\n\n' % (
        text,
        finish,
    )


class StreamTests(FaultTestCase):
    """Upstreams whose stream is not what it should be."""

    async def answers(self, flow: Flow, body: bytes) -> bytes:
        """What a client gets when this is the stream."""
        async with self.stage(flow, says(HEAD + chunked(body) + b"0\r\n\r\n")) as stage:
            client = await self.client(stage.port)
            client.write(flow.request())
            [answer] = read_responses(await client.rest(), closed=True)
        self.assertTrue(answer.complete)
        return b"%d " % answer.status + answer.body

    async def test_invalid_utf8(self) -> None:
        """Bytes that are no UTF-8 are U+FFFD in what the proxy writes, and pass where it relays."""
        body = text_chunk(b"H\xffi\xc3", b'"stop"') + DONE
        self.assertEqual(await self.answers(RELAY, body), b"200 " + body)
        for flow in (CONVERT, ADAPT, ADAPT_STREAM):
            self.assertIn("H\ufffdi\ufffd", (await self.answers(flow, body)).decode(), flow.name)

    async def test_not_json(self) -> None:
        """Data that is no JSON is an error where the proxy has to understand it."""
        for data in (b"{oops", b"nul\0l", b"{" * 100_000, text_chunk(b"a\0b")[6:-2]):
            body = FIRST + b"data: " + data + b"\n\n" + REST + DONE
            self.assertEqual(await self.answers(RELAY, body), b"200 " + body)
            self.assertTrue((await self.answers(CONVERT, body)).startswith(b"502 "), data[:9])

    async def test_nothing(self) -> None:
        """A stream that ends without an event, or holds NUL bytes alone, is no answer to a converted call."""
        for body in (b"", b":\n\n", b"\0" * 1000, b"\n" * 1000):
            answer = head(200, [EVENTS]) + body
            await self.check([Fault(repr(body[:5]), says(answer), NO_ANSWER)], [CONVERT, ADAPT, ADAPT_STREAM])


class OffsetTests(FaultTestCase):
    """Upstreams that close within an answer, wherever that is."""

    async def test_chunked(self) -> None:
        """The outcome is an error, a broken connection or the whole answer, never a part that looks whole."""
        body = text_chunk(b"Hello", b'"stop"') + DONE
        answer = HEAD + chunked(body) + b"0\r\n\r\n"
        allowed = {"502 upstream_error", "complete"}
        for flow in (CONVERT, ADAPT):
            found = await self.offsets(flow, answer)
            self.assertLessEqual(set(found), allowed, flow.name)
            self.assertEqual(found[-1], "complete")
        found = await self.offsets(ADAPT_STREAM, answer)
        self.assertLessEqual(set(found), allowed | {"error chunk"})
        answer = HEAD + chunked(BODY) + b"0\r\n\r\n"
        found = await self.offsets(RELAY, answer)
        self.assertEqual((found[-1], found.count("complete")), ("complete", 1))
        self.assertEqual(set(found), {"502 upstream_error", "broken", "complete"})


class TimeTests(FaultTestCase):
    """Upstreams that are slow or silent; time passes when the test says so."""

    async def silent(self, name: str, data: bytes, outcomes: Outcomes) -> None:
        """After `data` nothing more comes."""
        for flow, expected in zip(FLOWS, outcomes, strict=True):
            async with self.stage(flow, says(data, stay)) as stage:
                clock = stage.manual_time()
                client = await self.client(stage.port)
                client.write(flow.request())
                await eventually(lambda stage=stage: bool(stage.upstream.connections))  # type: ignore[misc]
                if data:
                    clock.advance(1)
                    await moved(clock)
                    await turns(10)
                clock.advance(600)
                self.assertEqual(flow.outcome(await client.rest()), expected, f"{name}, {flow.name}")

    async def test_silence(self) -> None:
        """``timeoutSeconds`` of silence is a 504, or breaks the answer off."""
        await self.silent("before the head", b"", TIMED_OUT)
        await self.silent("after the head", HEAD, SILENT_AT_ONCE)
        await self.silent("in the answer", BEGUN, SILENT)

    async def test_drip(self) -> None:
        """A stream that drips is not cut, however long it takes."""
        for flow in FLOWS:
            steps: list[Deferred[None]] = []

            async def script(stream: Stream, steps: list[Deferred[None]] = steps) -> None:
                await read_request(stream)
                stream.write(HEAD)
                body = ANSWER[len(HEAD) :]
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
                    await moved(clock)
                    clock.advance(599)
                    steps.pop().callback(None)
                self.assertEqual(flow.outcome(await client.rest()), "complete", flow.name)

    async def test_dripping_head(self) -> None:
        """The head has to be there after ``timeoutSeconds``, however it comes."""
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


async def moved(clock: Clock) -> None:
    """Wait until the silence of the one request starts anew, if it does not already."""
    await eventually(lambda: any(c.getTime() >= clock.seconds() + 600 for c in clock.getDelayedCalls()), 200)


class UploadTests(FaultTestCase):
    """Upstreams that do not wait for the request, or do not take it."""

    async def test_early(self) -> None:
        """An answer that comes before the upload is over is the answer, though the upload goes on."""

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
        """One that takes nothing of a large request is a silent one."""

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
                stream = await reached
                await turns(20)
                clock.advance(601)
                self.assertEqual(flow.outcome(await client.rest()), "504 upstream_timeout", flow.name)
                stream.transport.resumeProducing()


class ClientTests(FaultTestCase):
    """Clients that leave, or do not do as they should."""

    ways: tuple[Callable[[Stream], object], ...] = (Stream.close, Stream.abort, half_close)

    async def test_leaves_while_sending(self) -> None:
        """In the head, after it, or in the body: nothing is dialled."""
        for flow in FLOWS:
            request = flow.request()
            for place in (10, request.index(b"\r\n\r\n") + 4, len(request) - 1):
                for way in self.ways:
                    async with self.stage(flow, says(b"")) as stage:
                        assert stage.upstream is not None
                        client = await self.client(stage.port)
                        client.write(request[:place])
                        await eventually(lambda stage=stage: bool(stage.site.channels))  # type: ignore[misc]
                        await turns(3)
                        way(client)
                        await client.gone()
                        self.assertEqual(stage.upstream.connections, [])

    async def test_leaves_while_dialling(self) -> None:
        """While the upstream is being reached, which TLS makes last."""

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
        """Before the answer, in its head or in its body: the upstream's connection ends at once."""
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
        """What is no request is a 400, and what comes beside it is nothing."""
        for garbage in (b"\0" * 99 + b"\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n", b"rubbish\r\n" * 999):
            async with self.stage(RELAY, says(ANSWER)) as stage:
                assert stage.upstream is not None
                client = await self.client(stage.port)
                client.write(garbage + RELAY.request())
                self.assertEqual(RELAY.outcome(await client.rest()), "400 invalid_request_error")
                self.assertEqual(stage.upstream.connections, [])

    async def test_garbage_after(self) -> None:
        """After a request it is refused when that one is answered."""
        for flow in FLOWS:
            async with self.stage(flow, says(ANSWER)) as stage:
                client = await self.client(stage.port)
                client.write(flow.request(close=False) + b"rubbish\r\n\r\n")
                answers = read_responses(await client.rest(), closed=True)
                self.assertEqual([answer.status for answer in answers], [200, 400], flow.name)

    async def test_pipelined(self) -> None:
        """Requests sent together are answered in their order, none lost and none mixed."""

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
            answers = read_responses(await client.rest(), closed=True)
        texts = []
        for number, answer in enumerate(answers):
            value = json.loads(answer.body.split(b"\n")[0].removeprefix(b"data: "))["choices"][0]
            texts.append(value["delta" if number % 2 == 0 else "message"]["content"])
        self.assertEqual(texts, [f"n{number}" for number in range(6)])

    async def test_drip(self) -> None:
        """A request that comes byte by byte is a request."""
        for flow in FLOWS:
            async with self.stage(flow, says(ANSWER)) as stage:
                client = await self.client(stage.port)
                client.transport.setTcpNoDelay(True)
                for byte in flow.request():
                    client.write(bytes([byte]))
                    await turns(1)
                self.assertEqual(flow.outcome(await client.rest()), "complete", flow.name)

    async def test_never_reads(self) -> None:
        """A client that takes nothing, and then leaves, takes all with it."""
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
