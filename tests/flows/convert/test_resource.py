"""Converted calls, as clients, other sites and the log see them."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import Site

from stream_proxy import ProxyResource
from stream_proxy.request_log import RequestLog
from tests.support.conversion import START, ConversionTestCase, streamed, whole
from tests.support.loopback import reactor
from tests.support.payloads import CHAT, CHAT_BODY, HELLO, event
from tests.support.wire import JSON, Stream, read_request, read_response, respond, send_request


class ClientTests(ConversionTestCase):
    """Clients of converted calls."""

    async def test_gone(self) -> None:
        """A client that leaves ends the upstream's request, before the head and inside the stream."""
        for begun in (False, True):
            asked: Deferred[Stream] = Deferred()

            async def script(stream: Stream, begun: bool = begun, asked: Deferred[Stream] = asked) -> None:
                await read_request(stream)
                if begun:
                    streamed(START, end=False)(stream)
                asked.callback(stream)

            upstream = await self.upstream(script)
            port = await self.proxy(upstream.url)
            client = await self.client(port)
            send_request(client, "POST", CHAT, CHAT_BODY)
            stream = await asked
            client.close()
            await stream.gone()

    async def test_pipelined(self) -> None:
        """Two pipelined calls on one connection are answered in order."""

        async def script(stream: Stream) -> None:
            while True:
                await read_request(stream)
                streamed(HELLO)(stream)

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        send_request(client, "POST", CHAT, CHAT_BODY)
        send_request(client, "POST", CHAT, CHAT_BODY)
        for _ in range(2):
            self.assert_hello(await read_response(client))

    async def test_http_1_0(self) -> None:
        """An HTTP/1.0 client gets its response and the end of the connection."""

        async def script(stream: Stream) -> None:
            await read_request(stream)
            streamed(HELLO)(stream)

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        body = json.dumps(CHAT_BODY).encode()
        lines = (
            f"POST {CHAT} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        client.write(lines.encode() + body)
        self.assert_hello(await read_response(client))
        self.assertEqual(await client.rest(), b"")


class PlaceTests(ConversionTestCase):
    """Places where the resource can be mounted."""

    async def test_plain_site_below_a_path(self) -> None:
        """Below a child of a plain Twisted site: the child's path is not sent upstream, and bodies arrive."""
        targets: list[tuple[str, bytes]] = []

        async def script(stream: Stream) -> None:
            while True:
                request = await read_request(stream)
                targets.append((request.target, request.body))
                if request.target.startswith(CHAT):
                    streamed(HELLO)(stream)
                else:
                    respond(stream, 200, b"ok")

        upstream = await self.upstream(script)
        proxy = ProxyResource(upstream.url, reactor=reactor, log=RequestLog(observer=lambda _: None))  # type: ignore[arg-type]
        root = Resource()
        root.putChild(b"ai", proxy)
        self.addCleanup(proxy.close)
        port = await self.listen(Site(root))
        self.assert_hello(await self.request(port, target=f"/ai{CHAT}?a=%2F", body=CHAT_BODY))
        self.assertEqual(targets[0][0], CHAT + "?a=%2F")
        for target, upstream_target in (("/ai", "/"), ("/ai?a=/b", "/?a=/b"), ("/ai//x", "//x")):
            await self.request(port, "GET", target)
            self.assertEqual(targets.pop(), (upstream_target, b""))
        blob = bytes(range(256)) * 1000
        response = await self.request(port, target="/ai/v1/files", body=blob)
        self.assertEqual((response.body, targets[1]), (b"ok", ("/v1/files", blob)))


class LogTests(ConversionTestCase):
    """Log lines of requests."""

    async def test_lines(self) -> None:
        """Each request logs one line, which contains no secrets."""
        events: list[dict[str, Any]] = []
        log = RequestLog(observer=events.append)  # type: ignore[arg-type]
        secret = [("Authorization", "Bearer sk-secret"), ("X-Other", "sk-secret")]
        target = CHAT + "?key=sk-secret"
        await self.asked(streamed(HELLO), target=target, headers=secret, log=log)
        await self.asked(whole(b"{}", [JSON], 401), target=target, headers=secret, log=log)
        await self.asked(streamed(START), target=target, headers=secret, log=log)
        self.assertEqual([entry["status"] for entry in events], [200, 401, 502])
        self.assertEqual([entry["how"] for entry in events], ["converted", "passed", "converted"])
        self.assertTrue(all(entry["path"] == CHAT and entry["method"] == "POST" for entry in events))
        self.assertIn("ended", events[2]["problem"])
        self.assertNotIn("sk-secret", repr(events))

    async def test_words_of_the_upstream(self) -> None:
        """The words of an upstream's error go to the client only: they may quote keys, or forge log lines."""
        events: list[dict[str, Any]] = []
        log = RequestLog(observer=events.append)  # type: ignore[arg-type]
        responder = streamed(
            START + event({"error": {"message": "Incorrect API key: sk-secret", "code": 401}})
        )
        response = await self.asked(responder, log=log)
        self.assertIn("sk-secret", response.json()["error"]["message"])
        self.assertEqual(len(events), 1)
        self.assertIn("reported an error", events[0]["problem"])
        self.assertNotIn("sk-secret", repr(events))

    async def test_absolute_target(self) -> None:
        """Only the path of an absolute-form target is logged."""
        events: list[dict[str, Any]] = []
        log = RequestLog(observer=events.append)  # type: ignore[arg-type]
        await self.asked(streamed(HELLO), target=f"http://user:sk-secret@h{CHAT}", log=log)
        self.assertEqual([entry["path"] for entry in events], [CHAT])
        self.assertNotIn("sk-secret", repr(events))
