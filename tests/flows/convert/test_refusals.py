"""Refusals that are remembered, and those that are not: one client's odd call changes nothing for others."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

from stream_proxy import Limits
from tests.support.conversion import START, RecordedCallsTestCase, stream_body
from tests.support.payloads import CHAT_BODY, HELLO, event
from tests.support.wire import JSON, Headers, Message, Stream, respond

TOOLS = {**CHAT_BODY, "tools": []}
REFUSED = b'{"error": {"message": "this cannot be streamed", "param": "stream"}}'
NO_USAGE = b'{"error": {"message": "unknown field stream_options"}}'
ERROR = b'{"error": {"message": "no"}}'


class RefusalTestCase(RecordedCallsTestCase):
    """An upstream that refuses streams, or some of them."""

    def refuses(self, asked: dict[str, Any], request: Message) -> bool:
        """Report whether this stream is refused."""
        return True

    def answer(self, stream: Stream, request: Message) -> None:
        """Answer a call that is no stream."""
        respond(stream, 200, b'{"passed": true}', [JSON])

    async def begin(self, **kwargs: Any) -> int:
        """Start it and a proxy, and return the proxy's port."""

        def responder(stream: Stream, request: Message) -> None:
            asked = request.json()
            if not asked.get("stream"):
                self.answer(stream, request)
            elif self.refuses(asked, request):
                respond(stream, 400, REFUSED, [JSON])
            else:
                stream_body(stream)

        return await self.start(responder, **kwargs)

    async def attempts(self, port: int, body: object = None, headers: Headers = ()) -> tuple[int, list[Any]]:
        """Make a call; return its status and whether each of its attempts was a stream."""
        self.asked.clear()
        response = await self.request(port, body=body or CHAT_BODY, headers=headers)
        return response.status, [request.json().get("stream") for request in self.asked]


class PoisonTests(RefusalTestCase):
    """Odd calls, and others' calls after them."""

    async def test_stream_only(self) -> None:
        """Where streams alone are served, a call whose stream is refused teaches nothing."""

        def answer(stream: Stream, request: Message) -> None:
            respond(stream, 400, b'{"error": {"message": "only stream: true is served"}}', [JSON])

        self.refuses = lambda asked, request: "tools" in asked  # type: ignore[method-assign]
        self.answer = answer  # type: ignore[method-assign]
        port = await self.begin()
        self.assertEqual(await self.attempts(port, TOOLS), (400, [True, None]))
        self.assertEqual(await self.attempts(port), (200, [True]))
        self.assertEqual(await self.attempts(port, TOOLS), (400, [True, None]))

    async def test_members(self) -> None:
        """That calls with tools cannot be streamed is remembered for these alone."""
        self.refuses = lambda asked, request: "tools" in asked  # type: ignore[method-assign]
        port = await self.begin()
        self.assertEqual(await self.attempts(port, TOOLS), (200, [True, None]))
        self.assertEqual(await self.attempts(port), (200, [True]))
        self.assertEqual(await self.attempts(port, {**TOOLS, "seed": 1}), (200, [None]))

    async def test_clients(self) -> None:
        """That a client's organisation may not stream is remembered for this client alone."""
        self.refuses = (  # type: ignore[method-assign]
            lambda asked, request: request.get("authorization") == "Bearer unverified"
        )
        port = await self.begin()
        unverified, verified = ([("Authorization", f"Bearer {key}")] for key in ("unverified", "verified"))
        self.assertEqual(await self.attempts(port, headers=unverified), (200, [True, None]))
        self.assertEqual(await self.attempts(port, headers=verified), (200, [True]))
        self.assertEqual(await self.attempts(port), (200, [True]))
        self.assertEqual(await self.attempts(port, headers=unverified), (200, [None]))


