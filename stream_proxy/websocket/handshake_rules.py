"""Rules that hold for both WebSocket handshakes (RFC 6455 section 4), and the wording of their errors."""

from __future__ import annotations

import re
from collections.abc import Iterable

from stream_proxy.http.headers import RawHeader
from stream_proxy.http.upgrade import is_handshake_field

#: The only version of the protocol (RFC 6455 section 4.1), as ``Sec-WebSocket-Version`` names it.
VERSION = 13

#: The part of autobahn's messages that quotes the peer. These fields carry API keys (browsers cannot set
#: ``Authorization``, so OpenAI takes the key as a subprotocol), and the messages reach the log.
_QUOTED = re.compile(r""": expected |:? ["'](?!websocket"|upgrade").*""", re.DOTALL)

#: Clearer words for messages that mean little without the quoted part.
_CLEARER = {
    "duplicate protocol": "Sec-WebSocket-Protocol names one twice",
    "subprotocol selected by server": "it chose a subprotocol that was not offered",
}


class HandshakeError(Exception):
    """An invalid handshake; the text explains the fault and quotes nothing."""


def without_values(reason: str) -> str:
    """Return autobahn's `reason` for a failed handshake without the parts that quote the handshake."""
    words = _QUOTED.split(reason, maxsplit=1)[0]
    return _CLEARER.get(words, words)


def head_for_autobahn(start_line: bytes, headers: Iterable[RawHeader], *more: bytes) -> bytes:
    """Return a head with only those of `headers` that autobahn should check, and the lines `more`.

    autobahn joins repeated fields and decodes all of them, and it rejects some values of ``Origin`` and
    ``Host`` that are not the proxy's to judge.
    """
    lines = [start_line, *more]
    for name, value in headers:
        if name.lower() in (b"upgrade", b"connection") or is_handshake_field(name):
            lines.append(name + b": " + value)
    return b"\r\n".join([*lines, b"", b""])
