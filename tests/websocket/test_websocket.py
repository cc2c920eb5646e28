"""WebSockets through the proxy: two handshakes, and then every byte as it was."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, cast
from unittest import mock

import trustme
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.ssl import PrivateCertificate
from twisted.logger import globalLogPublisher
from twisted.web.server import Site
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close as LibraryClose
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from stream_proxy import ProxyResource, ProxySite
from stream_proxy.limits import Limits
from stream_proxy.request_log import RequestLog
from stream_proxy.websocket import session
from stream_proxy.websocket.frames import Close
from tests.support.loopback import Upstream, in_thread, reactor, turns
from tests.support.sessions import (
    BINARY,
    CLOSE,
    CONTINUATION,
    HANDSHAKE,
    HANDSHAKE_KEY,
    KEY,
    PING,
    PONG,
    TEXT,
    UPGRADE,
    VERSION,
    Frame,
    WebSocketTestCase,
    accepted,
    both,
    close_frame,
    frame,
    handshake,
    read_frame,
)
from tests.support.wire import Headers, Message, Stream, head, read_head, read_request, read_response, respond

ABNORMAL = Close.of(1011, "upstream websocket disconnected abnormally")
GOING_AWAY = Close.of(1001)
QUIET = RequestLog(observer=cast(Any, lambda event: None))


class LibraryTestCase(WebSocketTestCase):
    """A client and a server that are the library `websockets`, with the proxy between them."""

    async def served(self, handler: Callable[[ServerConnection], None], **kwargs: Any) -> int:
        """Run the library's server behind a proxy, whose port is returned."""
        server = serve(handler, "127.0.0.1", 0, max_size=None, **kwargs)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def stop() -> None:
            server.shutdown()
            thread.join()

        self.addCleanup(lambda: in_thread(stop))
        return await self.proxy(f"http://127.0.0.1:{server.socket.getsockname()[1]}")

    async def talk(self, port: int, call: Callable[[ClientConnection], Any], **kwargs: Any) -> Any:
        """What `call` returns, which has a session of the library's client."""

        def talk() -> Any:
            client = connect(f"ws://127.0.0.1:{port}/v1/realtime?model=m", max_size=None, **kwargs)
            with client:
                return call(client)

        return await in_thread(talk)


def echo(connection: ServerConnection) -> None:
    """Send everything back."""
    for message in connection:
        connection.send(message)


class LibraryTests(LibraryTestCase):
    """What applications send is what applications get."""

    async def test_messages(self) -> None:
        """Text, binary, empty ones, and 1 MiB in one frame come back as they were."""
        port = await self.served(echo)
        sent: list[str | bytes] = [
            "text",
            "ü \U0001f600",
            "",
            b"",
            b"\0\xff",
            os.urandom(1 << 20),
            "x" * 70_000,
        ]

        def call(client: ClientConnection) -> list[str | bytes]:
            got = []
            for message in sent:
                client.send(message)
                got.append(client.recv())
            return got

        self.assertEqual(await self.talk(port, call), sent)

    async def test_many_small_messages(self) -> None:
        """Two thousand messages each way stay in order."""
        port = await self.served(echo)

        def call(client: ClientConnection) -> list[str | bytes]:
            for number in range(2000):
                client.send(str(number))
            return [client.recv() for _ in range(2000)]

        self.assertEqual(await self.talk(port, call), [str(number) for number in range(2000)])

    async def test_fragments(self) -> None:
        """A fragmented message is one message at the other end, whatever pings come between."""
        port = await self.served(echo)

        def call(client: ClientConnection) -> Any:
            def parts() -> Any:
                for number in range(50):
                    if number % 10 == 0:
                        client.ping()
                    yield b"%d," % number

            client.send(parts())
            return client.recv()

        self.assertEqual(await self.talk(port, call), b"".join(b"%d," % number for number in range(50)))

    async def test_ping(self) -> None:
        """A ping is answered by the other end, not by the proxy."""
        port = await self.served(echo)
        self.assertTrue(await self.talk(port, lambda client: client.ping(b"mine").wait(5)))

    async def test_compression_is_not_negotiated(self) -> None:
        """Both ends could compress, and do not: the offer does not get through."""
        offers: list[object] = []

        def handler(connection: ServerConnection) -> None:
            assert connection.request is not None
            offers.append(connection.request.headers.get("Sec-WebSocket-Extensions"))
            echo(connection)

        port = await self.served(handler, compression="deflate")

        def call(client: ClientConnection) -> Any:
            assert client.response is not None
            client.send("a" * 1000)
            return client.recv(), client.response.headers.get("Sec-WebSocket-Extensions")

        self.assertEqual(await self.talk(port, call, compression="deflate"), ("a" * 1000, None))
        self.assertEqual(offers, [None])

    async def test_subprotocols(self) -> None:
        """The server chooses among what the client offers: one, several, keys among them; or nothing."""

        def handler(connection: ServerConnection) -> None:
            connection.send(connection.subprotocol or "none")

        port = await self.served(handler, subprotocols=[Subprotocol("realtime"), Subprotocol("v2")])
        for offer, chosen in (
            (["realtime"], "realtime"),
            (["openai-insecure-api-key.x", "realtime", "openai-beta.realtime-v1"], "realtime"),
            (["a", "v2"], "v2"),
        ):
            kwargs = {"subprotocols": [Subprotocol(name) for name in offer]}
            got = await self.talk(port, lambda client: (client.recv(), client.subprotocol), **kwargs)
            self.assertEqual(got, (chosen, chosen))

    async def test_closes(self) -> None:
        """A close code and its reason reach the other end, and its reply comes back."""
        heard: list[LibraryClose | None] = []

        def handler(connection: ServerConnection) -> None:
            try:
                first = connection.recv()
                code, _, reason = str(first).partition(" ")
                connection.close(int(code), reason)
            except ConnectionClosed as closed:
                heard.append(closed.rcvd)

        def listen(client: ClientConnection, code: int, reason: str) -> LibraryClose | None:
            client.send(f"{code} {reason}")
            try:
                client.recv()
            except ConnectionClosed as closed:
                return closed.rcvd
            return None

        port = await self.served(handler)
        for code, reason in (
            (1000, "done"),
            (1001, "going"),
            (3000, "registered"),
            (4321, "ü own"),
            (1000, ""),
        ):
            await self.talk(port, partial(ClientConnection.close, code=code, reason=reason))
            got = await self.talk(port, partial(listen, code=code, reason=reason))
            self.assertEqual(got, LibraryClose(code, reason))
            await self.ended()
            self.assertEqual(heard.pop(), LibraryClose(code, reason))

    async def test_refusal(self) -> None:
        """A refused handshake is the library's own exception, with status and body."""

        def refuse(connection: ServerConnection, request: object) -> Any:
            return connection.respond(401, "no key\n")

        port = await self.served(echo, process_request=refuse)

        def call() -> Any:
            try:
                connect(f"ws://127.0.0.1:{port}/")
            except InvalidStatus as refused:
                return refused.response.status_code, refused.response.body
            return None

        self.assertEqual(await in_thread(call), (401, b"no key\n"))

    async def test_fifty_sessions(self) -> None:
        """Fifty sessions at once each hear their own words only."""
        upstream, came = await self.accepting()
        port = await self.proxy(upstream.url)

        async def one(number: int) -> None:
            client = await self.client(port)
            client.write(handshake(target=f"/session/{number}"))
            self.assertEqual((await read_head(client)).status, 101)
            for turn in range(10):
                client.write(frame(TEXT, b"%d %d" % (number, turn), key=KEY))
            for turn in range(10):
                self.assertEqual((await read_frame(client)).payload, b"%d %d" % (number, turn))

        async def answer() -> None:
            request, stream = await came.get()
            number = request.target.rpartition("/")[2].encode()
            for turn in range(10):
                got = await read_frame(stream)
                self.assertEqual(got.payload, b"%s %d" % (number, turn))
                stream.write(frame(TEXT, got.payload))

        work = [one(number) for number in range(50)] + [answer() for _ in range(50)]
        await gatherResults([Deferred.fromCoroutine(part) for part in work], consumeErrors=True)


