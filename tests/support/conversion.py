"""Converted calls: an upstream that gives every call the same response, and checks of what clients get."""

from __future__ import annotations

from typing import Any

from stream_proxy import ProxyResource
from stream_proxy.error_codes import ErrorCode
from tests.support.loopback import LoopbackTestCase
from tests.support.payloads import CHAT, CHAT_BODY, RESPONSES, RESPONSES_BODY, chunk
from tests.support.wire import (
    Headers,
    Message,
    Stream,
    event_stream_head,
    read_request,
    respond,
)

EVENTS = ("Content-Type", "text/event-stream")


START = chunk({"role": "assistant", "content": "Hel"})


class AnswerTestCase(LoopbackTestCase):
    """A proxy in front of an upstream that answers every call in the same way."""

    async def asked(
        self,
        answer: Any,
        *,
        target: str = CHAT,
        body: object = None,
        headers: Headers = (),
        **kwargs: Any,
    ) -> Message:
        """The answer to a call of an upstream that calls ``answer(stream)`` once the request is in."""

        async def script(stream: Stream) -> None:
            while True:
                await read_request(stream)
                answer(stream)

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url, **kwargs)
        if body is None:
            body = RESPONSES_BODY if target == RESPONSES else CHAT_BODY
        return await self.request(port, target=target, body=body, headers=headers)

    def assert_hello(self, response: Message) -> None:
        """It is the chat completion that `HELLO` makes."""
        self.assertEqual(response.status, 200, response.body)
        self.assertEqual(response.all("content-type"), ["application/json"])
        self.assertEqual(response.json()["choices"][0]["message"]["content"], "Hello")

    def assert_error(self, response: Message, status: int, type: str, words: str = "") -> None:
        """It is an error with OpenAI's envelope."""
        self.assertEqual(response.status, status, response.body)
        error = response.json()["error"]
        self.assertEqual(sorted(error), ["code", "message", "param", "type"])
        self.assertEqual(error["type"], type)
        self.assertIn(words, error["message"])


def whole(data: bytes, headers: Headers = (EVENTS,), status: int = 200) -> Any:
    """Answers with a body and its length."""
    return lambda stream: respond(stream, status, data, headers)


def streamed(data: bytes, headers: Headers = (), *, end: bool = True) -> Any:
    """Answers with a chunked event stream, and its end."""

    def answer(stream: Stream) -> None:
        stream.write(event_stream_head(headers))
        stream.chunk(data)
        if end:
            stream.chunk(b"")

    return answer


def framed(data: bytes) -> bytes:
    """`data` as a chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class ConnectionTestCase(LoopbackTestCase):
    """A proxy that can be looked into."""

    async def resource(self, url: str, **kwargs: Any) -> tuple[ProxyResource, int]:
        """Start a proxy; its resource and its port."""
        made: list[ProxyResource] = []

        def make(*args: Any, **more: Any) -> ProxyResource:
            made.append(ProxyResource(*args, **more))
            return made[0]

        port = await self.proxy(url, resource=make, **kwargs)
        return made[0], port

    def assert_hello(self, response: Message) -> None:
        """It is the chat completion that `HELLO` makes."""
        self.assertEqual(response.status, 200, response.body)
        self.assertEqual(response.json()["choices"][0]["message"]["content"], "Hello")

    def assert_error(self, response: Message, code: ErrorCode, words: str = "") -> None:
        """It is an error with OpenAI's envelope, on a connection that can go on."""
        self.assertEqual(response.status, code.status, response.body)
        self.assertTrue(response.complete)
        self.assertEqual(response.get("content-type"), "application/json")
        error = response.json()["error"]
        self.assertEqual((error["type"], error["code"], error["param"]), (code.type, code.code, None))
        self.assertIn(words, error["message"])
