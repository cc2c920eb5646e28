"""Head of the upstream's response to a WebSocket handshake, told apart from any ordinary response."""

from __future__ import annotations

from dataclasses import dataclass

from stream_proxy.http.headers import RawHeader, is_field_name
from stream_proxy.http.strictness import has_controls, is_folded, is_status_line
from stream_proxy.websocket.handshake_rules import HandshakeError


@dataclass(frozen=True, slots=True)
class Switching:
    """The head of a 101, and the bytes after it."""

    status_line: bytes
    fields: list[RawHeader]
    rest: bytes


class ResponseHead:
    """Reader of a response up to its decisive head; interim responses (RFC 9110 section 15.2) are skipped.

    :param most_bytes: the longest head, interim responses included.
    :param most_fields: the most fields in a 101.
    """

    def __init__(self, most_bytes: int, most_fields: int) -> None:
        self._most_bytes = most_bytes
        self._most_fields = most_fields
        self._passed = 0  # bytes of heads that are no longer in _data
        self._data = b""

    def feed(self, data: bytes) -> Switching | bytes | None:
        """Return the head of a 101, or all bytes of an ordinary response; `None` until either is certain.

        :raises HandshakeError: if the head exceeds its bounds, or a 101's could be read in two ways.
        """
        self._data += data
        found = self._read()
        if found is None:
            self.pass_on(0)
        return found

    def pass_on(self, count: int) -> None:
        """Count `count` bytes of a head that has not ended and that another parser reads.

        :raises HandshakeError: if the head exceeds its bounds.
        """
        self._passed += count
        if self._passed + len(self._data) > self._most_bytes:
            raise HandshakeError("its head is too large")

    def _read(self) -> Switching | bytes | None:
        while True:
            line, end, _ = self._data.partition(b"\n")
            if not end:
                return None
            _, _, status = line.partition(b" ")
            status, _, _ = status.partition(b" ")
            if not (status.startswith(b"1") and len(status) == 3):
                data, self._data = self._data, b""
                return data
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return None
            if status == b"101":
                return self._switching(head, rest)
            self._passed += len(self._data) - len(rest)
            self._data = rest

    def _switching(self, head: bytes, rest: bytes) -> Switching:
        status_line, *lines = head.split(b"\r\n")
        if len(lines) > self._most_fields:
            raise HandshakeError("its head is too large")
        if not is_status_line(status_line) or has_controls(status_line):
            raise HandshakeError("its status line is not valid HTTP")
        return Switching(status_line, [_field(line) for line in lines], rest)


def _field(line: bytes) -> RawHeader:
    """Return name and value of a line that every reader reads alike (RFC 9112 section 5)."""
    name, colon, value = line.partition(b":")
    name = name.rstrip(b" \t")
    if has_controls(line) or is_folded(line) or not (colon and is_field_name(name.decode("latin-1"))):
        raise HandshakeError("its head has a field that is not valid HTTP")
    return name, value.strip(b" \t")
