"""TCP ports: whether one is free, and how many connections may wait on it."""

from __future__ import annotations

import socket

#: How many connections may wait to be accepted.
BACKLOG = 1024


def probe(port: int, interface: str) -> None:
    """See that nobody else listens on a port, which shared sockets would not notice.

    :raises OSError: somebody does, or the port cannot be had.
    """
    with socket.socket(address_family(interface), socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((interface, port))
        listener.listen(1)


def address_family(interface: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in interface else socket.AF_INET
