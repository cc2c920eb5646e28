"""Peers of connections, as the log names them."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.transport.peer import peer_host


class PeerTests(SynchronousTestCase):
    """:func:`peer_host`."""

    def test_hosts(self) -> None:
        """An address has no port, and an IPv4 address is written as one on a socket of both families."""
        for address, host in (
            (IPv4Address("TCP", "10.0.0.7", 1), "10.0.0.7"),
            (IPv6Address("TCP", "::ffff:10.0.0.7", 1), "10.0.0.7"),
            (IPv6Address("TCP", "2001:db8::7", 1), "2001:db8::7"),
            (UNIXAddress(None), "unix"),
            (object(), "-"),
        ):
            self.assertEqual(peer_host(StringTransport(peerAddress=address)), host)
        self.assertEqual(peer_host(None), "-")
