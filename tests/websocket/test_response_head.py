"""Heads of responses to a handshake: which one decides, and how long they may be."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.websocket.handshake_rules import HandshakeError
from stream_proxy.websocket.response_head import ResponseHead, Switching

SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nX-A:  1 \r\nX-B : \xff\r\n\r\n"
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


class ResponseHeadTests(SynchronousTestCase):
    """One reader for each response."""

    def setUp(self) -> None:
        self.head = ResponseHead(200, 3)

    def test_switching(self) -> None:
        """A 101 is found after interim responses, byte by byte, with its fields and what follows."""
        for byte in EARLY + SWITCHING[:-1]:
            self.assertIsNone(self.head.feed(bytes((byte,))))
        found = self.head.feed(SWITCHING[-1:] + b"frame")
        fields = [(b"Upgrade", b"websocket"), (b"X-A", b"1"), (b"X-B", b"\xff")]
        self.assertEqual(found, Switching(b"HTTP/1.1 101 Switching Protocols", fields, b"frame"))

    def test_doubtful(self) -> None:
        """A 101 with a line that another reader could read in another way is refused, wherever it stands."""
        for line in (
            b"X-A: a\nSet-Cookie: sid=evil",
            b"X-A: a\rSet-Cookie: sid=evil",
            b"X-A: a\0b",
            b"X-A: a\x1b[2Jb",
            b"X-A: a\x7f",
            b"X-A: a\x0b",
            b"X A: a",
            b"X-A\x00: a",
            b"X(A): a",
            b"X-\xe9: a",
            b": a",
            b"nonsense",
            b" X-B: b",
            b"\tb",
            b"X-A: a\r\n X-B: b",
        ):
            for before, after in ((b"", b"\r\nX: y"), (b"X: y\r\n", b"")):
                data = b"HTTP/1.1 101 Switching Protocols\r\n" + before + line + after + b"\r\n\r\n"
                error = self.assertRaises(HandshakeError, ResponseHead(200, 4).feed, data)
                self.assertEqual(str(error), "its head has a field that is not valid HTTP", line)
        for line in (b"HTTP/1.1 101 a\rSet-Cookie: b", b"HTTP/1.1 101 \0", b"HTTP/3 101 Hm", b"HTTPS 101 Hm"):
            error = self.assertRaises(HandshakeError, ResponseHead(200, 4).feed, line + b"\r\nX: y\r\n\r\n")
            self.assertIn("status line", str(error))

    def test_ordinary(self) -> None:
        """Any other response is returned as it came, from its status line on."""
        for line in (b"HTTP/1.1 200 OK\r\nX", b"HTTP/1.1 1010 No\r\n", b"nonsense\n", b"x\n"):
            head = ResponseHead(200, 3)
            self.assertIsNone(head.feed(EARLY + line[:1]))
            self.assertEqual(head.feed(line[1:]), line)

    def test_too_many_bytes(self) -> None:
        """Interim responses count, and so does what another parser reads; what follows a head does not."""
        self.assertIsInstance(self.head.feed(EARLY + SWITCHING + bytes(1000)), Switching)
        for data in (EARLY * 6, b"x" * 201, SWITCHING[:-2] + b"x" * 200):
            self.assertRaises(HandshakeError, ResponseHead(200, 3).feed, data)
        head = ResponseHead(200, 3)
        head.feed(EARLY + b"HTTP/1.1 200 OK\r\n")
        head.pass_on(200 - len(EARLY))
        self.assertRaises(HandshakeError, head.pass_on, 1)

    def test_too_many_fields(self) -> None:
        """A 101 may have as many fields as the bound says."""
        self.assertRaises(HandshakeError, ResponseHead(200, 2).feed, SWITCHING)