class FrameTests(WebSocketTestCase):
    """After the handshakes the bytes of each side are the bytes that the other gets."""

    async def test_verbatim(self) -> None:
        """Masks, fragments, control frames between them, reserved bits, odd lengths: nothing is touched."""
        pair = await self.open()
        for source, target, key in both(pair):
            await self.assert_passes(
                source,
                target,
                frame(TEXT, b"Hel", fin=False, key=key),
                frame(PING, b"?", key=key),
                frame(CONTINUATION, b"", fin=False, key=key),
                frame(PONG, b"!", key=key),
                frame(CONTINUATION, b"lo", key=key),
                frame(BINARY, b"x", key=key, width=8),
                frame(TEXT, b"not utf-8 \xff", key=key),
                frame(0x40 | 3, b"reserved", key=key),
                frame(BINARY, bytes(65_536), key=key),
                frame(BINARY, bytes(65_537), key=key),
            )

    async def test_single_bytes(self) -> None:
        """A frame whose bytes come one by one goes out in the end."""
        pair = await self.open()
        for source, target, key in both(pair):
            data = frame(TEXT, b"one by one", key=key)
            for place in range(len(data)):
                source.write(data[place : place + 1])
                await turns(1)
            self.assertEqual(await target.exactly(len(data)), data)

    async def test_long_frame_flows(self) -> None:
        """The first piece of a frame of more than 64 KiB is out before the last has come."""
        pair = await self.open()
        for source, target, key in both(pair):
            data = frame(BINARY, os.urandom(200_000), key=key)
            source.write(data[:1000])
            self.assertEqual(await target.exactly(1000), data[:1000])
            source.write(data[1000:])
            self.assertEqual(await target.exactly(len(data) - 1000), data[1000:])

    async def test_short_frame_that_never_ends(self) -> None:
        """Of a frame of up to 64 KiB nothing is out while a byte is missing, or ever if it never comes."""
        for size in (20, 65_536):
            for client_sends in (True, False):
                pair = await self.open()
                source, target, key = next(
                    one for one in both(pair) if (one[0] is pair.client) is client_sends
                )
                whole = frame(TEXT, b"whole", key=key)
                source.write(whole + frame(BINARY, bytes(size), key=key)[:-1])
                self.assertEqual(await target.exactly(len(whole)), whole)
                source.close()
                got = await read_frame(target)
                self.assertEqual(
                    (got.opcode, got.payload[:2]), (CLOSE, b"\x03\xe9" if client_sends else b"\x03\xf3")
                )
                target.close()
                await self.ended()

    async def test_early_frames(self) -> None:
        """What comes in one packet with a handshake, on either side, is not lost."""
        first, second = frame(TEXT, b"from the client", key=KEY), frame(TEXT, b"from upstream")
        pair = await self.open(answer=lambda request: accepted(request) + second, pipelined=first)
        self.assertEqual(await pair.server.exactly(len(first)), first)
        self.assertEqual(await pair.client.exactly(len(second)), second)
        await self.assert_passes(pair.client, pair.server, frame(TEXT, b"more", key=KEY))
        await self.assert_passes(pair.server, pair.client, frame(TEXT, b"more"))

    async def test_frames_while_dialling(self) -> None:
        """What the client sends before the upstream has answered waits, whatever its size."""
        asked: Deferred[tuple[Message, Stream]] = Deferred()

        async def script(stream: Stream) -> None:
            asked.callback((await read_head(stream), stream))

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        data = b"".join(frame(BINARY, bytes((number,)) * 30_000, key=KEY) for number in range(20))
        client.write(handshake() + data[:10_000])
        request, server = await asked
        client.write(data[10_000:])
        await turns()
        server.write(accepted(request))
        self.assertEqual((await read_head(client)).status, 101)
        self.assertEqual(await server.exactly(len(data)), data)

    async def test_close_with_the_handshake(self) -> None:
        """An upstream that accepts and closes at once: the client gets the 101, the frame, and the end."""
        bye = close_frame(4001, "expired")
        pair = await self.open(answer=lambda request: accepted(request) + bye)
        self.assertEqual(await pair.client.exactly(len(bye)), bye)
        pair.client.write(close_frame(4001, client=True))
        self.assertEqual(await pair.client.rest(), b"")


