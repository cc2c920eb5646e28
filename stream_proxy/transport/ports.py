"""TCP ports: whether one is free, and how many connections may wait on it."""

from __future__ import annotations

import socket

#: How many connections may wait to be accepted.
BACKLOG = 1024


def probe(port: int, interface: str) -> None:
    """Check that nothing else listens on a port, which binding with ``SO_REUSEPORT`` would not notice.

    :raises OSError: the port is in use or cannot be bound.
    """
    with tcp_socket(interface) as server:
        server.bind((interface, port))
        server.listen(1)


def tcp_socket(interface: str) -> socket.socket:
    """Return a TCP socket for listening on `interface`; on ``::`` it will accept IPv4, too.

    :raises OSError: the system has no such sockets.
    """
    server = socket.socket(address_family(interface), socket.SOCK_STREAM)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if server.family == socket.AF_INET6:
            # The default is the administrator's: net.ipv6.bindv6only on Linux.
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    except OSError:
        server.close()
        raise
    return server


def address_family(interface: str) -> socket.AddressFamily:
    """Return the family of a numeric address; the empty one is IPv4's."""
    return socket.AF_INET6 if ":" in interface else socket.AF_INET
