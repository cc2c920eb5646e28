"""Connections of relayed requests: kept, shared or closed, on both legs."""

from __future__ import annotations

from tests.support.recording import OK, RelayTestCase
from tests.support.wire import head, read_response


class ConnectionTests(RelayTestCase):
    """Connections are kept or closed as either end asks."""

    async def test_reuse(self) -> None:
        """Consecutive requests of different clients share an upstream connection."""
        recorder, port = await self.between()
        for _ in range(3):
            self.assertEqual((await self.request(port, "GET", "/v1/x")).status, 200)
        self.assertEqual((len(recorder.requests), len(self.server.connections)), (3, 1))

    async def test_client_keep_alive(self) -> None:
        """One client connection carries several requests, with and without bodies."""
        recorder, port = await self.between()
        client = await self.client(port)
        for body in [b"", b"abc", b""]:
            client.write(b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            response = await read_response(client)
            self.assertEqual((response.body, response.get("connection")), (b"ok", None))
        self.assertEqual([message.body for message in recorder.requests], [b"", b"abc", b""])

    async def test_pipelined(self) -> None:
        """Pipelined requests are answered in order."""
        recorder, port = await self.between()
        client = await self.client(port)
        one = b"POST /v1/%d HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n%d\n"
        client.write(b"".join(one % (number, number) for number in range(5)))
        for _ in range(5):
            self.assertEqual((await read_response(client)).status, 200)
        self.assertEqual([message.target for message in recorder.requests], [f"/v1/{n}" for n in range(5)])

    async def test_client_asks_to_close(self) -> None:
        """``close`` in the client's Connection field, in any case and position, closes after the response."""
        _, port = await self.between()
        for value in [b"close", b"Close", b"close, x", b"x,CLOSE", b"x\r\nConnection: close"]:
            client = await self.client(port)
            client.write(b"GET /v1/x HTTP/1.1\r\nHost: x\r\nConnection: " + value + b"\r\n\r\n")
            response = await read_response(client)
            self.assertEqual((response.body, response.all("connection")), (b"ok", ["close"]), value)
            await client.gone()

    async def test_close_is_announced_with_a_length_only(self) -> None:
        """A response in chunks, which may still be cut off, does not announce the close that follows it."""
        for response, announced in (
            (head(200, [("Transfer-Encoding", "chunked")]) + b"2\r\nok\r\n0\r\n\r\n", []),
            (head(200, [("Content-Length", "2")]) + b"ok", ["close"]),
            (head(204), ["close"]),
        ):
            _, port = await self.between(response)
            client = await self.client(port)
            client.write(b"GET /v1/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            self.assertEqual((await read_response(client)).all("connection"), announced)
            await client.gone()

    async def test_upstream_asks_to_close(self) -> None:
        """An upstream connection whose response said ``close``, in any case and position, is not reused."""
        for value in ["close", "Close", "x, close", "CLOSE ,x"]:
            response = head(200, [("Connection", value), ("Content-Length", "2")]) + b"ok"
            recorder, port = await self.between(response)
            for _ in range(2):
                got = await self.request(port, "GET", "/v1/x")
                self.assertEqual((got.body, got.get("connection")), (b"ok", None))
            self.assertEqual((len(recorder.requests), len(self.server.connections)), (2, 2), value)

    async def test_old_upstream(self) -> None:
        """An upstream connection with an HTTP/1.0 response is closed unless that said keep-alive."""
        for field, count in [("", 2), ("Connection: Keep-Alive\r\n", 1)]:
            _, port = await self.between(f"HTTP/1.0 200 OK\r\n{field}Content-Length: 2\r\n\r\nok".encode())
            for _ in range(2):
                self.assertEqual((await self.request(port, "GET", "/v1/x")).body, b"ok")
            self.assertEqual(len(self.server.connections), count)

    async def test_bytes_after_a_response(self) -> None:
        """An upstream connection on which bytes follow the response is not reused."""
        _, port = await self.between(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        for _ in range(2):
            self.assertEqual((await self.request(port, "GET", "/v1/x")).body, b"ok")
        self.assertEqual(len(self.server.connections), 2)

    async def test_cookies_never_meet(self) -> None:
        """The proxy itself never sends a cookie that the upstream has set, for any client."""
        recorder, port = await self.between(head(200, [("Set-Cookie", "sid=alice"), ("Content-Length", "0")]))
        first = await self.request(port, "GET", "/v1/x")
        self.assertEqual(first.all("set-cookie"), ["sid=alice"])
        await self.request(port, "GET", "/v1/x", headers=[("Cookie", "sid=bob")])
        await self.request(port, "GET", "/v1/x")
        self.assertEqual([message.all("cookie") for message in recorder.requests], [[], ["sid=bob"], []])
