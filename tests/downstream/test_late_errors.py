"""Ends of responses whose head went out early, as raw clients see them: cuts, resets, and no whole JSON."""

from __future__ import annotations

import json
from typing import Any
from unittest import TestCase

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.ssl import CertificateOptions
from twisted.web.server import Site

from stream_proxy.downstream import channel as channel_module
from stream_proxy.downstream.closing import unfinished
from tests.support.certificates import server_context
from tests.support.heartbeats import EVENTS, REFUSED, SECONDS, START, HeartbeatTestCase
from tests.support.loopback import reactor, turns
from tests.support.payloads import CHAT, CHAT_BODY, HELLO
from tests.support.wire import JSON, Message, Stream, read_head, respond, send_request

VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def is_json(data: bytes) -> bool:
    """Report whether a parser accepts `data`."""
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


def call(version: str, *fields: str) -> bytes:
    """Return a call with this HTTP version and further fields."""
    body = json.dumps(CHAT_BODY).encode()
    lines = [f"POST {CHAT} HTTP/{version}", "Host: x", "Content-Type: application/json", *fields]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


class UnfinishedTests(TestCase):
    """JSON without its end."""

    @given(st.dictionaries(st.text(), VALUES), st.sampled_from([b"", b"\n", b" \r\n\t"]))
    def test_object(self, value: dict[str, Any], blanks: bytes) -> None:
        """An object lacks its last brace and nothing else, and is no JSON any more."""
        whole = msgspec.json.encode(value)
        cut = unfinished(whole + blanks)
        self.assertEqual(cut + b"}", whole)
        self.assertFalse(is_json(cut))

    @given(st.dictionaries(st.text(), VALUES), st.text('{}[]" \n0ax,', min_size=1))
    @example({}, "}")
    @example({}, " {")
    @example({"a": {}}, "}}\n}")
    def test_more_than_an_object(self, value: dict[str, Any], rest: str) -> None:
        """What an upstream sends after the object does not help it to pass for JSON."""
        self.assertFalse(is_json(unfinished(msgspec.json.encode(value) + rest.encode())))

    def test_large(self) -> None:
        """Large bodies are cut without a look at all of them, and deep ones without a recursion error."""
        for body in (
            b'{"a": "%b"}' % (b"x" * 1_000_000),
            b'{"a": "%b"}}' % (b"x" * 1_000_000),
            b'{"a":' * 30_000 + b"1" + b"}" * 30_000,
        ):
            self.assertFalse(is_json(unfinished(body)))
            self.assertTrue(body.startswith(unfinished(body)))


