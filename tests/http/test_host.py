"""Tests of Host fields: which are valid, and what they name."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.http.host import host_fault, is_address, parse_authority
from tests.support.recording import RelayTestCase
from tests.support.wire import Message, read_response

INVALID = (
    b"",
    b"a b",
    b"a, b",
    b"a,b",
    b"a/b",
    b"a/b@c",
    b"user@a",
    b"http://a",
    b"a?b",
    b"a#b",
    b"a\\b",
    b"a\tb",
    b"<a>",
    b'"a"',
    b"a%",
    b"a%2",
    b"a%zz",
    b"\xc3\xa9.example",
    b"\xff",
    b":80",
    b"a:b",
    b"a:80:90",
    b"a:-1",
    b"a:+1",
    b"a:65536",
    b"a:080000",
    b"::1",
    b"[::1",
    b"::1]",
    b"[]",
    b"[::1]x",
    b"[1.2.3.4]",
    b"[:::]",
    b"[::1]:x",
    b"[v1.x]",
)


class AuthorityTests(SynchronousTestCase):
    """Values of ``Host``."""

    def test_valid(self) -> None:
        """Names, addresses and ports are told apart; case, brackets and the root's dot do not matter."""
        for value, expected in (
            (b"Api.Example", ("api.example", None)),
            (b"api.example.:8080", ("api.example", 8080)),
            (b"localhost:", ("localhost", None)),
            (b"my_service:8080", ("my_service", 8080)),
            (b"xn--bcher-kva.example", ("xn--bcher-kva.example", None)),
            (b"a%20b", ("a%20b", None)),
            (b"127.0.0.1:65535", ("127.0.0.1", 65535)),
            (b"[::1]:8080", ("::1", 8080)),
            (b"[2001:DB8:0::1]", ("2001:db8::1", None)),
            (b"[fe80::1%25eth0]:1", ("fe80::1", 1)),
            (b"[fe80::1%eth0]", ("fe80::1", None)),
            (b"[::ffff:127.0.0.1]", (str(IPv6Address("::ffff:127.0.0.1")), None)),
        ):
            self.assertEqual(parse_authority(value), expected)

    def test_invalid(self) -> None:
        """Everything that RFC 3986 does not allow is no authority, nor are two names joined by a comma."""
        for value in INVALID:
            self.assertIsNone(parse_authority(value), value)

    @given(st.ip_addresses(), st.none() | st.integers(0, 65_535))
    def test_addresses(self, address: IPv4Address | IPv6Address, port: int | None) -> None:
        """Every IP address is understood and known as one."""
        text = f"[{address}]" if address.version == 6 else str(address)
        parsed = parse_authority((text if port is None else f"{text}:{port}").encode())
        self.assertEqual(parsed, (str(address), port))
        self.assertTrue(is_address(str(address)))

    @given(st.binary(max_size=20))
    def test_anything(self, value: bytes) -> None:
        """Arbitrary bytes are an authority or not, without any other end."""
        parsed = parse_authority(value)
        if parsed is not None:
            self.assertNotIn(b",", value)
            self.assertTrue(parsed[0])

    def test_names_like_addresses(self) -> None:
        """Names that only begin or end like an address are none, nor are addresses that a resolver makes."""
        for name in ("127.0.0.1.nip.io", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "1.2.3.4x"):
            self.assertFalse(is_address(name), name)

    def test_versions(self) -> None:
        """Only HTTP/1.0 may do without the field."""
        self.assertIsNone(host_fault([], b"HTTP/1.0"))
        self.assertIsNone(host_fault([b"a"], b"HTTP/1.0"))
        for values, version in (
            ([], b"HTTP/1.1"),
            ([b"a", b"a"], b"HTTP/1.1"),
            ([b"a", b"b"], b"HTTP/1.0"),
            ([b"a b"], b"HTTP/1.0"),
        ):
            error = host_fault(values, version)
            assert error is not None
            self.assertEqual((error.status, error.code), (400, "invalid_host"))


class RequestTests(RelayTestCase):
    """Requests over real connections."""

    async def ask(self, port: int, head: bytes) -> Message:
        """Return the response to a head, on a connection of its own."""
        client = await self.client(port)
        client.write(head)
        return await read_response(client, "GET")

    async def test_refused(self) -> None:
        """A request without one valid Host gets a 400 in OpenAI's form, and nothing goes upstream."""
        _, port = await self.between()
        websocket = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        for fields in (
            b"",
            websocket,
            b"Host: a\r\nHost: a\r\n",
            b"Host:\r\n",
            b"Host: a\r\nhost: b\r\n",
            b"X-Forwarded-Host: a\r\n",
            *(b"Host: %b\r\n" % value for value in (b"a b", b"a, b", b"a/b@c", b"a:b", b"[::1", b"\xff")),
        ):
            response = await self.ask(port, b"GET /v1/x HTTP/1.1\r\n" + fields + b"\r\n")
            error = response.json()["error"]
            self.assertEqual((response.status, error["type"]), (400, "invalid_request_error"))
            self.assertEqual((error["code"], error["param"]), ("invalid_host", None))
            self.assertEqual(response.get("connection"), "close")
        self.assertEqual(self.server.connections, [])

    async def test_absolute_form(self) -> None:
        """A target with a host of its own does not make up for a missing field."""
        _, port = await self.between()
        response = await self.ask(port, b"GET http://a/v1/x HTTP/1.1\r\n\r\n")
        self.assertEqual(response.status, 400)

    async def test_accepted(self) -> None:
        """Every valid Host passes, and so does HTTP/1.0 without one."""
        _, port = await self.between()
        for head in (
            b"HTTP/1.0\r\n",
            b"HTTP/1.0\r\nHost: a\r\n",
            b"HTTP/1.1\r\nhost:\tA.example:1 \r\n",
            b"HTTP/1.1\r\nHost: [::1]:8080\r\n",
            b"HTTP/1.1\r\nHost: my_service\r\n",
        ):
            self.assertEqual((await self.ask(port, b"GET /v1/x " + head + b"\r\n")).status, 200, head)
