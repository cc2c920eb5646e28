"""Tests of sockets that listen."""

from __future__ import annotations

import socket
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.service.listening import any_interface, open_listener
from stream_proxy.transport.ports import probe


class _OnlySocket(socket.socket):
    """A socket as the system makes it where ``net.ipv6.bindv6only`` is 1."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.family == socket.AF_INET6 and "fileno" not in options:
            self.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)


class BothFamiliesTests(SynchronousTestCase):
    """IPv4 and IPv6 on one port, whatever the system's default is."""

    def setUp(self) -> None:
        if any_interface() != "::":
            self.skipTest("there is no IPv6 here")
        self.patch(socket, "socket", _OnlySocket)

    def test_accepts_both(self) -> None:
        """A listener on ``::`` accepts IPv4, too, on each of its sockets."""
        listener = open_listener(r"tcp:0:interface=\:\:", 2)
        self.addCleanup(listener.close)
        for each in listener.sockets:
            self.assertEqual(each.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY), 0)
            port = each.getsockname()[1]
            for host in ("127.0.0.1", "::1"):
                socket.create_connection((host, port)).close()

    def test_probe(self) -> None:
        """A port that somebody uses for IPv4 alone is not free for both."""
        with socket.socket() as other:
            other.bind(("0.0.0.0", 0))
            other.listen()
            self.assertRaises(OSError, probe, other.getsockname()[1], "::")

    def test_none(self) -> None:
        """Where sockets cannot accept both, a rule listens on IPv4."""

        class Stubborn(_OnlySocket):
            def setsockopt(self, level: int, *rest: Any) -> None:
                if level == socket.IPPROTO_IPV6 and rest[1] == 0:
                    raise OSError("not here")
                super().setsockopt(level, *rest)

        self.patch(socket, "socket", Stubborn)
        self.assertEqual(any_interface(), "")
