"""Heads that cannot be accepted."""

from __future__ import annotations

from twisted.internet.error import ConnectionDone

from tests.support.recording import RelayTestCase
from tests.support.wire import Message, read_response


class HeadTests(RelayTestCase):
    """Heads that cannot be accepted get an OpenAI-style error before anything is dialled."""

    async def refusal(self, *sent: bytes, status: int) -> Message:
        """Return the response to bytes that are not a request, while the client keeps sending."""
        _, port = await self.between()
        client = await self.client(port)
        for data in sent:
            client.write(data)
        response = await read_response(client)
        self.assertEqual((response.status, response.complete), (status, True))
        self.assertEqual(response.json()["error"]["type"], "invalid_request_error")
        self.assertEqual(response.get("connection"), "close")
        self.assertIsInstance((await client.gone()).value, ConnectionDone)
        self.assertEqual(self.server.connections, [])
        return response

    async def test_many_fields_too_large(self) -> None:
        """A head of more than 64 KiB in many fields is a 431."""
        fields = b"".join(b"X-%d: %b\r\n" % (number, b"x" * 1000) for number in range(300))
        await self.refusal(b"GET /v1/x HTTP/1.1\r\n", fields, status=431)

    async def test_one_line_too_long(self) -> None:
        """A line that never ends is a 431 too, be it a field or a request line."""
        await self.refusal(b"GET /v1/x HTTP/1.1\r\nX: ", b"x" * 2_000_000, status=431)
        await self.refusal(b"GET /", b"x" * 2_000_000, status=431)

    async def test_too_many_fields(self) -> None:
        """500 fields are accepted; more are a 431."""
        fields = b"".join(b"X-%d: x\r\n" % number for number in range(501))
        response = await self.refusal(b"GET /v1/x HTTP/1.1\r\n" + fields + b"\r\n", status=431)
        self.assertIn("fields", response.json()["error"]["message"])
        recorder, port = await self.between()
        await self.request(port, "GET", "/v1/x", headers=[(f"X-{number}", "x") for number in range(499)])
        self.assertEqual(len(recorder.last.headers), 500)

    async def test_large_head(self) -> None:
        """A head of just under 64 KiB is accepted."""
        recorder, port = await self.between()
        response = await self.request(port, "GET", "/v1/x", headers=[("X", "x" * 65_000)])
        self.assertEqual((response.status, len(recorder.last.get("x") or "")), (200, 65_000))

    async def test_other_protocols(self) -> None:
        """Clients that speak TLS or HTTP/2 are told so at once."""
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x01" * 50
        for sent, words in (
            ((hello,), "speaks TLS to a port without; use http:// in its base URL"),
            (tuple(hello[at : at + 1] for at in range(len(hello))), "speaks TLS"),
            ((b"\0\0\x12\4\0\0\0\0\0" + bytes(18),), "speaks HTTP/2"),
            ((b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",), "speaks HTTP/2"),
            ((b"PRI * HTTP/2.0\r", b"\n\r\nSM\r\n\r\n"), "speaks HTTP/2"),
        ):
            response = await self.refusal(*sent, status=400)
            self.assertIn(words, response.json()["error"]["message"])

    async def test_malformed(self) -> None:
        """Bytes that are not HTTP are a 400."""
        for data in [
            b"GET\r\n\r\n",
            b"GET /v1/x\r\n\r\n",
            b"GET  /v1/x HTTP/1.1\r\n\r\n",
            b"GET /v1/x HTTP/2.0\r\n\r\n",
            b"G@T /v1/x HTTP/1.1\r\n\r\n",
            b"GET /v1/x HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
            b"GET /v1/x HTTP/1.1\r\nHost: x\r\nno colon\r\nX: y\r\n\r\n",
            b"GET /v1/x HTTP/1.1\r\nHost: x\r\nBad Name: x\r\n\r\n",
            b"GET /v1/x HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        ]:
            await self.refusal(data, b"GET /v1/x HTTP/1.1\r\n\r\n" * 2, status=400)

    async def test_ambiguous_framing(self) -> None:
        """Two lengths, a length with chunks, or an unknown transfer coding are a 400, never a guess."""
        for framing in [
            b"Content-Length: 3\r\nContent-Length: 3\r\n",
            b"Content-Length: 3\r\nContent-Length: 4\r\n",
            b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            b"Transfer-Encoding: gzip, chunked\r\n",
            b"Content-Length: -1\r\n",
            b"Content-Length: 1_0\r\n",
            b"Content-Length: 0x10\r\n",
        ]:
            await self.refusal(b"POST /v1/x HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\nabc", status=400)

    async def test_malformed_body_of_a_refused_request(self) -> None:
        """One request gets one response, even if both its target and its body are malformed."""
        _, port = await self.between()
        client = await self.client(port)
        client.write(b"POST evil HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n")
        self.assertEqual((await client.rest()).count(b"HTTP/1.1"), 1)

    async def test_second_request_malformed(self) -> None:
        """A malformed request after a valid one is refused after the response to the valid one."""
        _, port = await self.between()
        client = await self.client(port)
        client.write(b"GET /v1/x HTTP/1.1\r\nHost: x\r\n\r\nrubbish\r\n\r\n")
        self.assertEqual((await read_response(client)).status, 200)
        self.assertEqual((await read_response(client)).status, 400)
        await client.gone()
