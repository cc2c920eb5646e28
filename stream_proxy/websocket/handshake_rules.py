"""Rules of the WebSocket handshake that hold on both sides, and the words for breaking them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from stream_proxy.http.headers import RawHeader
from stream_proxy.http.upgrade import _HANDSHAKE

VERSION = 13


#: Where autobahn's words quote what was sent: keys travel in these fields, and its words reach the log.
_QUOTED = re.compile(r': expected |:? "(?!websocket"|upgrade").*', re.DOTALL)


#: What is left of these says too little.
_CLEARER = {
    "duplicate protocol": "Sec-WebSocket-Protocol names one twice",
    "subprotocol selected by server": "it chose a subprotocol that was not offered",
    "server wants to use extension": "it chose an extension that was not offered",
}


class HandshakeError(Exception):
    """A handshake that is not one; the text says what is wrong with it."""


def without_values(reason: str) -> str:
    """autobahn's `reason` for a failed handshake, without what it quotes from it."""
    words = _QUOTED.split(reason, maxsplit=1)[0]
    return _CLEARER.get(words, words)


def judged_fields(headers: Iterable[RawHeader]) -> Iterator[bytes]:
    """The lines that autobahn is to judge.

    It would join and decode the others, and take offence at some origins and hosts.
    """
    for name, value in headers:
        lower = name.lower()
        if lower in (b"upgrade", b"connection") or lower.startswith(_HANDSHAKE):
            yield name + b": " + value
