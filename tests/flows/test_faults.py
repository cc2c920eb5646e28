"""Faults of upstreams: each has one outcome in each flow, and leaves nothing behind."""

from __future__ import annotations

from tests.support.faults import (
    ADAPT,
    ADAPT_STREAM,
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
    NO_RESPONSE,
    RELAY,
    RESET,
    RESPONSE,
    REST,
    Fault,
    Flow,
    chunked,
    half_close,
    sends,
    stay,
    text_chunk,
)
from tests.support.stage import FaultTestCase
from tests.support.strict import read_responses
from tests.support.wire import Stream, head

EVENTS = ("Content-Type", "text/event-stream")


class ConnectionTests(FaultTestCase):
    """Upstreams whose connection ends too early."""

    async def test_refused(self) -> None:
        """An upstream that refuses the connection is a 502."""
        for flow in FLOWS:
            async with self.stage(flow, None) as stage:
                self.assertEqual(await self.outcome_of(stage), "502 upstream_error", flow.name)

    async def test_ends(self) -> None:
        """The connection ends in each way at each stage; a response that is complete by then is delivered."""
        stages = [
            ("before the request", b"", False, NO_RESPONSE, NO_RESPONSE),
            ("after the request", b"", True, NO_RESPONSE, NO_RESPONSE),
            ("in the status line", b"HTTP/1.1 2", True, NO_RESPONSE, NO_RESPONSE),
            ("in the head", HEAD[:-2], True, NO_RESPONSE, NO_RESPONSE),
            ("after the head", HEAD, True, CUT_AT_ONCE, RESET),
            ("in a chunk", HEAD + chunked(FIRST)[:-9], True, None, RESET),
            ("after a chunk", BEGUN, True, CUT, RESET),
            ("in the last event", HEAD + chunked(FIRST, REST, DONE[:-1]), True, None, None),
        ]
        faults = [
            Fault(f"{way.__name__} {name}", sends(data, way, reading), outcomes)
            for name, data, reading, closed, reset in stages
            for way, outcomes in ((Stream.close, closed), (half_close, closed), (Stream.abort, reset))
            if outcomes is not None
        ]
        await self.check(faults)


class FramingTests(FaultTestCase):
    """Upstreams whose HTTP is malformed or unusual."""

    async def test_heads(self) -> None:
        """A head that is malformed, or never ends, is a 502."""
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
            "101": head(101) + RESPONSE,
        }
        await self.check([Fault(name, sends(data, stay), NO_RESPONSE) for name, data in heads.items()])

    async def test_chunks(self) -> None:
        """A malformed chunk ends the response there."""
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
        await self.check([Fault(name, sends(BEGUN + data, stay), CUT) for name, data in chunks.items()])
        await self.check([Fault("huge", sends(BEGUN + b"f" * 30 + b"\r\nabcde\r\n"), CUT)])

    async def test_taken(self) -> None:
        """Unusual but unambiguous framing is accepted."""
        length = ("Content-Length", str(len(BODY)))
        responses = {
            "HTTP/1.0": head(200, [EVENTS]).replace(b"HTTP/1.1", b"HTTP/1.0") + BODY,
            "HTTP/1.0 with a length": head(200, [EVENTS, length]).replace(b"HTTP/1.1", b"HTTP/1.0") + BODY,
            "close-delimited": head(200, [EVENTS]) + BODY,
            "length": head(200, [EVENTS, length]) + BODY,
            "two equal lengths": head(200, [EVENTS, length, length]) + BODY,
            "length and chunks": RESPONSE.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n", 1),
            "garbage after a length": head(200, [EVENTS, length]) + BODY + b"\0garbage\r\n" * 9,
            "garbage after chunks": RESPONSE + b"\0garbage\r\n" * 9,
            "a response after chunks": RESPONSE * 2,
            "chunk extensions": HEAD + chunked(BODY).replace(b"\r\n", b';a="b";c\r\n', 1) + b"0;d\r\n\r\n",
            "trailers": RESPONSE[:-2] + b"X: y\r\n\r\n",
            "a few 1xx": (head(103) + head(100)) * 20 + RESPONSE,
            "bare line feeds": head(200, [EVENTS]).replace(b"\r\n", b"\n") + BODY,
        }
        await self.check([Fault(name, sends(data), COMPLETE) for name, data in responses.items()])


class StreamTests(FaultTestCase):
    """Upstreams whose stream is malformed."""

    async def responses(self, flow: Flow, body: bytes) -> bytes:
        """Return the status and body that a client receives when the upstream sends this stream."""
        async with self.stage(flow, sends(HEAD + chunked(body) + b"0\r\n\r\n")) as stage:
            client = await self.client(stage.port)
            client.write(flow.request())
            [response] = read_responses(await client.rest(), closed=True)
        self.assertTrue(response.complete)
        return b"%d " % response.status + response.body

    async def test_invalid_utf8(self) -> None:
        """Invalid UTF-8 becomes U+FFFD where the proxy writes the response; relayed bytes are unchanged."""
        body = text_chunk(b"H\xffi\xc3", b'"stop"') + DONE
        self.assertEqual(await self.responses(RELAY, body), b"200 " + body)
        for flow in (CONVERT, ADAPT, ADAPT_STREAM):
            self.assertIn("H\ufffdi\ufffd", (await self.responses(flow, body)).decode(), flow.name)

    async def test_not_json(self) -> None:
        """Data that is not JSON is an error where the proxy has to parse it."""
        for data in (b"{oops", b"nul\0l", b"{" * 100_000, text_chunk(b"a\0b")[6:-2]):
            body = FIRST + b"data: " + data + b"\n\n" + REST + DONE
            self.assertEqual(await self.responses(RELAY, body), b"200 " + body)
            self.assertTrue((await self.responses(CONVERT, body)).startswith(b"502 "), data[:9])

    async def test_nothing(self) -> None:
        """A stream without any event, or with NUL bytes only, is not a response to a converted call."""
        for body in (b"", b":\n\n", b"\0" * 1000, b"\n" * 1000):
            response = head(200, [EVENTS]) + body
            await self.check(
                [Fault(repr(body[:5]), sends(response), NO_RESPONSE)], [CONVERT, ADAPT, ADAPT_STREAM]
            )


class OffsetTests(FaultTestCase):
    """Upstreams that close at every offset of a response."""

    async def test_chunked(self) -> None:
        """The outcome is an error, a broken connection or the whole response, never an undetected part."""
        body = text_chunk(b"Hello", b'"stop"') + DONE
        response = HEAD + chunked(body) + b"0\r\n\r\n"
        allowed = {"502 upstream_error", "complete"}
        for flow in (CONVERT, ADAPT):
            found = await self.offsets(flow, response)
            self.assertLessEqual(set(found), allowed, flow.name)
            self.assertEqual(found[-1], "complete")
        found = await self.offsets(ADAPT_STREAM, response)
        self.assertLessEqual(set(found), allowed | {"error chunk"})
        response = HEAD + chunked(BODY) + b"0\r\n\r\n"
        found = await self.offsets(RELAY, response)
        self.assertEqual((found[-1], found.count("complete")), ("complete", 1))
        self.assertEqual(set(found), {"502 upstream_error", "broken", "complete"})
