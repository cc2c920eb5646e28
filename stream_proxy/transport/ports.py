"""TCP ports: whether one is free, and how many connections may wait on it."""

from __future__ import annotations

import socket

#: How many connections may wait to be accepted.
BACKLOG = 1024


def probe(port: int, interface: str) -> None:
    """Check that nothing else listens on a port, which binding with ``SO_REUSEPORT`` would not notice.

    :raises OSError: the port is in use or cannot be bound.
    """
    with socket.socket(address_family(interface), socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((interface, port))
        server.listen(1)


def address_family(interface: str) -> socket.AddressFamily:
    """Return the family of a numeric address; the empty one is IPv4's."""
    return socket.AF_INET6 if ":" in interface else socket.AF_INET
