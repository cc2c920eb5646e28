"""Tests of the health checks."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.downstream.site import ProxySite
from stream_proxy.request_log import RequestLog
from stream_proxy.service.admin.access import AdminAccess
from stream_proxy.service.admin.health import serve_health
from stream_proxy.service.admin.router import AdminResource


class AdminBodyTests(SynchronousTestCase):
    """Bodies, which nothing on this port needs."""

    def sent(self, head: bytes) -> tuple[Any, Any]:
        """Send a request's head, and return the transport and the channel."""
        clock: Any = Clock()
        resource = AdminResource(clock, AdminAccess(), RequestLog())
        serve_health(resource, lambda: "ready")
        site = ProxySite(resource, reactor=clock, idle_seconds=60)
        channel: Any = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        transport: Any = StringTransport()
        transport.abortConnection = transport.loseConnection
        channel.makeConnection(transport)
        channel.dataReceived(head)
        return transport, channel

    def test_refused(self) -> None:
        """A body is neither waited for nor kept, in memory or in a file, however it is framed."""
        for framing in (b"Content-Length: 100000000000", b"Transfer-Encoding: chunked"):
            for line, status in (
                (b"POST /healthz", b"405"),
                (b"PUT /x", b"404"),
                (b"GET /healthz", b"200"),
                (b"HEAD /readyz", b"200"),
            ):
                transport, channel = self.sent(
                    line + b" HTTP/1.1\r\nHost: localhost\r\n" + framing + b"\r\n\r\n"
                )
                answer: bytes = transport.value()
                self.assertEqual(answer[9:12], status)
                self.assertIn(b"Connection: close\r\n", answer)
                self.assertEqual(channel.requests, [])
                for _ in range(64):
                    channel.dataReceived(b"x" * 65536)
                self.assertEqual((transport.value(), channel._dataBuffer), (answer, []))
                self.assertFalse(channel._buffer)

    def test_kept(self) -> None:
        """A connection without bodies is kept."""
        transport, channel = self.sent(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2)
        channel.site.reactor.advance(0)  # the second request has a turn of its own
        self.assertEqual(transport.value().count(b'{"status":"ok"}'), 2)
        self.assertNotIn(b"close", transport.value())
        channel.setTimeout(None)