class SuccessTests(RefusalTestCase):
    """Responses to the second attempt, which decide whether the refusal is remembered."""

    async def learns(self, answer: Callable[[Stream, Message], object], **kwargs: Any) -> bool:
        """Report whether a refusal is remembered after this response."""
        self.answer = answer  # type: ignore[method-assign, assignment]
        port = await self.begin(**kwargs)
        first = (await self.attempts(port, headers=[("Accept-Encoding", "gzip, br")]))[1]
        self.assertEqual(first, [True, None])
        return (await self.attempts(port))[1] == [None]

    async def test_successes(self) -> None:
        """A 2xx response that is JSON without an error is a success, however it comes."""
        large = json.dumps({"choices": ["x" * 200_000]}).encode()
        events: Headers = [("Content-Type", "text/event-stream")]
        cases: list[tuple[int, bytes, Headers]] = [
            (200, b'{"choices": []}', [JSON]),
            (201, b'\xef\xbb\xbf {"error": null, "output": []}', [JSON]),
            (200, b"{}", [("Content-Type", "text/plain")]),
            (200, large, [JSON]),
            (200, HELLO, events),
        ]
        for status, body, fields in cases:
            found = await self.learns(lambda s, r: respond(s, status, body, fields))  # noqa: B023
            self.assertTrue(found, body[:99])

    async def test_no_successes(self) -> None:
        """An error of any kind, and what is no response at all, is none."""
        cases: list[tuple[int, bytes, Headers]] = [
            (200, ERROR, [JSON]),
            (200, b'{"error": "no"}', [JSON]),
            (200, b"<html>", [("Content-Type", "text/html")]),
            (204, b"", []),
            (302, b"{}", [JSON, ("Location", "/")]),
            *((status, ERROR, [JSON]) for status in (400, 401, 422, 429, 500, 503)),
            (200, START, [("Content-Type", "text/event-stream")]),
            (200, START + event({"error": {"message": "no"}}), [("Content-Type", "text/event-stream")]),
        ]
        for status, body, fields in cases:
            found = await self.learns(lambda s, r: respond(s, status, body, fields))  # noqa: B023
            self.assertFalse(found, (status, body))

    async def test_cut(self) -> None:
        """A response that is cut off is none."""

        def cut(stream: Stream, request: Message) -> None:
            stream.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{")
            stream.close()

        self.assertFalse(await self.learns(cut))

    async def test_compressed(self) -> None:
        """Compressed responses are looked into where that is possible; where not, the status counts."""
        off = Limits(keep_alive_seconds=0)
        for body, coding, learned in (
            (gzip.compress(b"{}"), "gzip", True),
            (gzip.compress(ERROR), "gzip", False),
            (b"...", "br", True),
        ):
            fields = [JSON, ("Content-Encoding", coding)]
            found = await self.learns(lambda s, r: respond(s, 200, body, fields), limits=off)  # noqa: B023
            self.assertEqual(found, learned, coding)

    async def test_untouched(self) -> None:
        """A response that is looked into is relayed as it came."""
        body = b' {"choices":  []}' + b" " * 100_000

        def answer(stream: Stream, request: Message) -> None:
            respond(stream, 200, body, [JSON, ("X-A", "b")])

        self.answer = answer  # type: ignore[method-assign]
        port = await self.begin()
        response = await self.request(port, body=CHAT_BODY)
        self.assertEqual((response.body, response.get("x-a")), (body, "b"))


class UsageTests(RecordedCallsTestCase):
    """Refusals of ``stream_options``."""

    async def test_stream(self) -> None:
        """The refusal is remembered if the stream without the option is complete, and only then."""
        failed = START + event({"error": {"message": "no"}})
        for body, status, attempts in ((HELLO, 200, 1), (START, 502, 2), (failed, 502, 2)):

            def responder(stream: Stream, request: Message) -> None:
                if b"stream_options" in request.body:
                    respond(stream, 400, NO_USAGE, [JSON])
                else:
                    stream_body(stream, body)  # noqa: B023

            port = await self.start(responder)
            self.assertEqual((await self.request(port, body=CHAT_BODY)).status, status)
            self.asked.clear()
            await self.request(port, body=CHAT_BODY)
            self.assertEqual(len(self.asked), attempts, body)
