"""The ledger of requests, filled through real sockets."""

from __future__ import annotations

import json
from typing import Any, cast

from twisted.internet.defer import Deferred

from stream_proxy.adapter.resource import AdapterResource
from stream_proxy.observe.ledger import Ledger
from stream_proxy.observe.record import Phase, Record, Usage
from stream_proxy.request_log import RequestLog
from tests.support.conversion import EVENTS, START, ConversionTestCase
from tests.support.loopback import reactor
from tests.support.payloads import CHAT, CHAT_BODY, HELLO, RESPONSES, RESPONSES_BODY, event
from tests.support.sessions import KEY, TEXT, WebSocketTestCase, frame
from tests.support.stage import eventually
from tests.support.wire import (
    JSON,
    Stream,
    event_stream_head,
    read_request,
    read_response,
    respond,
    send_request,
)


class LedgerTests(ConversionTestCase):
    """Each request is listed from its head to its end, with what it does."""

    def setUp(self) -> None:
        super().setUp()
        self.ledger = Ledger(reactor.seconds)

    def record(self) -> Record:
        """Return the one request that has ended."""
        self.assertEqual(self.ledger.live, {})
        (record,) = self.ledger.recent
        return record

    async def test_converted(self) -> None:
        """A converted call has its steps in their order, and nothing that would keep its flow."""
        response = await self.asked(
            lambda stream: respond(stream, 200, HELLO, [EVENTS]), ledger=self.ledger, name="main"
        )
        self.assert_hello(response)
        self.assertTrue(await eventually(lambda: not self.ledger.live))
        record = self.record()
        self.assertEqual((record.rule, record.mode, record.kind), ("main", "converted", "chat"))
        self.assertEqual((record.status, record.sent), (200, len(response.body)))
        steps = (record.began, record.decided, record.asked, record.connected, record.head, record.ended)
        known = [step for step in steps if step is not None]
        self.assertEqual(len(known), len(steps))
        self.assertEqual(known, sorted(known))
        self.assertEqual((record.silence, record.upload, record.cancel), (None, None, None))

    async def test_told(self) -> None:
        """A converted call tells of its model, its tokens and its content, and where it came from."""
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
        last = b'data: {"model":"m-2026","choices":[],"usage":%b}\n\n' % json.dumps(usage).encode()
        trace = "0af7651916cd43dd8448eb211c80319c"
        headers = [("X-Request-ID", "r-1"), ("traceparent", f"00-{trace}-b7ad6b7169203331-01")]
        await self.asked(
            lambda stream: respond(stream, 200, last + HELLO, [EVENTS]), headers=headers, ledger=self.ledger
        )
        self.assertTrue(await eventually(lambda: not self.ledger.live))
        record = self.record()
        self.assertEqual((record.model, record.usage), ("m-2026", Usage(5, 2, 4)))
        self.assertEqual((record.events, record.client), (2, "127.0.0.1"))
        self.assertEqual((record.request_id, record.trace_id), ("r-1", trace))
        steps = (record.head, record.first_event, record.last_event, record.ended)
        self.assertEqual([*steps], sorted(step or 0.0 for step in steps))
        self.assertEqual(record.read, len(last + HELLO))

    async def test_stream(self) -> None:
        """A stream that is passed on tells of the same, unless that is not wanted."""
        usage = b'data: {"model":"m-2026","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n'
        for watches in (True, False):
            self.ledger = Ledger(reactor.seconds, watches=watches)
            await self.asked(
                lambda stream: respond(stream, 200, HELLO + usage, [EVENTS, ("x-request-id", "up")]),
                body={**CHAT_BODY, "stream": True},
                ledger=self.ledger,
            )
            self.assertTrue(await eventually(lambda: not self.ledger.live))
            record = self.record()
            self.assertEqual((record.mode, record.why, record.request_id), ("passed", None, "up"))
            self.assertEqual((record.read, record.sent), (len(HELLO + usage),) * 2)
            self.assertEqual(record.first_event is not None, watches)
            self.assertEqual(record.usage, Usage(5, 2) if watches else None)
            self.assertEqual(record.events > 0, watches)

    async def test_nobody_looks(self) -> None:
        """Without a reader nothing is kept, and a relayed stream is not looked at; the log is one."""
        for level, watched in (("warn", False), ("info", True)):
            self.ledger = Ledger(reactor.seconds, keeps=False)
            ended: list[Record] = []
            self.ledger.ended_hooks.append(ended.append)
            await self.asked(
                lambda stream: respond(stream, 200, HELLO, [EVENTS]),
                body={**CHAT_BODY, "stream": True},
                ledger=self.ledger,
                log=RequestLog(level, observer=cast(Any, lambda event: None)),
            )
            self.assertTrue(await eventually(lambda: not self.ledger.live))
            self.assertEqual(len(self.ledger.recent), 0)
            (record,) = ended
            self.assertEqual((record.first_event is not None, record.mode), (watched, "passed"))

    async def test_error_in_stream(self) -> None:
        """An error that the upstream reports in a stream that is passed on is that of the record."""
        error = b'data: {"error":{"message":"secret","type":"server_error","code":"overloaded"}}\n\n'
        await self.asked(
            lambda stream: respond(stream, 200, START + error, [EVENTS]),
            body={**CHAT_BODY, "stream": True},
            ledger=self.ledger,
        )
        self.assertTrue(await eventually(lambda: not self.ledger.live))
        record = self.record()
        self.assertEqual((record.status, record.code), (200, "overloaded"))
        self.assertEqual(record.problem, "the upstream reported an error in its stream")

    async def test_why(self) -> None:
        """A call that is passed on has the reason, one of another API none."""
        gzip = [("Content-Encoding", "gzip")]
        for target, body, headers, why in (
            (CHAT, b"x", gzip, "encoded body"),
            (CHAT, b"x", [("Content-Type", "text/plain")], "not JSON"),
            (CHAT, b"x", [JSON], "not JSON"),
            (CHAT, {"messages": []}, (), "no model"),
            (CHAT, {**CHAT_BODY, "stream": 1}, (), "stream is no boolean"),
            (RESPONSES, {**RESPONSES_BODY, "background": True}, (), "background"),
            (CHAT, CHAT_BODY, (), "no stream came"),
            ("/v1/embeddings", {"model": "m"}, (), None),
        ):
            self.ledger = Ledger(reactor.seconds)
            await self.asked(
                lambda stream: respond(stream, 200, b"{}", [JSON]),
                target=target,
                body=body,
                headers=headers,
                ledger=self.ledger,
            )
            self.assertTrue(await eventually(lambda: not self.ledger.live))
            self.assertEqual((self.record().mode, self.record().why), ("passed", why), body)

    async def test_refused(self) -> None:
        """Second attempts have their reasons, and later calls the reason why they are not converted."""
        refusal = {"error": {"param": "stream", "message": "no"}}

        async def script(stream: Stream) -> None:
            while True:
                request = await read_request(stream)
                streams = b'"stream":true' in request.body
                data = (
                    json.dumps(refusal).encode()
                    if streams
                    else b'{"choices":[{}],"usage":{"prompt_tokens":3}}'
                )
                respond(stream, 400 if streams else 200, data, [JSON])

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url, ledger=self.ledger)
        for _ in range(2):
            await self.request(port, body=CHAT_BODY)
        self.assertTrue(await eventually(lambda: not self.ledger.live))
        first, second = self.ledger.recent
        self.assertEqual((first.attempts, second.attempts), (("refused stream",), ()))
        for record in (first, second):
            self.assertEqual((record.mode, record.why), ("passed", "upstream refuses streams"))
            self.assertEqual(record.usage, Usage(3))

    async def test_no_request(self) -> None:
        """What is refused before it reaches a resource is listed as well."""
        log = RequestLog(observer=cast(Any, lambda event: None))
        port = await self.proxy("http://127.0.0.1:1", ledger=self.ledger, log=log, name="main")
        client = await self.client(port)
        client.write(b"GET /v1/x?secret HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        self.assertEqual((await read_response(client, "GET")).status, 400)
        record = self.record()
        self.assertEqual((record.rule, record.path, record.client), ("main", b"/v1/x", "127.0.0.1"))
        self.assertEqual((record.mode, record.status, record.code), ("refused", 400, "invalid_host"))

    async def test_adapted(self) -> None:
        """An adapter's call has its events and its tokens out of the chunks."""
        service = event({"text": "Hel"}) + event({"text": "lo"})
        usage = event({"text": "", "usage": {"input_tokens": 3, "output_tokens": 4}, "done": True})
        for stream in (True, False):
            self.ledger = Ledger(reactor.seconds)
            await self.asked(
                lambda stream: respond(stream, 200, service + usage, [EVENTS]),
                resource=AdapterResource,
                body={**CHAT_BODY, "model": "gpt-3.5-turbo", "stream": stream},
                ledger=self.ledger,
            )
            self.assertTrue(await eventually(lambda: not self.ledger.live))
            record = self.record()
            self.assertEqual((record.mode, record.model, record.events), ("adapted", "gpt-3.5-turbo", 2))
            self.assertEqual((record.usage, record.read), (Usage(3, 4), len(service + usage)))
            self.assertIsNotNone(record.first_event)

    async def test_left(self) -> None:
        """Events of a stream whose client left are known, also while it goes on."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head())
            stream.chunk(START * 3)
            await stream.gone()

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url, ledger=self.ledger)
        client = await self.client(port)
        send_request(client, "POST", CHAT, CHAT_BODY)

        def came() -> bool:
            for record in self.ledger.live.values():
                record.refresh()
                return record.events == 3
            return False

        self.assertTrue(await eventually(came))
        (record,) = self.ledger.live.values()
        self.assertEqual((record.phase, record.abandoned_events), (Phase.STREAMING, 0))
        client.abort()
        self.assertTrue(await eventually(lambda: not self.ledger.live))
        self.assertEqual((record.status, record.abandoned_events), (499, 3))

    async def test_cancelled(self) -> None:
        """A request that an operator cancels ends with an error of that name, on both sides."""
        gone: Deferred[None] = Deferred()

        async def script(stream: Stream) -> None:
            await read_request(stream)
            stream.write(event_stream_head())
            stream.chunk(START)
            await stream.gone()
            gone.callback(None)

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url, ledger=self.ledger)
        asked = Deferred.fromCoroutine(self.request(port, target=CHAT, body=CHAT_BODY))
        phases = (Phase.FIRST_EVENT, Phase.STREAMING)
        self.assertTrue(await eventually(lambda: any(r.phase in phases for r in self.ledger.live.values())))
        (record,) = self.ledger.live.values()
        cancel = record.cancel
        assert cancel is not None
        cancel()
        response = await asked
        await gone
        self.assertEqual((response.status, response.json()["error"]["code"]), (503, "cancelled"))
        self.assertEqual((self.record().code, record.problem), ("cancelled", "an operator cancelled it"))


class SessionTests(WebSocketTestCase):
    """WebSockets."""

    async def test_session(self) -> None:
        """A WebSocket has the steps to its 101, and messages and bytes either way while it is open."""
        ledger = Ledger(reactor.seconds)
        pair = await self.open(ledger=ledger)
        (record,) = ledger.live.values()
        up, down = (frame(TEXT, b"one", key=KEY), frame(TEXT, b"two", key=KEY)), frame(TEXT, b"three")
        await self.assert_passes(pair.client, pair.server, *up)
        await self.assert_passes(pair.server, pair.client, down)
        record.refresh()
        self.assertEqual((record.mode, record.phase), ("websocket", Phase.STREAMING))
        self.assertEqual((record.messages_up, record.messages_down), (2, 1))
        self.assertEqual((record.received, record.sent, record.read), (18, 7, 7))
        steps = (record.began, record.decided, record.asked, record.connecting, record.connected, record.head)
        self.assertEqual([*steps], sorted(step or 0.0 for step in steps))
        pair.client.abort()
        pair.server.abort()
        self.assertTrue(await eventually(lambda: not ledger.live))
        self.assertEqual((record.status, record.messages_up, record.recount), (101, 2, None))