class HeaderTests(WebSocketTestCase):
    """What travels with the handshakes."""

    async def test_request(self) -> None:
        """Method, path, query and fields go up as they are, those of the handshake once each."""
        fields = [
            ("Authorization", "Bearer sk-1"),
            ("Openai-Beta", "realtime=v1"),
            ("Origin", "https://app.example:8443"),
            ("Cookie", "a=1"),
            ("Cookie", "b=2; c=\xfc"),
            ("User-Agent", "agent/1"),
            ("X-Empty", ""),
        ]
        pair = await self.open(fields, target="/any/path;p=1/%2F?model=a%20b&x[]=1&&")
        request = pair.request
        self.assertEqual(request.line, "GET /any/path;p=1/%2F?model=a%20b&x[]=1&& HTTP/1.1")
        sent = sorted(field for field in request.headers if field[0] != "Sec-WebSocket-Key")
        expected = [*fields, *UPGRADE, VERSION, ("Host", f"127.0.0.1:{pair.server.transport.getHost().port}")]
        self.assertEqual(sent, sorted(expected))
        self.assertEqual(len(request.all("Sec-WebSocket-Key")), 1)
        self.assertNotEqual(request.get("Sec-WebSocket-Key"), HANDSHAKE_KEY[1])

    async def test_hop_by_hop(self) -> None:
        """Fields of the connection, and those that `Connection` lists, end here, on both sides."""
        fields = [
            ("Connection", "X-Hop, keep-alive"),
            ("X-Hop", "1"),
            ("TE", "trailers"),
            ("Keep-Alive", "5"),
        ]
        answer = [("Connection", "X-Back"), ("X-Back", "1"), ("Keep-Alive", "timeout=5")]
        pair = await self.open(fields, answer=lambda request: accepted(request, answer))
        self.assertEqual(pair.request.all("connection"), ["Upgrade"])
        self.assertEqual(pair.response.all("connection"), ["Upgrade"])
        for name in ("x-hop", "te", "keep-alive", "x-back"):
            self.assertEqual(pair.request.all(name) + pair.response.all(name), [], name)

    async def test_prefix(self) -> None:
        """The rule's own path goes before the client's."""
        pair = await self.open(target="/realtime?x=1", prefix="/api/v2/")
        self.assertEqual(pair.request.target, "/api/v2/realtime?x=1")

    async def test_absolute_target(self) -> None:
        """Of a target in absolute form the path and query count, its host does not."""
        pair = await self.open(target="http://elsewhere.example/realtime?x=1")
        self.assertEqual(pair.request.target, "/realtime?x=1")

    async def test_response(self) -> None:
        """The upstream's other fields come with our 101, as they are and as often, and no more than they."""
        fields = [
            ("Set-Cookie", "a=1; Path=/"),
            ("Set-Cookie", "b=2"),
            ("X-Request-Id", "req_1"),
            ("Server", "up"),
            ("X-Odd", "caf\xe9 \u00df"),
        ]
        pair = await self.open(answer=lambda request: accepted(request, fields))
        own = [field for field in pair.response.headers if field[0].lower() in ("upgrade", "connection")]
        self.assertEqual([(name, value.lower()) for name, value in own], [(n, v.lower()) for n, v in UPGRADE])
        rest = [field for field in pair.response.headers if field not in own]
        accept = ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        self.assertEqual(sorted(rest), sorted([*fields, accept]))

    async def test_subprotocol(self) -> None:
        """The offer goes up as it is, and the upstream's choice comes down; or none, where it declines."""
        offers = [
            ("Sec-WebSocket-Protocol", "realtime, openai-insecure-api-key.x"),
            ("Sec-WebSocket-Protocol", "z"),
        ]
        for offer, choice in ((offers, "realtime"), (offers, "z"), (offers, None), ([], None)):
            fields = [("Sec-WebSocket-Protocol", choice)] if choice else []
            pair = await self.open(offer, answer=partial(accepted, headers=fields))
            self.assertEqual(pair.request.all("sec-websocket-protocol"), [value for _, value in offer])
            self.assertEqual(pair.response.all("sec-websocket-protocol"), [choice] if choice else [])

    async def test_extensions(self) -> None:
        """The client's extensions are not offered to the upstream."""
        pair = await self.open([("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")])
        self.assertEqual(pair.request.all("sec-websocket-extensions"), [])
        self.assertEqual(pair.response.all("sec-websocket-extensions"), [])

    async def test_connection_of_many_words(self) -> None:
        """`Connection` and `Upgrade` are lists of words in any case."""
        upstream, came = await self.accepting()
        fields = [
            ("Upgrade", "foo, WebSocket"),
            ("Connection", "keep-alive, UPGRADE"),
            HANDSHAKE_KEY,
            VERSION,
        ]
        pair = await self.join(await self.proxy(upstream.url), came, handshake(fields))
        self.assertEqual(pair.request.all("upgrade"), ["websocket"])