class LateErrorTests(HeartbeatTestCase):
    """Late errors on connections of each kind."""

    async def late(self, version: str, *fields: str) -> tuple[Stream, Stream, Message]:
        """Send a call with this HTTP version and further fields, and wait for the early head."""
        port = await self.listening()
        asked = self.asked
        client = await self.client(port)
        client.write(call(version, *fields))
        stream = await asked
        self.clock.advance(SECONDS)
        return client, stream, await read_head(client)

    async def test_chunked(self) -> None:
        """In HTTP/1.1 the last chunk is missing, and the close is an orderly one that loses nothing."""
        for fields in ((), ("Connection: close",), ("Connection: keep-alive",)):
            client, stream, begun = await self.late("1.1", *fields)
            respond(stream, *REFUSED, [JSON])
            self.assertEqual(await self.cut(client), json.loads(REFUSED[1]))
            assert client.lost is not None
            self.assertIs(client.lost.type, ConnectionDone)
            self.assertEqual(begun.all("connection"), [])

    async def test_close_delimited(self) -> None:
        """In HTTP/1.0 the data arrives, and a reset after it, because a close would be the end."""
        for fields in ((), ("Connection: keep-alive",), ("Connection: close",)):
            client, stream, begun = await self.late("1.0", *fields)
            respond(stream, *REFUSED, [JSON])
            body = await client.rest()
            self.assertEqual(body, b" " + REFUSED[1][:-1])
            assert client.lost is not None
            self.assertIs(client.lost.type, ConnectionLost)
            self.assertEqual(begun.all("connection"), [])

    async def test_slow_reader(self) -> None:
        """An HTTP/1.0 client that reads late gets a part of a large error, and the reset."""
        client, stream, _ = await self.late("1.0")
        error = b'{"error": {"message": "%b"}}' % (b"x" * 5_000_000)
        client.transport.pauseProducing()
        respond(stream, 500, error, [JSON])
        while not self.events:
            await turns(1)
        await turns(20)
        client.transport.resumeProducing()
        self.assertTrue((b" " + error[:-1]).startswith(await client.rest()))
        assert client.lost is not None
        self.assertIs(client.lost.type, ConnectionLost)

    async def test_tls(self) -> None:
        """Over TLS, too, the data arrives before the reset, which is no orderly end of TLS."""
        _, stream, _ = await self.late("1.1")
        (heartbeat,) = self.responses
        channel: Any = heartbeat._request.channel
        respond(stream, *REFUSED, [JSON])
        port = await self.listen(channel.site, server_context("127.0.0.1"))
        for version in ("1.0", "1.1"):
            asked, client = self.asked, Stream()
            endpoint = wrapClientTLS(CertificateOptions(), HostnameEndpoint(reactor, "127.0.0.1", port))
            await connectProtocol(endpoint, client)
            client.write(call(version))
            stream = await asked
            self.clock.advance(SECONDS)
            await read_head(client)
            respond(stream, *REFUSED, [JSON])
            if version == "1.0":
                self.assertEqual(await client.rest(), b" " + REFUSED[1][:-1])
            else:
                self.assertEqual(await self.cut(client), json.loads(REFUSED[1]))
            assert client.lost is not None
            self.assertEqual(client.lost.type is ConnectionDone, version == "1.1")

    async def test_next_request(self) -> None:
        """A request that was pipelined behind the call is not answered: its connection is cut."""
        client, stream, _ = await self.late("1.1")
        send_request(client, "GET", "/v1/models")
        respond(stream, 200, START, [EVENTS])
        self.assertIn("ended", (await self.cut(client))["error"]["message"])
        self.assertEqual(len(self.requests), 1)

    async def test_foreign_site(self) -> None:
        """In a site of Twisted's own it is the same."""
        _, stream, _ = await self.late("1.1")
        channel: Any = self.responses[0]._request.channel
        respond(stream, *REFUSED, [JSON])
        site = Site(channel.site.resource, reactor=reactor)
        site.noisy = False
        site.log = lambda request: None  # type: ignore[method-assign]
        port = await self.listen(site)
        for fields in ((), ("Connection: close",)):
            asked, client = self.asked, await self.client(port)
            client.write(call("1.1", *fields))
            stream = await asked
            self.clock.advance(SECONDS)
            self.assertEqual((await read_head(client)).all("connection"), [])
            respond(stream, *REFUSED, [JSON])
            self.assertEqual(await self.cut(client), json.loads(REFUSED[1]))

    async def test_whole(self) -> None:
        """A response that succeeds after the head is whole, also for a client that asked for a close."""
        client, stream, begun = await self.late("1.1", "Connection: close")
        respond(stream, 200, HELLO, [EVENTS])
        self.assert_hello(await self.body(client, begun))
        await client.gone()


class StopTests(HeartbeatTestCase):
    """Responses that have begun early when the service stops."""

    async def stopped(self, client: Stream) -> Any:
        """Stop the service without a grace, and return the error that the client gets."""
        (heartbeat,) = self.responses
        channel: Any = heartbeat._request.channel
        channel.site.drain(0)
        return await self.cut(client)

    async def test_begun(self) -> None:
        """The error says that the proxy stops, the log has its status, and the upstream is left."""
        client, stream, _ = await self.begun()
        error = (await self.stopped(client))["error"]
        self.assertEqual((error["code"], error["type"]), ("server_stopping", "server_error"))
        (line,) = self.events
        self.assertEqual((line["status"], line["detail"]), (503, ", 200 had been sent"))
        await stream.gone()

    async def test_not_reading(self) -> None:
        """A client that reads nothing does not hold up the stop."""
        self.patch(channel_module, "_LAST_WORDS_SECONDS", 0)
        client, stream, _ = await self.begun()
        client.transport.pauseProducing()
        (heartbeat,) = self.responses
        channel: Any = heartbeat._request.channel
        heartbeat._request.write(b" " * 10_000_000)
        await channel.site.drain(0)
        await stream.gone()

    async def test_not_begun(self) -> None:
        """A connection whose response has not begun is dropped without a word."""
        client, stream = await self.waiting()
        (heartbeat,) = self.responses
        channel: Any = heartbeat._request.channel
        await channel.site.drain(0)
        self.assertEqual(await client.rest(), b"")
        await stream.gone()
