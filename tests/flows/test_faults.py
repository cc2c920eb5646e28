"""Faults of upstreams: each has one outcome in each flow, and leaves nothing behind."""

from __future__ import annotations

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
    Fault,
    FaultTestCase,
    Flow,
    chunked,
    half_close,
    says,
    stay,
    text_chunk,
)
from tests.support.strict import read_responses
from tests.support.wire import Stream, head

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