class RefusalTests(WebSocketTestCase):
    """An upstream that does not want the WebSocket answers the client; one that makes no sense is a 502."""

    async def answered(self, answer: bytes | Callable[[Message], bytes], *, close: bool = False) -> Message:
        """What the client gets when the upstream answers the handshake so (and closes)."""

        async def script(stream: Stream) -> None:
            request = await read_head(stream)
            stream.write(answer if isinstance(answer, bytes) else answer(request))
            if close:
                stream.close()

        self.server = await self.upstream(script)
        self.port = await self.proxy(self.server.url)
        return await self.refused(self.port)

    async def test_statuses(self) -> None:
        """Refusals reach the client as they are: status, reason, body, and fields as often as they came."""
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
        """A redirect is the client's to follow."""
        fields = [("Location", "wss://elsewhere.example/x"), ("Content-Length", "0")]
        response = await self.answered(head(302, fields, "BodyKind"))
        self.assertEqual((response.status, response.get("location")), (302, "wss://elsewhere.example/x"))
        self.assertEqual(len(self.server.connections), 1)

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
        """A body that ends early is not made to look whole."""
        response = await self.answered(head(403, [("Content-Length", "100")], "No") + b"part", close=True)
        self.assertEqual((response.status, response.body, response.complete), (403, b"part", False))

    async def test_fields_of_the_connection(self) -> None:
        """What a refusal's `Connection` lists does not travel."""
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
        """Responses with 1xx before the 101 are skipped."""
        interim = head(103, [("Link", "</x>")], "Early Hints") + head(100, reason="Continue")
        pair = await self.open(answer=lambda request: interim + accepted(request, [("X-A", "1")]))
        self.assertEqual((pair.response.get("x-a"), pair.response.get("link")), ("1", None))

    async def test_wrong_accept(self) -> None:
        """A `Sec-WebSocket-Accept` that does not fit the key is a 502, which quotes nothing of it."""
        fields = [*UPGRADE, ("Sec-WebSocket-Accept", "d3Jvbmc=")]
        response = await self.answered(head(101, fields, "Switching Protocols"))
        self.assert_error(response, 502, "upstream_error", "Sec-WebSocket-Accept bogus value")
        self.assertNotIn(b"d3Jvbmc", response.body)

    async def test_incomplete_101(self) -> None:
        """A 101 without `Upgrade`, `Connection` or `Sec-WebSocket-Accept`, or to something else, is a 502."""
        for missing in ("Upgrade:", "Connection:", "Sec-WebSocket-Accept:"):

            def without(request: Message, missing: str = missing) -> bytes:
                return accepted(request).replace(missing.encode(), b"X-Not:")

            self.assert_error(await self.answered(without), 502, "upstream_error", missing[:-1])
        other = await self.answered(lambda request: accepted(request).replace(b"websocket", b"h2c"))
        self.assert_error(other, 502, "upstream_error", "Upgrade")

    async def test_uninvited(self) -> None:
        """A subprotocol or an extension that nobody offered is a 502."""
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

    async def test_garbage(self) -> None:
        """An answer that is no HTTP is a 502."""
        for garbage in (
            b"\x16\x03\x01garbage\r\n\r\n",
            b"SSH-2.0-x\r\n",
            b"\n",
            b"HTTP/1.1 nonsense\r\n\r\n",
        ):
            self.assert_error(await self.answered(garbage, close=True), 502, "upstream_error")

    async def test_endless_head(self) -> None:
        """A head that does not end is a 502 before it fills the memory: a 101, an interim, a refusal."""
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
        """An upstream that closes instead of answering is a 502."""
        self.assert_error(await self.answered(b"", close=True), 502, "upstream_error")
        self.assert_error(await self.answered(b"HTTP/1.1 101 Swi", close=True), 502, "upstream_error")

    async def test_nobody_there(self) -> None:
        """A refused connection is a 502."""
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{bound.getsockname()[1]}"
            response = await self.refused(await self.proxy(url))
        self.assert_error(response, 502, "upstream_error", "refused the connection")

    async def test_silence(self) -> None:
        """An upstream that takes the connection and says nothing is a 504, and is dropped."""

        async def script(stream: Stream) -> None:
            await stream.rest()

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url, limits=Limits(connect_seconds=0.2))
        self.assert_error(await self.refused(port), 504, "upstream_timeout", "within 0.2 seconds")
        await upstream.connections[0].gone()

    async def test_silence_in_a_refusal(self) -> None:
        """The body of a refusal may stand still for `timeout_seconds`, no longer."""

        async def script(stream: Stream) -> None:
            await read_head(stream)
            stream.write(head(401, [("Content-Length", "10")], "No") + b"half")
            await stream.rest()

        upstream = await self.upstream(script)
        response = await self.refused(await self.proxy(upstream.url, limits=Limits(timeout_seconds=0.5)))
        self.assertEqual((response.status, response.body, response.complete), (401, b"half", False))

    async def test_client_gone_while_dialling(self) -> None:
        """A client that leaves before the answer takes the upstream's connection with it."""
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


