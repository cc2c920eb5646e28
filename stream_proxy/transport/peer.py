"""Peer of a connection, as the log names it."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import UNIXAddress

#: Where a socket of both families shows an IPv4 address.
_MAPPED = "::ffff:"


def peer_host(transport: Any) -> str:
    """Return the address of the peer without its port: that of the PROXY protocol where it is spoken.

    It is ``"unix"`` for a UNIX socket, whose clients have none, and ``"-"`` where it is unknown.
    """
    address = transport.getPeer() if transport is not None else None
    host = getattr(address, "host", None)
    if isinstance(host, str) and host:
        return host.removeprefix(_MAPPED) if "." in host else host
    return "unix" if isinstance(address, UNIXAddress) else "-"
