"""WebSocket frames (RFC 6455 section 5.2), followed by their headers alone: where they end, and close frames.

Payloads are neither unmasked, but for a close frame's, nor checked: that is the endpoints' affair.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

#: A frame with a payload of up to this many bytes goes out whole, or not at all.
WHOLE_BYTES = 65_536
#: The longest payload of a control frame (RFC 6455 section 5.5).
_MAX_CONTROL = 125
_CLOSE = 8


@dataclass(frozen=True, slots=True)
class Close:
    """A close frame's payload, unmasked: ``code`` and ``reason`` (UTF-8 as it came), or neither."""

    payload: bytes = b""

    @property
    def code(self) -> int | None:
        """The status code, if there is one (RFC 6455 section 7.4)."""
        return int.from_bytes(self.payload[:2], "big") if len(self.payload) >= 2 else None

    @property
    def legal(self) -> bool:
        """Whether an endpoint may send it (RFC 6455 sections 5.5 and 7.4)."""
        if not self.payload:
            return True
        code = self.code
        try:
            self.payload[2:].decode()
        except UnicodeDecodeError:
            return False
        return (
            len(self.payload) <= _MAX_CONTROL
            and code is not None
            and (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999)
        )

    @classmethod
    def of(cls, code: int, reason: str = "") -> Close:
        """A close with this code and reason."""
        return cls(code.to_bytes(2, "big") + reason.encode()[: _MAX_CONTROL - 2])

    def frame(self, *, masked: bool) -> bytes:
        """The frame that says so; a client's are masked with a key that nobody can foresee."""
        payload = self.payload[:_MAX_CONTROL]
        if not masked:
            return bytes((0x80 | _CLOSE, len(payload))) + payload
        key = os.urandom(4)
        return bytes((0x80 | _CLOSE, 0x80 | len(payload))) + key + _masked(payload, key)


class FrameTracker:
    """Follows the frames of one direction and says which bytes may go out.

    Arbitrary bytes never raise; what is held is at most one frame of `WHOLE_BYTES` with its header.
    """

    __slots__ = ("_ends_message", "_held", "_need", "_rest", "close", "messages", "octets")

    def __init__(self) -> None:
        self._held = bytearray()  # a frame that is not whole yet, or its header
        self._need = 0  # how much of it there has to be before it is worth a look
        self._rest = 0  # bytes of a long frame that are still to come
        self._ends_message = False
        #: The close frame, once one has passed. Nothing passes after it.
        self.close: Close | None = None
        #: Messages that have ended.
        self.messages = 0
        #: Bytes that went out.
        self.octets = 0

    @property
    def inside_frame(self) -> bool:
        """The beginning of a frame is out and its end is not: no other frame may go out now."""
        return self._rest > 0

    def feed(self, data: bytes) -> bytes:
        """Take what has come in, return what goes out: whole short frames, and of long ones what is there."""
        if self.close is not None:
            return b""
        if self._held:
            self._held += data
            if len(self._held) < self._need:
                return b""
            data = bytes(self._held)
            self._held.clear()
        end = self._follow(data)
        if end < len(data):
            if self.close is None:
                self._held += data[end:]
            data = data[:end]
        self.octets += len(data)
        return data

    def _follow(self, data: bytes) -> int:
        """Where the part of `data` ends that may go out."""
        at, size = 0, len(data)
        while True:
            if self._rest:
                taken = min(self._rest, size - at)
                self._rest -= taken
                at += taken
                if self._rest:
                    return at
                self.messages += self._ends_message
            if size - at < 2:
                self._need = 2
                return at
            first, second = data[at], data[at + 1]
            length = second & 0x7F
            header = 2
            if length == 126:
                header = 4
            elif length == 127:
                header = 10
            head_end = at + header + (4 if second & 0x80 else 0)
            if head_end > size:
                self._need = head_end - at
                return at
            if header > 2:
                length = int.from_bytes(data[at + 2 : at + header], "big")
            self._ends_message = first & 0x88 == 0x80
            if length > WHOLE_BYTES:
                self._rest = length
                at = head_end
                continue
            end = head_end + length
            if end > size:
                self._need = end - at
                return at
            at = end
            self.messages += self._ends_message
            if first & 0x0F == _CLOSE:
                payload = data[head_end:end]
                if second & 0x80:
                    payload = _masked(payload, data[head_end - 4 : head_end])
                self.close = Close(payload[: _MAX_CONTROL + 1])
                return at


def _masked(payload: bytes, key: bytes) -> bytes:
    """`payload` with the mask laid over it, or taken off again (RFC 6455 section 5.3)."""
    return bytes(byte ^ key[place & 3] for place, byte in enumerate(payload))