class MalformedTests(WebSocketTestCase):
    """A handshake that is none is a 400, and nobody is dialled."""

    async def test_malformed(self) -> None:
        """Key and version must be there once and right, subprotocols differ, and there is no body."""
        upstream, _ = await self.accepting()
        port = await self.proxy(upstream.url)
        protocols = ("Sec-WebSocket-Protocol", "openai-insecure-api-key.x, openai-insecure-api-key.x")
        cases: tuple[tuple[Headers, str], ...] = (
            ((VERSION,), "Key header missing"),
            ((("Sec-WebSocket-Key", "c2hvcnQ="), VERSION), "bad Sec-WebSocket-Key"),
            ((("Sec-WebSocket-Key", "!" * 22 + "=="), VERSION), "bad character"),
            ((HANDSHAKE_KEY, HANDSHAKE_KEY, VERSION), "Key header appears more than once"),
            ((HANDSHAKE_KEY,), "Hixie76 protocol not supported"),
            ((HANDSHAKE_KEY, ("Sec-WebSocket-Version", "8")), "version 8 not supported"),
            ((HANDSHAKE_KEY, ("Sec-WebSocket-Version", "x")), "Sec-WebSocket-Version"),
            ((HANDSHAKE_KEY, VERSION, VERSION), "Version header appears more than once"),
            ((HANDSHAKE_KEY, VERSION, protocols), "Protocol names one twice"),
            ((HANDSHAKE_KEY, VERSION, ("Transfer-Encoding", "chunked")), "has a body"),
            ((HANDSHAKE_KEY, VERSION, ("Content-Length", "4")), "has a body"),
        )
        for fields, message in cases:
            response = await self.refused(port, handshake([*UPGRADE, *fields]))
            self.assert_error(response, 400, "invalid_request_error", f"is malformed: .*{message}")
            if "version 8" in message:
                self.assertEqual(response.get("sec-websocket-version"), "13")
        self.assertEqual(upstream.connections, [])
        for outcome in self.outcomes:
            self.assertNotRegex(str(outcome), "insecure|c2hvcnQ|!!")

    async def test_empty_body(self) -> None:
        """A `Content-Length` of nothing is no body."""
        pair = await self.open([("Content-Length", "0")])
        self.assertEqual(pair.request.all("content-length"), [])

    async def test_no_websocket(self) -> None:
        """What only looks like one passes as a plain request: HTTP/1.0, h2c, a POST, no Connection."""

        async def script(stream: Stream) -> None:
            while True:
                request = await read_request(stream)
                fields = [name for name, _ in request.headers if name.lower() == "upgrade"]
                respond(stream, 200, f"{request.method} {fields}".encode())

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url)
        h2c = [("Upgrade", "h2c"), ("Connection", "Upgrade"), HANDSHAKE_KEY, VERSION]
        for data, method in (
            (handshake(line="GET /v1/realtime HTTP/1.0"), "GET"),
            (handshake(h2c), "GET"),
            (handshake([("Upgrade", "websocket"), HANDSHAKE_KEY, VERSION]), "GET"),
            (handshake([*HANDSHAKE, ("Content-Length", "0")], line="POST /v1/realtime HTTP/1.1"), "POST"),
        ):
            response = await self.refused(port, data)
            self.assertEqual((response.status, response.body), (200, f"{method} []".encode()))
        self.assertEqual(self.relays, [])


