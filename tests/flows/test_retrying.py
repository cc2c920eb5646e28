"""Requests that the upstream did not take, sent again before the client has a byte."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from stream_proxy import Limits, ProxyResource
from stream_proxy.observe.ledger import Ledger
from stream_proxy.observe.record import Phase, Record
from tests.support.loopback import LoopbackTestCase, Upstream, reactor
from tests.support.payloads import CHAT, CHAT_BODY, HELLO
from tests.support.stage import eventually
from tests.support.wire import Message, Stream, all_gone, read_request, read_response, respond, send_request

EVENTS = ("Content-Type", "text/event-stream")
#: Status, body and a field.
Answer = tuple[int, bytes, tuple[str, str]]
BUSY = b'{"error": {"message": "slow down", "type": "t", "param": null, "code": null}}'


class RetryingTests(LoopbackTestCase):
    """A connection that cannot be made, and an upstream that is busy."""

    async def start(
        self, *answers: Answer, listening: bool = True, scheme: str = "http", **limits: Any
    ) -> tuple[Upstream, int]:
        """Start an upstream that gives these answers in turn, and a proxy whose clock the test advances."""
        self.requests: list[Message] = []
        left = list(answers)

        async def script(stream: Stream) -> None:
            while True:
                self.requests.append(await read_request(stream))
                status, body, *headers = left.pop(0)
                respond(stream, status, body, headers)

        self.clock = Clock()
        self.ledger = Ledger(self.clock.seconds)

        def make(*args: Any, **kwargs: Any) -> ProxyResource:
            resource = ProxyResource(*args, ledger=self.ledger, **kwargs)
            resource.clock = self.clock
            return resource

        upstream = Upstream(script)
        listener = reactor.listenTCP(0, upstream.factory(), interface="127.0.0.1")
        upstream.port = listener.getHost().port
        if listening:
            self.addCleanup(listener.stopListening)
        else:
            await listener.stopListening()
        self.addCleanup(lambda: Deferred.fromCoroutine(all_gone(upstream.connections)))
        bounds = Limits(**{"retries": 2, "keep_alive_seconds": 0, **limits})
        url = upstream.url.replace("http:", f"{scheme}:")
        return upstream, await self.proxy(url, resource=make, limits=bounds)

    async def waiting(self) -> Record:
        """Return the record of the one request once it waits to be sent again."""

        def waits() -> bool:
            return any(record.phase is Phase.RETRYING for record in self.ledger.live.values())

        self.assertTrue(await eventually(waits))
        (record,) = self.ledger.live.values()
        return record

    async def asked(self, port: int, target: str = CHAT, *headers: tuple[str, str]) -> Stream:
        """Send a call."""
        client = await self.client(port)
        send_request(client, "POST", target, CHAT_BODY, list(headers))
        return client

    async def test_busy(self) -> None:
        """After a 429 or 503 with a short Retry-After a request is sent again, byte for byte."""
        for method, target, body in (("POST", CHAT, CHAT_BODY), ("GET", "/v1/models", None)):
            busy = [(429, BUSY, ("Retry-After", "3")), (503, BUSY, ("Retry-After", "2"))]
            _, port = await self.start(*busy, (200, HELLO, EVENTS))
            client = await self.client(port)
            send_request(client, method, target, body)
            for seconds in (3, 2):
                await self.waiting()
                self.clock.advance(seconds)
            response = await read_response(client, method)
            self.assertEqual(response.status, 200)
            first, *others = [(each.line, each.headers, each.body) for each in self.requests]
            self.assertEqual(others, [first] * 2)
            self.assertTrue(await eventually(lambda: not self.ledger.live))
            self.assertEqual(self.ledger.recent[-1].attempts, ("status 429", "status 503"))

    async def test_used_up(self) -> None:
        """The last answer is the client's, whatever it is."""
        _, port = await self.start(*[(429, BUSY, ("Retry-After", "1"))] * 3)
        client = await self.asked(port)
        for _ in range(2):
            await self.waiting()
            self.clock.advance(1)
        response = await read_response(client)
        self.assertEqual((response.status, response.body, response.get("retry-after")), (429, BUSY, "1"))

    async def test_too_long(self) -> None:
        """A wait that is too long, for the rule or for the client, is not begun."""
        for wait, announced in (("21", "600"), ("9", "10")):
            _, port = await self.start((429, BUSY, ("Retry-After", wait)))
            client = await self.asked(port, CHAT, ("x-stainless-read-timeout", announced))
            self.assertEqual((await read_response(client)).status, 429)

    async def test_connecting(self) -> None:
        """A connection that cannot be made is tried again, and no request was sent before it could."""
        upstream, port = await self.start((200, HELLO, EVENTS), listening=False)
        client = await self.asked(port)
        record = await self.waiting()
        self.assertEqual((record.attempts, self.requests), (("upstream_refused",), []))
        again = reactor.listenTCP(upstream.port, upstream.factory(), interface="127.0.0.1")
        self.addCleanup(again.stopListening)
        self.clock.advance(1)
        self.assertEqual((await read_response(client)).status, 200)
        self.assertEqual(len(self.requests), 1)

    async def test_client_leaves(self) -> None:
        """A client that leaves during the wait ends it; nothing is sent any more."""
        _, port = await self.start((429, BUSY, ("Retry-After", "3")))
        client = await self.asked(port)
        await self.waiting()
        client.abort()
        self.assertTrue(await eventually(lambda: not self.ledger.live))
        self.assertEqual([call for call in self.clock.getDelayedCalls() if call.active()], [])
        self.assertEqual(len(self.requests), 1)

    async def test_off(self) -> None:
        """Without retries the first answer is the client's."""
        _, port = await self.start((429, BUSY, ("Retry-After", "0")), retries=0)
        client = await self.asked(port)
        self.assertEqual((await read_response(client)).status, 429)

    async def test_connecting_for_long(self) -> None:
        """One that takes longer than it may is tried again as well."""
        _, port = await self.start(scheme="https", connect_seconds=0.05, retries=1)
        client = await self.asked(port)
        record = await self.waiting()
        self.assertEqual(record.attempts, ("upstream_timeout",))
        self.clock.advance(1)
        self.assertEqual((await read_response(client)).status, 504)
