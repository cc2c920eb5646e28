"""Converted calls that wait for an upstream, under a clock that only the test advances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock

from stream_proxy import Limits, ProxyResource
from stream_proxy.downstream.heartbeat import Heartbeat
from stream_proxy.flows import convert
from stream_proxy.request_log import RequestLog
from tests.support.loopback import LoopbackTestCase, Upstream, turns
from tests.support.payloads import CHAT, CHAT_BODY, chunk
from tests.support.wire import (
    Message,
    Stream,
    read_head,
    read_request,
    send_request,
)

EVENTS = ("Content-Type", "text/event-stream")


GZIP = ("Content-Encoding", "gzip")


START = chunk({"role": "assistant", "content": "Hel"})


SECONDS = 5


TIMEOUT = 600


BLANK = b"1\r\n \r\n"


REFUSED = (429, b'{"error": {"message": "slow", "type": "t", "param": null, "code": null}}')


class KeepAliveTestCase(LoopbackTestCase):
    """A call that waits, between an upstream and a clock in the hands of the test."""

    upstream_: Upstream
    client_: Stream

    def setUp(self) -> None:
        self.clock = Clock()
        self.requests: list[Message] = []
        self.events: list[dict[str, Any]] = []
        self.answers: list[Heartbeat] = []

        def patient(*args: Any) -> Heartbeat:
            self.answers.append(Heartbeat(*args))
            return self.answers[-1]

        self.patch(convert, "Heartbeat", patient)

    async def listening(self, **limits: Any) -> int:
        """Start an upstream that says nothing by itself, and a proxy."""
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

    async def waiting(self, **limits: Any) -> tuple[Stream, Stream]:
        """A client, whose call is with the upstream; and the upstream's end of that."""
        port = await self.listening(**limits)
        asked = self.asked
        client = await self.client(port)
        send_request(client, "POST", CHAT, CHAT_BODY, [("Accept-Encoding", "gzip, br")])
        return client, await asked

    async def begun(self, **limits: Any) -> tuple[Stream, Stream, Message]:
        """The same once the head is out, and one blank."""
        client, stream = await self.waiting(**limits)
        self.clock.advance(SECONDS)
        begun = await read_head(client)
        self.clock.advance(SECONDS)
        self.assertEqual(await client.exactly(len(BLANK)), BLANK)
        return client, stream, begun

    @property
    def silence(self) -> IDelayedCall:
        """The timer of the upstream's silence."""
        return max(self.clock.getDelayedCalls(), key=lambda call: call.getTime())

    async def moved(self, move: Callable[[], None]) -> None:
        """`move` has been noticed."""
        self.clock.advance(1)
        move()
        while self.silence.getTime() < self.clock.seconds() + TIMEOUT:
            await turns(1)

    async def body(self, client: Stream, begun: Message) -> Any:
        """The rest of a chunked answer, which ends as it should, as JSON."""
        message = Message(begun.line, begun.headers, b" ")
        while size := int(await client.until(b"\r\n"), 16):
            message.body += await client.exactly(size)
            await client.exactly(2)
        await client.until(b"\r\n")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return message.json()

    def assert_hello(self, body: Any) -> None:
        """It is the completion that `HELLO` makes."""
        self.assertEqual(body["choices"][0]["message"]["content"], "Hello")