class CloseTests(WebSocketTestCase):
    """How sessions end when somebody says so."""

    async def test_both_ways(self) -> None:
        """A close frame passes with code and reason, the reply passes back, and both connections end."""
        for payload in (b"", b"\x03\xe8", b"\x03\xe9bye", b"\x0b\xb8registered", b"\x10\xe1" + "ü".encode()):
            for first in (0, 1):
                pair = await self.open()
                directions = list(both(pair))
                source, target, key = directions[first]
                await self.assert_passes(source, target, frame(CLOSE, payload, key=key))
                source, target, key = directions[1 - first]
                await self.assert_passes(source, target, frame(CLOSE, payload[:2], key=key))
                pair.server.close()
                self.assertEqual((await pair.client.rest(), await pair.server.rest()), (b"", b""))
                outcome = await self.ended()
                code = int.from_bytes(payload[:2], "big") if payload else 1005
                self.assertRegex(str(outcome.detail), f"^close {code}, ")
                self.assertIsNone(outcome.problem)

    async def test_client_that_has_its_reply(self) -> None:
        """A client that has said and heard all does not wait for the upstream's connection to end."""
        self.patch(session, "END_SECONDS", 1000.0)
        for first in (0, 1):
            pair = await self.open()
            for source, target, key in (list(both(pair)), list(both(pair))[::-1])[first]:
                await self.assert_passes(source, target, frame(CLOSE, b"\x03\xe8", key=key))
            self.assertEqual(await pair.client.rest(), b"")
            self.assertIsNone(pair.server.lost)
            pair.server.close()
            await self.ended()

    async def test_upstream_that_leaves_the_close_to_us(self) -> None:
        """When both have said it, an upstream that does not close its connection has it closed."""
        self.patch(session, "END_SECONDS", 0.0)
        pair = await self.open()
        await self.assert_passes(pair.client, pair.server, close_frame(1000, client=True))
        await self.assert_passes(pair.server, pair.client, close_frame(1000))
        self.assertEqual(await pair.server.rest(), b"")
        self.assertEqual(await pair.client.rest(), b"")

    async def test_nothing_follows(self) -> None:
        """What a side sends behind its close frame does not go out."""
        for first in (0, 1):
            pair = await self.open()
            source, target, key = list(both(pair))[first]
            bye = frame(CLOSE, b"\x03\xe8", key=key)
            source.write(bye + frame(TEXT, b"late", key=key))
            self.assertEqual(await target.exactly(len(bye)), bye)
            source.close()
            target.close()
            self.assertEqual(await target.rest(), b"")
            await self.ended()

    async def test_unanswered(self) -> None:
        """A close frame that is not answered comes back to its sender in time, and the connections end."""
        self.patch(session, "CLOSE_SECONDS", 0.0)
        for first in (0, 1):
            pair = await self.open()
            source, target, key = list(both(pair))[first]
            await self.assert_passes(source, target, frame(CLOSE, b"\x10\xe1why", key=key))
            await self.assert_closed(source, Close(b"\x10\xe1why"), masked=first == 1)
            self.assertEqual((await source.rest(), await target.rest()), (b"", b""))
            await self.ended()

    async def test_connection_closed_instead_of_a_reply(self) -> None:
        """A peer that answers a close frame by closing TCP has agreed: the sender gets its own back."""
        for first in (0, 1):
            pair = await self.open()
            source, target, key = list(both(pair))[first]
            await self.assert_passes(source, target, frame(CLOSE, b"\x03\xe8ok", key=key))
            target.close()
            await self.assert_closed(source, Close(b"\x03\xe8ok"), masked=first == 1)
            source.close()
            outcome = await self.ended()
            self.assertEqual(outcome.problem, None)

    async def test_illegal_close_is_not_echoed(self) -> None:
        """A close frame that nobody may send passes, but its sender does not get it back as a reply."""
        for first in (0, 1):
            pair = await self.open()
            source, target, key = list(both(pair))[first]
            await self.assert_passes(source, target, frame(CLOSE, b"\x03\xed", key=key))
            target.close()
            self.assertEqual(await source.rest(), b"")
            await self.ended()

    async def test_close_and_leave(self) -> None:
        """A peer that closes TCP right after its close frame has it delivered, and the reply goes nowhere."""
        for first in (0, 1):
            pair = await self.open()
            source, target, key = list(both(pair))[first]
            bye = frame(CLOSE, b"\x03\xe8", key=key)
            source.write(bye)
            source.close()
            self.assertEqual(await target.exactly(len(bye)), bye)
            target.write(frame(CLOSE, b"\x03\xe8", key=KEY if first else b""))
            target.close()
            self.assertEqual(await target.rest(), b"")
            outcome = await self.ended()
            self.assertRegex(str(outcome.detail), "^close 1000, ")

    async def test_messages_before_a_close(self) -> None:
        """What was sent before the close frame arrives before it, however slowly its reader reads."""
        self.patch(session, "CLOSE_SECONDS", 0.0)
        for first in (0, 1):
            pair = await self.open()
            source, target, key = list(both(pair))[first]
            target.transport.pauseProducing()
            data = b"".join(frame(BINARY, bytes((number,)) * 50_000, key=key) for number in range(100))
            bye = frame(CLOSE, b"\x03\xe8", key=key)
            source.write(data + bye)
            await turns(50)
            target.transport.resumeProducing()
            self.assertEqual(await target.rest(), data + bye)
            source.close()
            await self.ended()

    async def test_shutdown(self) -> None:
        """A site that drains closes both sides with 1001, and everything goes."""
        upstream, came = await self.accepting()
        proxy = ProxyResource(upstream.url, reactor=reactor, log=QUIET)
        site = ProxySite(proxy, reactor=reactor)
        port = await self.listen(site)
        pairs = [await self.join(port, came) for _ in range(3)]
        drained = site.drain(10)
        for pair in pairs:
            await self.assert_closed(pair.client, GOING_AWAY)
            await self.assert_closed(pair.server, GOING_AWAY, masked=True)
            pair.client.write(close_frame(1001, client=True))
            pair.server.write(close_frame(1001))
            pair.server.close()
            self.assertEqual(await pair.client.rest(), b"")
        await drained
        await self.ended()
        self.assertEqual([str(one.detail).split(",")[0] for one in self.outcomes], ["close 1001"] * 3)

    async def test_shutdown_of_the_deaf(self) -> None:
        """Nor do those who answer nothing keep it from its end."""
        self.patch(session, "END_SECONDS", 0.0)
        upstream, came = await self.accepting()
        site = ProxySite(ProxyResource(upstream.url, reactor=reactor, log=QUIET), reactor=reactor)
        pair = await self.join(await self.listen(site), came)
        await site.drain(10)
        self.assertEqual(await pair.client.rest(), GOING_AWAY.frame(masked=False))
        self.assertEqual(len(await pair.server.rest()), 8)

    async def test_shutdown_in_a_long_frame(self) -> None:
        """Within a long frame there is no place for a close frame: the connection just ends."""
        self.patch(session, "END_SECONDS", 0.0)
        upstream, came = await self.accepting()
        site = ProxySite(ProxyResource(upstream.url, reactor=reactor, log=QUIET), reactor=reactor)
        pair = await self.join(await self.listen(site), came)
        parts = []
        for source, target, key in both(pair):
            part = frame(BINARY, bytes(100_000), key=key)[:500]
            await self.assert_passes(source, target, part)
            parts.append(part)
        await site.drain(10)
        self.assertEqual((await pair.client.rest(), await pair.server.rest()), (b"", b""))


