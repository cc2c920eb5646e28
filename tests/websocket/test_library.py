"""WebSockets between client and server of the library `websockets`."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close as LibraryClose
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from tests.support.loopback import in_thread
from tests.support.sessions import (
    KEY,
    TEXT,
    WebSocketTestCase,
    frame,
    handshake,
    read_frame,
)
from tests.support.wire import read_head


class LibraryTestCase(WebSocketTestCase):
    """Client and server of the library `websockets`, with the proxy in between."""

    async def served(self, handler: Callable[[ServerConnection], None], **kwargs: Any) -> int:
        """Run the library's server behind a proxy, and return the proxy's port."""
        server = serve(handler, "127.0.0.1", 0, max_size=None, **kwargs)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def stop() -> None:
            server.shutdown()
            thread.join()

        self.addCleanup(lambda: in_thread(stop))
        return await self.proxy(f"http://127.0.0.1:{server.socket.getsockname()[1]}")

    async def talk(self, port: int, call: Callable[[ClientConnection], Any], **kwargs: Any) -> Any:
        """Open a session with the library's client, and return the result of `call` with it."""

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
    """Sessions as applications see them."""

    async def test_messages(self) -> None:
        """Text, binary and empty messages, and one frame of 1 MiB, are echoed unchanged."""
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
        """A fragmented message with pings in between arrives as one message."""
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
        """The other end replies to a ping, not the proxy."""
        port = await self.served(echo)
        self.assertTrue(await self.talk(port, lambda client: client.ping(b"mine").wait(5)))

    async def test_compression_is_not_negotiated(self) -> None:
        """Compression is not negotiated although both ends support it: the offer is not forwarded."""
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
        """The server chooses among one or several offers, API keys among them."""

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
        """Close code and reason reach the other end, and its reply comes back."""
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
        """A refused handshake raises the library's own exception, with status and body."""

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
        """Fifty concurrent sessions are kept apart."""
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
