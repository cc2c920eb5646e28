"""Upgrade to a WebSocket: which requests ask for it, and which header fields belong to its handshake."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stream_proxy.http.headers import RawHeader, connection_tokens, response_headers

_HANDSHAKE_PREFIX = b"sec-websocket-"


def wants_websocket(method: bytes, headers: Sequence[RawHeader]) -> bool:
    """Report whether a request asks for a WebSocket: a GET whose ``Upgrade`` and ``Connection`` say so."""
    if method != b"GET":
        return False
    upgrade = [value for name, value in headers if name.lower() == b"upgrade"]
    if not upgrade or b"websocket" not in connection_tokens(upgrade):
        return False
    connection = [value for name, value in headers if name.lower() == b"connection"]
    return b"upgrade" in connection_tokens(connection)


def is_handshake_field(name: bytes) -> bool:
    """Report whether the field `name` belongs to the handshake alone (RFC 6455 section 11.3)."""
    return name.lower().startswith(_HANDSHAKE_PREFIX)


def switching_headers(headers: Iterable[RawHeader]) -> list[RawHeader]:
    """Return the fields of an upstream's 101 that go to the client.

    A 101 has no body (RFC 9110 section 8.6), so what frames one would only mislead whoever reads it.
    """
    fields = without_handshake(response_headers(headers))
    return [field for field in fields if field[0].lower() != b"content-length"]


def without_handshake(headers: Iterable[RawHeader]) -> list[RawHeader]:
    """Return the fields that do not belong to the handshake alone."""
    return [field for field in headers if not is_handshake_field(field[0])]
