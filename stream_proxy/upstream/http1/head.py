"""Heads of responses (RFC 9112 sections 2 to 6), with every doubt about their framing an error. Sans-I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stream_proxy.http.first_bytes import ENOUGH, foreign_protocol, is_response
from stream_proxy.http.headers import FIELD_LINE, FIELD_TEXT, HOP_BY_HOP, TOKEN, RawHeader, connection_tokens
from stream_proxy.http.strictness import has_controls, is_folded, is_length, is_status_line
from stream_proxy.upstream.http1.faults import (
    HeadTooLargeError,
    HTTP2SpokenError,
    InvalidAnswerError,
    TLSSpokenError,
)

#: The longest head, the interim ones before it included.
MAX_HEAD_BYTES = 65_536
#: The most fields in one.
MAX_HEAD_FIELDS = 500

_NAME = re.compile(TOKEN)
#: A whole head as nearly all servers write them. What does not match is read line by line.
_PLAIN = re.compile(
    rb"HTTP/1\.1 ([2-9][0-9]{2})(?: (%b))?\r\n((?:%b:%b\r\n)*+)\r\n" % (FIELD_TEXT, TOKEN, FIELD_TEXT)
)
#: Fields that frame the body or belong to the connection.
_OWN = HOP_BY_HOP | {b"content-length"}
#: Options of ``Connection`` that name no field.
_NO_FIELDS = frozenset({b"close", b"keep-alive"})
_NO_CONTENT = 204
_NOT_MODIFIED = 304
_WITHOUT_BODY = (_NO_CONTENT, _NOT_MODIFIED)
_SWITCHING = 101
# Lengths of more digits do not fit into the 64 bits that other servers count with.
_MOST_DIGITS = 18


@dataclass(slots=True)
class ResponseHead:
    """Head of a final response.

    :param fields: those that may travel, as they came: not the connection's own, and ``Content-Length`` only
        where it does not frame this response: with a 304, or in response to HEAD.
    :param length: bytes of the body; ``None`` if it is chunked, or ends with the connection.
    :param persistent: whether another request may follow this response on its connection.
    :param rest: the bytes behind the head.
    """

    status: int
    reason: bytes
    fields: list[RawHeader]
    length: int | None
    chunked: bool
    persistent: bool
    rest: bytes

    @property
    def is_whole(self) -> bool:
        """Whether the bytes behind the head are its whole body, and nothing else."""
        return len(self.rest) == self.length


class HeadReader:
    """Reader of one head, and of the interim ones (1xx) before it, which it drops.

    :param to_head: the response is to HEAD, so that it has no body.
    """

    __slots__ = ("_count", "_fields", "_first", "_held", "_size", "_status_line", "_to_head", "begun")

    def __init__(self, *, to_head: bool) -> None:
        #: A byte of a response has come.
        self.begun = False
        self._to_head = to_head
        # Of all heads together: the bytes of their complete lines, and their fields.
        self._size = self._count = 0
        self._first = self._held = b""
        self._status_line = b""
        self._fields: list[RawHeader] = []

    def feed(self, data: bytes) -> ResponseHead | None:
        """Read the next bytes, and return the head once it is complete.

        :raises InvalidAnswerError: this is no response, or one that could be read in two ways.
        :raises HeadTooLargeError: it has too many bytes or fields.
        """
        if not self.begun:
            self.begun = True
            plain = _PLAIN.match(data)
            if plain is not None and plain.end() <= MAX_HEAD_BYTES:
                status, reason, block = plain.groups()
                fields = FIELD_LINE.findall(block)
                if len(fields) > MAX_HEAD_FIELDS:
                    raise HeadTooLargeError()
                if b" \r\n" in block or b"\t\r\n" in block:
                    fields = [(name, value.rstrip(b" \t")) for name, value in fields]
                return self._judged(int(status), reason or b"", fields, True, data[plain.end() :])
        return self._feed_lines(data)

    def _feed_lines(self, data: bytes) -> ResponseHead | None:
        if len(self._first) < ENOUGH:
            # At once: a peer of another protocol may never send the end of a line, nor close the connection.
            self._first = first_bytes(self._first, data)
        searched = len(self._held)
        data = self._held + data
        at = 0
        while (end := data.find(b"\n", max(at, searched))) >= 0:
            line = data[at:end].removesuffix(b"\r")
            self._size += end + 1 - at
            at = end + 1
            if self._size > MAX_HEAD_BYTES:
                raise HeadTooLargeError()
            if has_controls(line):
                raise InvalidAnswerError()
            if line or not self._status_line:
                self._take_line(line)
            elif (head := self._end(data[at:])) is not None:
                return head
        self._held = data[at:]
        if self._size + len(self._held) > MAX_HEAD_BYTES:
            raise HeadTooLargeError()
        return None

    def _take_line(self, line: bytes) -> None:
        fields = self._fields
        if not self._status_line:
            if not is_status_line(line):
                raise InvalidAnswerError()
            self._status_line = line
        elif is_folded(line):
            if not fields:  # it continues nothing
                raise InvalidAnswerError()
            name, value = fields[-1]
            fields[-1] = (name, value + line)
        else:
            self._count += 1
            if self._count > MAX_HEAD_FIELDS:
                raise HeadTooLargeError()
            name, colon, value = line.partition(b":")
            if not colon or _NAME.fullmatch(name) is None:
                raise InvalidAnswerError()
            fields.append((name, value))

    def _end(self, rest: bytes) -> ResponseHead | None:
        """Return the head that is complete, unless it is an interim one."""
        fields = [(name, value.strip(b" \t")) for name, value in self._fields]
        version, status, *reason = self._status_line.split(b" ", 2)
        self._status_line, self._fields = b"", []
        if int(status) == _SWITCHING:  # no request asked for that
            raise InvalidAnswerError()
        if status.startswith(b"1"):
            return None
        return self._judged(int(status), b"".join(reason), fields, version != b"HTTP/1.0", rest)

    def _judged(
        self, status: int, reason: bytes, fields: list[RawHeader], current: bool, rest: bytes
    ) -> ResponseHead:
        """Return a final head, of HTTP/1.1 or else HTTP/1.0, after a look at its framing."""
        kept: list[RawHeader] = []
        lengths: list[bytes] = []
        codings: list[bytes] = []
        connection: list[bytes] = []
        for field in fields:
            lower = field[0].lower()
            if lower not in _OWN:
                kept.append(field)
            elif lower == b"content-length":
                lengths.append(field[1])
                if self._to_head or status == _NOT_MODIFIED:  # it is that of another response
                    kept.append(field)
            elif lower == b"transfer-encoding":
                codings.append(field[1])
            elif lower == b"connection":
                connection.append(field[1])
        persistent = current
        if connection:
            options = connection_tokens(connection)
            persistent = b"close" not in options and (current or b"keep-alive" in options)
            if not options <= _NO_FIELDS:
                kept = [field for field in kept if field[0].lower() not in options]
        if len(codings) > 1:
            raise InvalidAnswerError()
        length = _length(lengths) if lengths else None
        if codings and (lengths or not current):
            # The body is clear, but not where its sender sees the end of it.
            persistent = False
        if self._to_head or status in _WITHOUT_BODY:
            if status == _NO_CONTENT and (codings or lengths not in ([], [b"0"])):
                persistent = False
            return ResponseHead(status, reason, kept, 0, False, persistent, rest)
        if codings:
            if codings[0].lower() != b"chunked":
                raise InvalidAnswerError()
            return ResponseHead(status, reason, kept, None, True, persistent, rest)
        return ResponseHead(status, reason, kept, length, False, persistent and length is not None, rest)


def first_bytes(before: bytes, data: bytes) -> bytes:
    """Return the first bytes of a response, which so far were `before`, with those of `data`.

    :raises InvalidAnswerError: no response begins so.
    """
    first = before + data[: ENOUGH - len(before)]
    if is_response(first) is False:
        kinds = {"TLS": TLSSpokenError, "HTTP/2": HTTP2SpokenError, None: InvalidAnswerError}
        raise kinds[foreign_protocol(first)]()
    return first


def _length(values: list[bytes]) -> int:
    value = values[0]
    if len(values) > 1 or not value.isdigit() or len(value) > _MOST_DIGITS:
        if not is_length(values):
            raise InvalidAnswerError()
        value = value.partition(b",")[0]
    return int(value)
