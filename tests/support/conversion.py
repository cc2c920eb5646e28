"""Converted calls: an upstream that gives every call the same response, and checks of what clients get."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stream_proxy import ProxyResource
from stream_proxy.error_codes import ErrorCode
from tests.support.loopback import LoopbackTestCase
from tests.support.payloads import CHAT, CHAT_BODY, HELLO, RESPONSES, RESPONSES_BODY, chunk, event
from tests.support.wire import JSON, Headers, Message, Stream, event_stream_head, read_request, respond

Responder = Callable[[Stream], object]
EVENTS = ("Content-Type", "text/event-stream")


START = chunk({"role": "assistant", "content": "Hel"})


class ConversionTestCase(LoopbackTestCase):
    """A proxy in front of an upstream that gives every call the same response."""

    async def asked(
        self,
        responder: Responder,
        *,
        target: str = CHAT,
        body: object = None,
        headers: Headers = (),
        **kwargs: Any,
    ) -> Message:
        """Return the response to a call; the upstream calls ``responder(stream)`` once the request is in."""

        async def script(stream: Stream) -> None:
            while True:
                await read_request(stream)
                responder(stream)

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url, **kwargs)
        if body is None:
            body = RESPONSES_BODY if target == RESPONSES else CHAT_BODY
        return await self.request(port, target=target, body=body, headers=headers)

    def assert_hello(self, response: Message) -> None:
        """Fail unless this is the chat completion that `HELLO` makes."""
        self.assertEqual(response.status, 200, response.body)
        self.assertEqual(response.all("content-type"), ["application/json"])
        self.assertEqual(response.json()["choices"][0]["message"]["content"], "Hello")

    def assert_error(self, response: Message, status: int, type: str, words: str = "") -> None:
        """Fail unless this is an error in OpenAI's envelope."""
        self.assertEqual(response.status, status, response.body)
        error = response.json()["error"]
        self.assertEqual(sorted(error), ["code", "message", "param", "type"])
        self.assertEqual(error["type"], type)
        self.assertIn(words, error["message"])


def whole(data: bytes, headers: Headers = (EVENTS,), status: int = 200) -> Responder:
    """Return a responder that sends a body with its length."""
    return lambda stream: respond(stream, status, data, headers)


def stream_body(stream: Stream, data: bytes = HELLO, headers: Headers = (), *, end: bool = True) -> None:
    """Respond with a chunked event stream."""
    stream.write(event_stream_head(headers))
    stream.chunk(data)
    if end:
        stream.chunk(b"")


def streamed(data: bytes, headers: Headers = (), *, end: bool = True) -> Responder:
    """Return a responder that sends a chunked event stream."""
    return lambda stream: stream_body(stream, data, headers, end=end)


def framed(data: bytes) -> bytes:
    """Return `data` as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class InspectedTestCase(LoopbackTestCase):
    """A proxy whose resource the test can inspect."""

    async def resource(self, url: str, **kwargs: Any) -> tuple[ProxyResource, int]:
        """Start a proxy and return its resource and its port."""
        made: list[ProxyResource] = []

        def make(*args: Any, **more: Any) -> ProxyResource:
            made.append(ProxyResource(*args, **more))
            return made[0]

        port = await self.proxy(url, resource=make, **kwargs)
        return made[0], port

    def assert_hello(self, response: Message) -> None:
        """Fail unless this is the chat completion that `HELLO` makes."""
        self.assertEqual(response.status, 200, response.body)
        self.assertEqual(response.json()["choices"][0]["message"]["content"], "Hello")

    def assert_error(self, response: Message, code: ErrorCode, words: str = "") -> None:
        """Fail unless this is this error in OpenAI's envelope, on a connection that stays usable."""
        self.assertEqual(response.status, code.status, response.body)
        self.assertTrue(response.complete)
        self.assertEqual(response.get("content-type"), "application/json")
        error = response.json()["error"]
        self.assertEqual((error["type"], error["code"], error["param"]), (code.type, code.code, None))
        self.assertIn(words, error["message"])


RESPONSE_DONE = event(
    {"type": "response.completed", "response": {"id": "r", "output": [1]}}, "response.completed"
)


CallResponder = Callable[[Stream, Message], None]


def stream_or_json(stream: Stream, request: Message) -> None:
    """Respond like a provider that supports both modes."""
    try:
        wants_stream = b'"stream":true' in request.body.replace(b" ", b"")
    except ValueError:
        wants_stream = False
    if not wants_stream:
        respond(stream, 200, b'{"passed": true}', [JSON])
    elif "/responses" in request.target:
        stream_body(stream, RESPONSE_DONE)
    else:
        stream_body(stream)


class RecordedCallsTestCase(LoopbackTestCase):
    """A proxy in front of an upstream that records the requests."""

    async def start(self, responder: CallResponder = stream_or_json, **kwargs: Any) -> int:
        """Start both and return the proxy's port; the requests are in ``self.asked``."""
        self.asked: list[Message] = []

        async def script(stream: Stream) -> None:
            while True:
                request = await read_request(stream)
                self.asked.append(request)
                responder(stream, request)

        upstream = await self.upstream(script)
        self.resources: list[ProxyResource] = []
        kind = kwargs.pop("resource", ProxyResource)

        def make(*args: Any, **more: Any) -> ProxyResource:
            resource: ProxyResource = kind(*args, **more)
            self.resources.append(resource)
            return resource

        return await self.proxy(upstream.url, resource=make, **kwargs)
