"""Upgrade to a WebSocket: who asks for one, and which header fields belong to its handshake."""

from __future__ import annotations

from collections.abc import Iterable

from stream_proxy.http.headers import RawHeader, connection_tokens

_HANDSHAKE = b"sec-websocket-"


def wants_websocket(method: bytes, headers: Iterable[RawHeader]) -> bool:
    """Whether a request asks for a WebSocket: a GET whose ``Upgrade`` and ``Connection`` say so."""
    upgrade: list[bytes] = []
    connection: list[bytes] = []
    for name, value in headers:
        lower = name.lower()
        if lower == b"upgrade":
            upgrade.append(value)
        elif lower == b"connection":
            connection.append(value)
    return (
        method == b"GET"
        and b"websocket" in connection_tokens(upgrade)
        and b"upgrade" in connection_tokens(connection)
    )


def without_handshake(headers: Iterable[RawHeader]) -> list[RawHeader]:
    """The fields that are not the handshake's own."""
    return [(name, value) for name, value in headers if not name.lower().startswith(_HANDSHAKE)]
