"""First bytes of a connection, which tell other protocols from HTTP/1."""

from __future__ import annotations

from typing import Literal

Protocol = Literal["HTTP/2", "TLS"]

#: How many bytes tell.
ENOUGH = 16
_RESPONSE = b"HTTP/"
#: Types of a TLS record (RFC 8446 section 5.1): alert and handshake. The next byte is a major version, 3.
_RECORDS = (0x15, 0x16)
#: Types of an HTTP/2 frame (RFC 9113 section 6): SETTINGS comes first; some servers say only GOAWAY.
_FRAMES = (0x04, 0x07)
#: The number of its stream; the first bit is reserved.
_STREAM = 0x7FFFFFFF
_PREFACE = b"PRI * HTTP/2.0"


def foreign_protocol(data: bytes) -> Protocol | None:
    """Return the other protocol, if it is known, of a peer whose first bytes are `data`."""
    if data.startswith(_PREFACE):
        return "HTTP/2"
    if len(data) > 1 and data[0] in _RECORDS and data[1] == 3:
        return "TLS"
    # Length (3 bytes, at first below 64 KiB), type, flags, stream (4 bytes: none).
    if len(data) > 8 and data[0] == 0 and data[3] in _FRAMES and not int.from_bytes(data[5:9]) & _STREAM:
        return "HTTP/2"
    return None


def is_response(data: bytes) -> bool | None:
    """Report whether a response of HTTP/1 can begin with `data`; ``None`` if more bytes tell more."""
    if _RESPONSE.startswith(data[: len(_RESPONSE)]):
        return True
    # A foreign protocol deserves its name, for which one byte is not enough.
    more = data[0] in (0, *_RECORDS) and len(data) < ENOUGH and foreign_protocol(data) is None
    return None if more else False
