"""Large calls to convert, which are looked at while they come in."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred

from stream_proxy import Limits
from stream_proxy.flows.body_collection import PacedScan
from stream_proxy.http.json_scan import STEP_BYTES
from tests.support.loopback import LoopbackTestCase
from tests.support.wire import Message, Stream, read_request, respond

PATH = "/v1/chat/completions"
HEADERS = [("Content-Type", "application/json")]
EVENTS = [("Content-Type", "text/event-stream")]
ANSWER = (
    b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)


def call(size: int, **members: Any) -> bytes:
    """Return the body of a call with a message of about so many bytes."""
    text = ('{"said": [1, \\ "é"]}\n' * (size // 20 + 1))[:size]
    fields = {"model": "m", "messages": [{"role": "user", "content": text}], **members}
    return json.dumps(fields, ensure_ascii=False).encode()


class LargeBodyTests(LoopbackTestCase):
    """Bodies of many pieces."""

    async def ask(
        self, body: bytes, answers: list[tuple[int, bytes]], **keys: Any
    ) -> tuple[Message, list[Message]]:
        """Return the response to a call, and the requests that the upstream got for it."""
        got: list[Message] = []

        async def script(stream: Stream) -> None:
            while answers:
                got.append(await read_request(stream))
                status, answer = answers.pop(0)
                respond(stream, status, answer, EVENTS if status == 200 else HEADERS)

        service = await self.upstream(script)
        port = await self.proxy(service.url, **keys)
        return await self.request(port, "POST", PATH, body, HEADERS), got

    async def test_converted(self) -> None:
        """A large call is converted, and sent with everything as the client wrote it."""
        for size in (60_000, 70_000, 3_000_000):
            body = call(size, stream=False, n=1)
            answer, got = await self.ask(body, [(200, ANSWER)])
            self.assertEqual(answer.json()["choices"][0]["message"]["content"], "Hi")
            usage = {"include_usage": True}
            self.assertEqual(
                json.loads(got[0].body), {**json.loads(body), "stream": True, "stream_options": usage}
            )

    async def test_fallbacks(self) -> None:
        """A refused option is left out of the same large body, and a refused stream is the client's own."""
        body = call(1_000_000)
        refusals = [
            (400, b'{"error":{"message":"no stream_options"}}'),
            (400, b'{"error":{"param":"stream","message":"no"}}'),
        ]
        answer, got = await self.ask(body, [*refusals, (200, b'{"choices":[]}')])
        self.assertEqual(answer.body, b'{"choices":[]}')
        sent = [json.loads(request.body) for request in got]
        self.assertEqual(
            [fields.get("stream_options") for fields in sent], [{"include_usage": True}, None, None]
        )
        self.assertEqual(got[2].body, body)

    async def test_passed(self) -> None:
        """A large body that is no call to convert passes as it is."""
        for body in (call(200_000, stream=True), call(200_000)[:-1], b"x" * 200_000):
            answer, got = await self.ask(body, [(200, b"{}")])
            self.assertEqual((answer.body, got[0].body), (b"{}", body))

    async def test_too_many_values(self) -> None:
        """Too many values are a 413 as soon as they have come, without the rest of the body."""

        async def script(stream: Stream) -> None:
            await stream.rest()

        service = await self.upstream(script)
        port = await self.proxy(service.url, limits=Limits(max_request_values=1000))
        client = await self.client(port)
        client.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
            b'Content-Length: 1000000\r\n\r\n{"a":[' + b"[]," * 40_000
        )
        head = await client.until(b"\r\n\r\n")
        self.assertIn(b" 413 ", head)
        self.assertIn(b"maxRequestValues", await client.until(b"}}"))

    async def test_steps(self) -> None:
        """No step looks at more than its bytes, however the body comes."""
        steps: list[int] = []
        step = PacedScan._step

        def counted(scan: PacedScan) -> None:
            before = scan._at
            step(scan)
            steps.append(scan._at - before)

        self.patch(PacedScan, "_step", counted)
        body = call(2_000_000)
        await self.ask(body, [(200, ANSWER)])
        self.assertEqual(sum(steps), len(body))
        self.assertLessEqual(max(steps), STEP_BYTES)

    async def test_resent(self) -> None:
        """A large call is sent again if the kept connection was closed just before."""
        got: list[bytes] = []
        closed: Deferred[None] = Deferred()

        async def script(stream: Stream) -> None:
            got.append((await read_request(stream)).body)
            respond(stream, 200, ANSWER, EVENTS)
            if len(got) == 1:
                await stream.until(b"\r\n\r\n")
                stream.close()
                closed.callback(None)

        service = await self.upstream(script)
        port = await self.proxy(service.url)
        for size in (10, 600_000):
            answer = await self.request(port, "POST", PATH, call(size), HEADERS)
            self.assertEqual(answer.status, 200)
        self.assertTrue(closed.called)
        self.assertEqual([len(json.loads(body)["messages"][0]["content"]) for body in got], [10, 600_000])
