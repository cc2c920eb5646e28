"""WebSocket frames and handshakes (RFC 6455), for both ends."""

from __future__ import annotations

import asyncio
import base64
import hashlib

TEXT, CLOSE = 1, 8
#: The client's handshake key.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def switching(key: str) -> bytes:
    """Return the 101 response to a handshake with this key."""
    digest = base64.b64encode(hashlib.sha1(f"{key}{_GUID}".encode()).digest()).decode()
    lines = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {digest}")
    return "\r\n".join(["HTTP/1.1 101 Switching Protocols", *lines, "", ""]).encode()


def frame(opcode: int, payload: bytes, *, masked: bool) -> bytes:
    """Return a frame; a client's frame has a mask that changes nothing."""
    size, mask = len(payload), 0x80 if masked else 0
    if size > 0xFFFF:
        length = bytes((mask | 127,)) + size.to_bytes(8, "big")
    elif size > 125:
        length = bytes((mask | 126,)) + size.to_bytes(2, "big")
    else:
        length = bytes((mask | size,))
    return bytes((0x80 | opcode,)) + length + (bytes(4) if masked else b"") + payload


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read the next frame; return its opcode and payload.

    :raises asyncio.IncompleteReadError: if there is none.
    """
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    if size > 125:
        size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
    key = await reader.readexactly(4) if second & 0x80 else bytes(4)
    payload = await reader.readexactly(size)
    if any(key):
        payload = bytes(byte ^ key[place & 3] for place, byte in enumerate(payload))
    return first & 0x0F, payload