class LossTests(WebSocketTestCase):
    """How sessions end when somebody vanishes."""

    async def test_upstream_vanishes(self) -> None:
        """An upstream that is gone without a close frame, in order or not, is a 1011 that says so."""
        for vanish in (Stream.close, Stream.abort):
            pair = await self.open()
            await self.assert_passes(pair.server, pair.client, frame(TEXT, b"last words"))
            vanish(pair.server)
            await self.assert_closed(pair.client, ABNORMAL)
            pair.client.write(close_frame(1011, client=True))
            self.assertEqual(await pair.client.rest(), b"")
            outcome = await self.ended()
            self.assertEqual(outcome.problem, "the upstream went away without a close frame")
            self.assertRegex(str(outcome.detail), "^close 1011, ")

    async def test_client_that_ignores_it(self) -> None:
        """A client that does not answer that has its connection closed."""
        self.patch(session, "END_SECONDS", 0.0)
        pair = await self.open()
        pair.server.abort()
        self.assertEqual(await pair.client.rest(), ABNORMAL.frame(masked=False))

    async def test_client_vanishes(self) -> None:
        """A client that is gone without a close frame, half-closed or reset, is a masked 1001 upstream."""
        for vanish in (Stream.close, Stream.abort, lambda stream: stream.transport.loseWriteConnection()):
            pair = await self.open()
            await self.assert_passes(pair.client, pair.server, frame(TEXT, b"last words", key=KEY))
            vanish(pair.client)
            await self.assert_closed(pair.server, GOING_AWAY, masked=True)
            pair.server.write(close_frame(1001))
            pair.server.close()
            self.assertEqual(await pair.server.rest(), b"")
            outcome = await self.ended()
            self.assertEqual(outcome.problem, "the client went away without a close frame")
            self.assertRegex(
                str(outcome.detail), "^close 1006, 1 messages 16 bytes up, 0 messages 0 bytes down$"
            )

    async def test_upstream_that_ignores_it(self) -> None:
        """An upstream that does not answer that has its connection closed."""
        self.patch(session, "END_SECONDS", 0.0)
        pair = await self.open()
        pair.client.abort()
        await self.assert_closed(pair.server, GOING_AWAY, masked=True)
        self.assertEqual(await pair.server.rest(), b"")

    async def test_in_the_middle_of_a_long_frame(self) -> None:
        """Half of a long frame stays half: the other connection ends, with no frame inside that frame."""
        for first in (0, 1):
            pair = await self.open()
            source, target, key = list(both(pair))[first]
            whole, part = frame(TEXT, b"whole", key=key), frame(BINARY, bytes(100_000), key=key)[:50_000]
            source.write(whole + part)
            self.assertEqual(await target.exactly(len(whole + part)), whole + part)
            source.abort()
            self.assertEqual(await target.rest(), b"")
            await self.ended()

    async def test_queue_before_half_a_frame(self) -> None:
        """What came before it still arrives, although its reader was slow."""
        pair = await self.open()
        pair.client.transport.pauseProducing()
        whole = b"".join(frame(BINARY, bytes((number,)) * 50_000) for number in range(20))
        part = frame(BINARY, bytes(100_000))[:50_000]
        pair.server.write(whole + part)
        pair.server.close()
        await pair.server.gone()
        pair.client.transport.resumeProducing()
        self.assertEqual(await pair.client.rest(), whole + part)

    async def test_between_fragments(self) -> None:
        """Between the fragments of a message there is room for a close frame, and it comes."""
        for first, close in ((0, GOING_AWAY), (1, ABNORMAL)):
            pair = await self.open()
            source, target, key = list(both(pair))[first]
            await self.assert_passes(source, target, frame(TEXT, b"begun", fin=False, key=key))
            source.close()
            await self.assert_closed(target, close, masked=first == 0)
            target.close()
            await self.ended()

    async def test_upstream_that_was_held_back(self) -> None:
        """An upstream that cannot send, as the client does not read, still hears that the client is gone."""
        self.patch(session, "END_SECONDS", 1000.0)
        pair = await self.open()
        pair.client.transport.pauseProducing()
        pair.server.write(frame(BINARY, bytes(60_000)) * 300)
        self.assertGreater(await stuck(pair.server), 0)
        pair.client.abort()
        await self.assert_closed(pair.server, GOING_AWAY, masked=True)
        pair.server.close()
        await self.ended()


class BackpressureTests(WebSocketTestCase):
    """Whoever does not read stops who sends; nothing piles up in between."""

    async def test_stops_and_goes_on(self) -> None:
        """Sixteen MiB to a peer that does not read: the sender is stopped; then all arrives, in order."""
        pieces = [number.to_bytes(4, "big") * 8_192 for number in range(512)]
        for first in (0, 1):
            pair = await self.open()
            source, target, key = list(both(pair))[first]
            target.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            source.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
            target.transport.pauseProducing()
            data = b"".join(frame(BINARY, piece, key=key) for piece in pieces)
            source.write(data)
            self.assertGreater(await stuck(source), 1 << 20)
            current: Any = self.relays[-1]._session
            ours = (current._upstream.transport, current._channel.transport)[first]
            self.assertGreater(queued(ours), 0)
            self.assertLess(queued(ours), 1 << 18)
            target.transport.resumeProducing()
            self.assertTrue(await target.exactly(len(data)) == data)
            await self.assert_passes(target, source, frame(TEXT, b"got it", key=b"" if key else KEY))


async def stuck(stream: Stream) -> int:
    """How many bytes wait to be sent when no more of them go out."""
    left = queued(stream.transport)
    while True:
        await turns(100)
        before, left = left, queued(stream.transport)
        if before == left:
            return left


def queued(transport: Any) -> int:
    """How many bytes wait in a transport."""
    return int(len(transport.dataBuffer) - transport.offset + transport._tempDataLen)


class SiteTests(WebSocketTestCase):
    """Sessions beside other things."""

    async def test_http_beside_a_session(self) -> None:
        """Plain requests pass on the same port while a session is open, and the session does not mind."""

        async def script(stream: Stream) -> None:
            request = await read_request(stream)
            if request.get("upgrade"):
                stream.write(accepted(request))
                stream.write(frame(TEXT, (await read_frame(stream)).payload))
            else:
                respond(stream, 200, b"plain")

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url)
        client = await self.client(port)
        client.write(handshake())
        self.assertEqual((await read_head(client)).status, 101)
        self.assertEqual((await self.request(port, "GET", "/v1/models")).body, b"plain")
        client.write(frame(TEXT, b"still here", key=KEY))
        self.assertEqual(await read_frame(client), Frame(TEXT, b"still here"))

    async def test_after_other_requests(self) -> None:
        """A connection that served plain requests can become a WebSocket."""

        async def script(stream: Stream) -> None:
            while True:
                request = await read_request(stream)
                if request.get("upgrade"):
                    stream.write(accepted(request) + frame(TEXT, b"hello"))
                    return
                respond(stream, 200, b"plain")

        upstream = await self.upstream(script)
        client = await self.client(await self.proxy(upstream.url))
        client.write(handshake(()))
        self.assertEqual((await read_response(client, "GET")).body, b"plain")
        client.write(handshake())
        self.assertEqual((await read_head(client)).status, 101)
        self.assertEqual(await read_frame(client), Frame(TEXT, b"hello"))

    async def test_plain_site(self) -> None:
        """The resource relays WebSockets in a site that is not ours, too."""
        upstream, came = await self.accepting(lambda request: accepted(request) + frame(TEXT, b"early"))
        resource = ProxyResource(upstream.url, reactor=reactor, log=QUIET)
        site = Site(resource, reactor=reactor)
        site.noisy = False
        site.log = lambda request: None  # type: ignore[method-assign]
        pipelined = frame(TEXT, b"with the handshake", key=KEY)
        pair = await self.join(await self.listen(site), came, handshake() + pipelined)
        self.assertEqual(await pair.server.exactly(len(pipelined)), pipelined)
        self.assertEqual(await read_frame(pair.client), Frame(TEXT, b"early"))
        await self.assert_passes(pair.client, pair.server, frame(BINARY, bytes(100_000), key=KEY))
        await self.assert_passes(pair.server, pair.client, close_frame(1000))
        pair.client.write(close_frame(1000, client=True))
        self.assertEqual(await pair.client.rest(), b"")
        pair.server.close()
        await self.ended()


