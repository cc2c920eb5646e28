"""WebSocket frames (RFC 6455 section 5.2): their boundaries, found by reading headers, and control frames.

Payloads are neither unmasked nor checked, except a control frame's: the endpoints check them anyway.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

#: A frame with a payload of up to this many bytes is forwarded whole, or not at all: if its sender vanishes
#: meanwhile, a close frame can still follow. Longer frames would cost too much memory per session.
WHOLE_BYTES = 65_536
#: The longest payload of a control frame (RFC 6455 section 5.5).
_MAX_CONTROL = 125
_CLOSE, _PING, _PONG = 8, 9, 10


@dataclass(frozen=True, slots=True)
class Close:
    """Unmasked payload of a close frame: a code and a reason in UTF-8, or nothing."""

    payload: bytes = b""

    @property
    def code(self) -> int | None:
        """Status code, if there is one (RFC 6455 section 7.4)."""
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
        """Make a close frame's payload from a code and a reason."""
        return cls(code.to_bytes(2, "big") + reason.encode()[: _MAX_CONTROL - 2])

    def frame(self, *, masked: bool) -> bytes:
        """Return the frame; a client's is masked with an unpredictable key (RFC 6455 section 5.3)."""
        return _control_frame(_CLOSE, self.payload[:_MAX_CONTROL], masked=masked)


def ping_frame(payload: bytes, *, masked: bool) -> bytes:
    """Return a ping frame with up to 125 bytes of payload."""
    return _control_frame(_PING, payload, masked=masked)


class FrameTracker:
    """Tracker of the frames in one direction, which decides the bytes that may be forwarded.

    Arbitrary bytes never raise, and at most one frame of `WHOLE_BYTES` with its header is held back.
    """

    __slots__ = (
        "_answers",
        "_ends_message",
        "_held",
        "_need",
        "awaited",
        "bytes_left",
        "close",
        "messages",
        "octets",
        "ping",
        "pong",
    )

    def __init__(self) -> None:
        self._held = bytearray()  # an incomplete short frame, or an incomplete header
        self._need = 0  # size at which parsing `_held` can make progress
        #: How many bytes are missing of a frame that is forwarded in part.
        self.bytes_left = 0
        self._ends_message = False
        #: The close frame, once there was one. Nothing is forwarded after it.
        self.close: Close | None = None
        #: Number of complete messages.
        self.messages = 0
        #: Number of forwarded bytes.
        self.octets = 0
        #: Payloads of the latest ping, and of the latest pong.
        self.ping: bytes | None = None
        self.pong: bytes | None = None
        #: The payload of pongs that are not to be forwarded, as they answer pings of the proxy's.
        self.awaited: bytes | None = None
        self._answers: list[tuple[int, int]] = []  # where those are in what is being followed

    @property
    def inside_frame(self) -> bool:
        """Whether a frame is forwarded in part, so that no other frame may be sent now."""
        return self.bytes_left > 0

    def feed(self, data: bytes) -> bytes:
        """Return the bytes to forward after `data` has come: whole short frames, long ones as they come."""
        # Compiled code takes what is tested directly to be ``None`` to the end, though `_follow` may set it.
        closed = self.close is not None
        if closed:
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
        if self._answers:
            for start, stop in reversed(self._answers):
                data = data[:start] + data[stop:]
            self._answers.clear()
        self.octets += len(data)
        return data

    def _follow(self, data: bytes) -> int:
        """Return the length of the part of `data` that may be forwarded."""
        at, size = 0, len(data)
        while True:
            if self.bytes_left:
                taken = min(self.bytes_left, size - at)
                self.bytes_left -= taken
                at += taken
                if self.bytes_left:
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
                self.bytes_left = length
                at = head_end
                continue
            end = head_end + length
            if end > size:
                self._need = end - at
                return at
            start, at = at, end
            self.messages += self._ends_message
            if first & 0x08:
                payload = data[head_end : min(end, head_end + _MAX_CONTROL + 1)]
                if second & 0x80:
                    payload = _masked(payload, data[head_end - 4 : head_end])
                if self._control(first & 0x0F, payload):
                    self._answers.append((start, end))
                if first & 0x0F == _CLOSE:
                    return at

    def _control(self, opcode: int, payload: bytes) -> bool:
        """Note a control frame, and report whether it is not to be forwarded."""
        if opcode == _CLOSE:
            self.close = Close(payload)
        elif opcode == _PING:
            self.ping = payload
        elif opcode == _PONG:
            if payload == self.awaited:
                return True
            self.pong = payload
        return False


def _control_frame(opcode: int, payload: bytes, *, masked: bool) -> bytes:
    if not masked:
        return bytes((0x80 | opcode, len(payload))) + payload
    key = os.urandom(4)
    return bytes((0x80 | opcode, 0x80 | len(payload))) + key + _masked(payload, key)


def _masked(payload: bytes, key: bytes) -> bytes:
    """Mask `payload`, or unmask it (RFC 6455 section 5.3)."""
    return bytes(byte ^ key[place & 3] for place, byte in enumerate(payload))
