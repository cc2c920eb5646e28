"""Converted calls that wait for their upstream, under a clock that only the test advances."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from stream_proxy import Limits, ProxyResource
from stream_proxy.downstream.heartbeat import Heartbeat
from stream_proxy.flows import exchange
from stream_proxy.request_log import RequestLog
from tests.support.loopback import LoopbackTestCase, Upstream
from tests.support.movements import Movements
from tests.support.payloads import CHAT, CHAT_BODY, chunk
from tests.support.wire import Message, Stream, read_head, read_request, send_request

EVENTS = ("Content-Type", "text/event-stream")


GZIP = ("Content-Encoding", "gzip")


START = chunk({"role": "assistant", "content": "Hel"})


SECONDS = 5


TIMEOUT = 600


SPACE = b"1\r\n \r\n"


REFUSED = (429, b'{"error": {"message": "slow", "type": "t", "param": null, "code": null}}')


class HeartbeatTestCase(LoopbackTestCase):
    """A waiting call, between an upstream that the test scripts and a clock that it advances."""

    upstream_: Upstream
    client_: Stream

    def setUp(self) -> None:
        self.clock = Clock()
        self.movements = Movements(self)
        self.requests: list[Message] = []
        self.events: list[dict[str, Any]] = []
        self.responses: list[Heartbeat] = []

        def patient(*args: Any) -> Heartbeat:
            self.responses.append(Heartbeat(*args))
            return self.responses[-1]

        self.patch(exchange, "Heartbeat", patient)

    async def listening(self, **limits: Any) -> int:
        """Start an upstream that sends nothing by itself, and a proxy; return the proxy's port."""
        self.asked: Deferred[Stream] = Deferred()

        async def script(stream: Stream) -> None:
            while True:
                self.requests.append(await read_request(stream))
                asked, self.asked = self.asked, Deferred()
                asked.callback(stream)

        def make(*args: Any, **kwargs: Any) -> ProxyResource:
            resource = ProxyResource(*args, **kwargs)
            resource.clock = self.clock
            return resource

        self.upstream_ = await self.upstream(script)
        log = RequestLog(observer=cast(Any, self.events.append))
        bounds = Limits(**{"keep_alive_seconds": SECONDS, "timeout_seconds": TIMEOUT, **limits})
        return await self.proxy(self.upstream_.url, resource=make, limits=bounds, log=log)

    async def waiting(self, *headers: tuple[str, str], **limits: Any) -> tuple[Stream, Stream]:
        """Send a call, and return its client and the upstream's end of it."""
        port = await self.listening(**limits)
        asked = self.asked
        client = await self.client(port)
        send_request(client, "POST", CHAT, CHAT_BODY, [("Accept-Encoding", "gzip, br"), *headers])
        return client, await asked

    async def begun(self, **limits: Any) -> tuple[Stream, Stream, Message]:
        """Do the same and wait for the early head and one space; return the head as well."""
        client, stream = await self.waiting(**limits)
        self.clock.advance(SECONDS)
        begun = await read_head(client)
        self.clock.advance(SECONDS)
        self.assertEqual(await client.exactly(len(SPACE)), SPACE)
        return client, stream, begun

    @property
    def outcomes(self) -> list[dict[str, Any]]:
        """The log lines of requests."""
        return [line for line in self.events if "status" in line]

    async def moved(self, move: Callable[[], None]) -> None:
        """Call `move`, and wait until the silence timer has noted it."""
        self.clock.advance(1)
        move()
        await self.movements.now(self.clock)

    async def body(self, client: Stream, begun: Message) -> Any:
        """Read the rest of a chunked response and return its JSON; no timer may be left."""
        message = Message(begun.line, begun.headers, b" ")
        while size := int(await client.until(b"\r\n"), 16):
            message.body += await client.exactly(size)
            await client.exactly(2)
        await client.until(b"\r\n")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return message.json()

    async def cut(self, client: Stream) -> Any:
        """Read chunks until the connection is cut; return the JSON that only lacks its last brace."""
        rest, body = await client.rest(), b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size, 16)
            self.assertGreater(length, 0, "the response was ended properly")
            body, rest = body + rest[:length], rest[length + 2 :]
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertRaises(ValueError, json.loads, body)
        return json.loads(body + b"}")

    def assert_hello(self, body: Any) -> None:
        """Fail unless this is the completion that `HELLO` makes."""
        self.assertEqual(body["choices"][0]["message"]["content"], "Hello")