class TLSTests(WebSocketTestCase):
    """An upstream behind TLS."""

    async def secure(self, name: str, script: Callable[[Stream], Any]) -> int:
        """A proxy in front of a TLS upstream for localhost, which has a certificate for `name`."""
        authority = trustme.CA()
        issued = authority.issue_cert(name)
        path = self.mktemp()
        authority.cert_pem.write_to_path(path)
        trusting = mock.patch.dict(os.environ, {"SSL_CERT_FILE": path})
        trusting.start()
        self.addCleanup(trusting.stop)
        upstream = Upstream(script)
        chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
        options = PrivateCertificate.loadPEM(issued.private_key_pem.bytes() + chain).options()
        port = reactor.listenSSL(0, upstream.factory(), options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)

        def drop() -> None:
            for stream in upstream.connections:
                if stream.lost is None:
                    stream.abort()

        self.addCleanup(drop)
        return await self.proxy(f"https://localhost:{port.getHost().port}")

    async def test_session(self) -> None:
        """Frames pass both ways, long ones too, and the close."""
        big = os.urandom(300_000)

        async def script(stream: Stream) -> None:
            stream.write(accepted(await read_head(stream)) + frame(TEXT, b"early"))
            stream.write(frame(BINARY, (await read_frame(stream)).payload))
            await read_frame(stream)
            stream.write(close_frame(1000))
            stream.close()

        client = await self.client(await self.secure("localhost", script))
        client.write(handshake() + frame(BINARY, big, key=KEY))
        self.assertEqual((await read_head(client)).status, 101)
        self.assertEqual(await read_frame(client), Frame(TEXT, b"early"))
        self.assertEqual((await read_frame(client)).payload, big)
        client.write(close_frame(1000, client=True))
        self.assertEqual(await client.rest(), close_frame(1000))
        await self.ended()

    async def test_client_vanishes(self) -> None:
        """The upstream hears of a client that is gone."""
        heard: Deferred[Frame] = Deferred()

        async def script(stream: Stream) -> None:
            stream.write(accepted(await read_head(stream)))
            heard.callback(await read_frame(stream))
            stream.close()

        client = await self.client(await self.secure("localhost", script))
        client.write(handshake())
        await read_head(client)
        client.abort()
        self.assertEqual(await heard, Frame(CLOSE, GOING_AWAY.payload, masked=True))
        await self.ended()

    async def test_wrong_name(self) -> None:
        """A certificate for another name is a 502 that says so."""

        async def script(stream: Stream) -> None:
            await stream.rest()

        port = await self.secure("elsewhere.example", script)
        self.assert_error(await self.refused(port), 502, "upstream_error", "not for the name localhost")


class LogTests(WebSocketTestCase):
    """One line for each session, and nothing secret in it."""

    async def test_line(self) -> None:
        """Path, status, close code, messages and bytes each way; no query, subprotocol, cookie or payload."""
        events: list[Any] = []
        everything: list[Any] = []
        observer = cast(Any, everything.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        fields = [
            ("Sec-WebSocket-Protocol", "realtime, openai-insecure-api-key.secret"),
            ("Authorization", "Bearer secret"),
            ("Cookie", "secret"),
        ]
        answer = [("Sec-WebSocket-Protocol", "realtime"), ("Set-Cookie", "secret")]
        pair = await self.open(
            fields,
            target="/v1/realtime?key=secret",
            answer=lambda request: accepted(request, answer),
            log=RequestLog("debug", observer=cast(Any, events.append)),
        )
        await self.assert_passes(
            pair.client, pair.server, frame(TEXT, b"secret", key=KEY), frame(PING, key=KEY)
        )
        await self.assert_passes(pair.server, pair.client, frame(TEXT, b"secret") * 2)
        await self.assert_passes(pair.client, pair.server, close_frame(4000, "secret", client=True))
        await self.assert_passes(pair.server, pair.client, close_frame(1000))
        pair.server.close()
        await self.ended()
        (event,) = events
        line = event["log_format"].format(**event)
        self.assertRegex(
            line,
            r"^GET /v1/realtime 101 websocket http://127\.0\.0\.1:\d+ 20 bytes \d+ ms, "
            r"close 4000, 1 messages 32 bytes up, 2 messages 20 bytes down$",
        )
        self.assertNotIn("secret", repr(events) + repr(everything))

    async def test_refused_secrets(self) -> None:
        """Nor is a subprotocol told that the upstream should not have chosen, or that was offered twice."""
        secret = "openai-insecure-api-key.secret"
        for offer, choice in ((secret, "other"), (f"{secret}, {secret}", secret), ("realtime", secret)):
            events: list[Any] = []
            upstream, _ = await self.accepting(
                partial(accepted, headers=[("Sec-WebSocket-Protocol", choice)])
            )
            port = await self.proxy(upstream.url, log=RequestLog("debug", observer=cast(Any, events.append)))
            fields = [*HANDSHAKE, ("Sec-WebSocket-Protocol", offer)]
            response = await self.refused(port, handshake(fields))
            self.assertIn(response.status, (400, 502))
            self.assertEqual(len(events), 1)
            self.assertNotIn("secret", repr(events))
            self.assertNotIn(b"secret", response.body)
