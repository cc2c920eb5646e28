"""Refusals of handshakes, and invalid responses to them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred

from stream_proxy.limits import Limits
from stream_proxy.request_log import RequestLog
from tests.support.loopback import Lines, turns
from tests.support.sessions import (
    UPGRADE,
    WebSocketTestCase,
    accepted,
    handshake,
)
from tests.support.wire import Message, Stream, head, read_head, read_request, read_response, respond


class RefusalTests(WebSocketTestCase):
    """Refusals are forwarded to the client; an invalid response gets a 502."""

    async def answered(self, answer: bytes | Callable[[Message], bytes], *, close: bool = False) -> Message:
        """Return the client's response if this is the upstream's, which then may close."""

        async def script(stream: Stream) -> None:
            request = await read_head(stream)
            stream.write(answer if isinstance(answer, bytes) else answer(request))
            if close:
                stream.close()

        self.server = await self.upstream(script)
        self.port = await self.proxy(self.server.url)
        return await self.refused(self.port)

    async def test_statuses(self) -> None:
        """Status, reason, body and fields, repeated ones too, are forwarded unchanged."""
        body = b'{"error": {"message": "no"}}'
        fields = [
            ("Content-Type", "application/json"),
            ("Retry-After", "7"),
            ("Set-Cookie", "a=1"),
            ("Set-Cookie", "b=2"),
            ("WWW-Authenticate", "Bearer"),
        ]
        length = ("Content-Length", str(len(body)))
        for status, reason in (
            (401, "Unauthorized"),
            (429, "Slow Down"),
            (403, "No"),
            (500, "Oops"),
            (200, "OK"),
        ):
            response = await self.answered(head(status, [*fields, length], reason) + body)
            self.assertEqual(response.line, f"HTTP/1.1 {status} {reason}")
            self.assertEqual(sorted(response.headers), sorted([*fields, length]))
            self.assertEqual(response.body, body)

    async def test_redirect(self) -> None:
        """A redirect is forwarded, not followed."""
        fields = [("Location", "wss://elsewhere.example/x"), ("Content-Length", "0")]
        response = await self.answered(head(302, fields, "Found"))
        self.assertEqual((response.status, response.get("location")), (302, "wss://elsewhere.example/x"))
        self.assertEqual(len(self.server.connections), 1)

    async def test_own_redirect(self) -> None:
        """A redirect to the upstream's own URL leads back to the proxy."""

        async def script(stream: Stream) -> None:
            request = await read_request(stream)
            fields = [("Location", f"http://{request.get('host')}/api/x"), ("Content-Length", "0")]
            stream.write(head(302, fields, "Found"))

        upstream = await self.upstream(script)
        response = await self.refused(await self.proxy(upstream.url + "/api"))
        self.assertEqual((response.status, response.get("location")), (302, "/x"))

    async def test_chunked_body(self) -> None:
        """A chunked body that comes in pieces arrives whole."""

        async def script(stream: Stream) -> None:
            await read_head(stream)
            answer = head(
                429, [("Transfer-Encoding", "chunked"), ("Set-Cookie", "a"), ("Set-Cookie", "b")], "No"
            )
            answer += b"5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n"
            for start in range(0, len(answer), 7):
                stream.write(answer[start : start + 7])
                await turns(1)

        upstream = await self.upstream(script)
        response = await self.refused(await self.proxy(upstream.url))
        self.assertEqual((response.status, response.body, response.complete), (429, b"firstsecond", True))
        self.assertEqual(response.all("set-cookie"), ["a", "b"])

    async def test_body_until_the_close(self) -> None:
        """A body without framing ends with the connection."""
        response = await self.answered(head(403, reason="No") + b"until the end", close=True)
        self.assertEqual((response.status, response.body, response.complete), (403, b"until the end", True))

    async def test_body_that_breaks(self) -> None:
        """A truncated body does not look complete."""
        response = await self.answered(head(403, [("Content-Length", "100")], "No") + b"part", close=True)
        self.assertEqual((response.status, response.body, response.complete), (403, b"part", False))

    async def test_fields_of_the_connection(self) -> None:
        """Fields that a refusal's `Connection` lists are removed."""
        fields = [("Connection", "close, X-Hop"), ("X-Hop", "1"), ("Content-Length", "0")]
        response = await self.answered(head(401, fields, "No"))
        self.assertEqual(response.all("x-hop") + response.all("connection"), [])

    async def test_connection_goes_on(self) -> None:
        """After a refusal the client's connection takes the next request."""

        async def script(stream: Stream) -> None:
            request = await read_request(stream)
            status = 401 if request.get("upgrade") else 200
            respond(stream, status, request.target.encode())

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(handshake(target="/a"))
        first = await read_response(client, "GET")
        client.write(handshake((), target="/b"))
        second = await read_response(client, "GET")
        self.assertEqual([(one.status, one.body) for one in (first, second)], [(401, b"/a"), (200, b"/b")])

    async def test_interim_responses(self) -> None:
        """Interim responses before the 101 are skipped."""
        interim = head(103, [("Link", "</x>")], "Early Hints") + head(100, reason="Continue")
        pair = await self.open(answer=lambda request: interim + accepted(request, [("X-A", "1")]))
        self.assertEqual((pair.response.get("x-a"), pair.response.get("link")), ("1", None))

    async def test_wrong_accept(self) -> None:
        """A `Sec-WebSocket-Accept` that does not match the key gets a 502 that does not quote it."""
        fields = [*UPGRADE, ("Sec-WebSocket-Accept", "d3Jvbmc=")]
        response = await self.answered(head(101, fields, "Switching Protocols"))
        self.assert_error(response, 502, "upstream_error", "Sec-WebSocket-Accept bogus value")
        self.assertNotIn(b"d3Jvbmc", response.body)

    async def test_incomplete_101(self) -> None:
        """A 101 that lacks a field of the handshake, or upgrades to something else, gets a 502."""
        for missing in ("Upgrade:", "Connection:", "Sec-WebSocket-Accept:"):

            def without(request: Message, missing: str = missing) -> bytes:
                return accepted(request).replace(missing.encode(), b"X-Not:")

            self.assert_error(await self.answered(without), 502, "upstream_error", missing[:-1])
        other = await self.answered(lambda request: accepted(request).replace(b"websocket", b"h2c"))
        self.assert_error(other, 502, "upstream_error", "Upgrade")

    async def test_uninvited(self) -> None:
        """A subprotocol or an extension that was not offered gets a 502."""
        for name, value in (
            ("Sec-WebSocket-Protocol", "surprise"),
            ("Sec-WebSocket-Extensions", "x-surprise"),
            ("Sec-WebSocket-Extensions", "permessage-deflate"),
        ):
            response = await self.answered(partial(accepted, headers=[(name, value)]))
            self.assert_error(
                response, 502, "upstream_error", "handshake of http://127.0.0.1:[0-9]+ is invalid"
            )
            self.assertNotIn(b"surprise", response.body)

    async def test_quotes(self) -> None:
        """What an invalid 101 says reaches neither the client nor the log, in whatever field it stands."""
        mark = "\x1b]0;EVIL\x07"
        log = Lines()
        for name, value in (
            ("Sec-WebSocket-Extensions", f"permessage-deflate; server_max_window_bits={mark}"),
            ("Sec-WebSocket-Extensions", f"permessage-deflate; {mark}; {mark}"),
            ("Sec-WebSocket-Extensions", f"permessage-bzip2; server_max_compress_level='{mark}'"),
            ("Sec-WebSocket-Extensions", mark),
            ("Sec-WebSocket-Protocol", mark),
            ("Upgrade", mark),
            ("Connection", mark),
            ("Sec-WebSocket-Accept", mark),
        ):

            async def script(stream: Stream, name: str = name, value: str = value) -> None:
                answer = accepted(await read_head(stream))
                lines = [line for line in answer.split(b"\r\n") if not line.startswith(name.encode() + b":")]
                stream.write(b"\r\n".join([lines[0], f"{name}: {value}".encode(), *lines[1:]]))

            upstream = await self.upstream(script)
            response = await self.refused(await self.proxy(upstream.url, log=RequestLog("debug", log)))
            self.assert_error(response, 502, "upstream_error")
            self.assertNotIn(b"EVIL", response.body)
        self.assertEqual(sum(" websocket " in line for line in log.lines), 8)
        self.assertNotIn("EVIL", "".join(log.lines))

    async def test_garbage(self) -> None:
        """A response that is not HTTP gets a 502."""
        for garbage in (
            b"\x16\x03\x01garbage\r\n\r\n",
            b"SSH-2.0-x\r\n",
            b"\n",
            b"HTTP/1.1 nonsense\r\n\r\n",
        ):
            self.assert_error(await self.answered(garbage, close=True), 502, "upstream_error")

    async def test_endless_head(self) -> None:
        """An endless head of a 101, an interim response or a refusal gets a 502 when it exceeds its bound."""
        for line in (
            b"HTTP/1.1 101 Switching Protocols\r\n",
            b"HTTP/1.1 103 Hints\r\n",
            b"HTTP/1.1 401 No\r\n",
            b"",
        ):
            endless = line + b"X-Long: and longer\r\n" * 5000
            response = await self.answered(endless if line else b"x" * 100_000)
            self.assert_error(response, 502, "upstream_error")
            await self.server.connections[0].gone()

    async def test_lost_before_the_answer(self) -> None:
        """An upstream that closes without a response gets the client a 502."""
        self.assert_error(await self.answered(b"", close=True), 502, "upstream_error")
        self.assert_error(await self.answered(b"HTTP/1.1 101 Swi", close=True), 502, "upstream_error")

    async def test_nobody_there(self) -> None:
        """A refused connection gets a 502."""
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{bound.getsockname()[1]}"
            response = await self.refused(await self.proxy(url))
        self.assert_error(response, 502, "upstream_error", "refused the connection")

    async def test_silence(self) -> None:
        """A silent upstream gets the client a 504, and its connection is dropped."""

        async def script(stream: Stream) -> None:
            await stream.rest()

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url, limits=Limits(connect_seconds=0.2))
        self.assert_error(await self.refused(port), 504, "upstream_timeout", "within 0.2 seconds")
        await upstream.connections[0].gone()

    async def test_silence_in_a_refusal(self) -> None:
        """The body of a refusal may pause for `timeout_seconds` at most."""

        async def script(stream: Stream) -> None:
            await read_head(stream)
            stream.write(head(401, [("Content-Length", "10")], "No") + b"half")
            await stream.rest()

        upstream = await self.upstream(script)
        response = await self.refused(await self.proxy(upstream.url, limits=Limits(timeout_seconds=0.5)))
        self.assertEqual((response.status, response.body, response.complete), (401, b"half", False))

    async def test_client_gone_while_dialling(self) -> None:
        """If the client leaves before the response, the upstream's connection is dropped."""
        asked: Deferred[Stream] = Deferred()

        async def script(stream: Stream) -> None:
            await read_head(stream)
            asked.callback(stream)

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(handshake())
        server = await asked
        client.close()
        await server.gone()
        outcome = await self.ended()
        self.assertEqual(outcome.status, 499)
