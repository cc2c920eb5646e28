"""Pieces of JSON: a large value is encoded step by step, a small part of it at a time."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator

from msgspec import Raw

from stream_proxy.aggregate.arguments import Arguments
from stream_proxy.aggregate.long_text import LongText
from stream_proxy.errors import response_too_large
from stream_proxy.lenient_json import count_values, encode_json

#: What is smaller is encoded at once: the size of the value's texts, and of the result's pieces, at least.
PIECE_BYTES = 2**17
# So many bytes of a piece take as long as one of small events.
_BYTES_PER_COST = 6
# Characters of a text that are encoded together, at least.
_SLICE = 4096
# What a value takes to weigh and to encode, in characters of a text.
_VALUE_WEIGHT = 32
# Types of values that are no more work than that.
_PLAIN = frozenset({int, float, bool, type(None)})


class _Nested:
    """A value that is too large to be encoded at once."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


class PieceEncoder:
    """Encoder of one large value, whose bytes are those of `encode_json`.

    Besides JSON the value may hold `LongText`, `Arguments`, `Raw`, and a ``bytearray``: what stands between
    the quotes of a JSON string. Lone surrogates are encoded as by `encode_json`, but change nothing around.
    """

    def __init__(self) -> None:
        #: The values so far, by the bytes that stand before one; those in `Raw` do not count.
        self.values = 0
        #: What the last piece cost, in bytes of small events that take as long.
        self.cost = 0
        self._weight = 0  # of the values in the last part

    def pieces(self, value: object) -> Iterator[bytes]:
        """Yield the JSON in pieces of at most about `PIECE_BYTES`, each of them a step.

        :raises ValueError: a part of it is nested too deep.
        """
        held: list[bytes] = []
        size = 0
        for part in self._parts(value):
            held.append(part)
            size += len(part) + self._weight
            self._weight = 0
            if size >= PIECE_BYTES:
                self.cost = size // _BYTES_PER_COST
                yield b"".join(held)
                held = []
                size = 0
        if held:
            self.cost = size // _BYTES_PER_COST
            yield b"".join(held)

    def collect(self, value: object, max_bytes: int) -> Generator[int, None, list[bytes]]:
        """Return the pieces of a result; yield after each of them what it cost.

        :raises APIError: they have more than `max_bytes` together.
        """
        found: list[bytes] = []
        size = 0
        for piece in self.pieces(value):
            found.append(piece)
            size += len(piece)
            if size > max_bytes:
                raise response_too_large(max_bytes)
            yield self.cost
        return found

    def _parts(self, value: object) -> Iterator[bytes]:
        # Not recursive: what is encoded at once may be nested deeper than Python can call.
        levels = [self._opened(value)]
        while levels:
            part = next(levels[-1], None)
            if part is None:
                levels.pop()
            elif isinstance(part, _Nested):
                levels.append(self._opened(part.value))
            else:
                yield part

    def _opened(self, value: object) -> Iterator[bytes | _Nested]:
        """Return the parts of one value, of which the large ones are still to be opened."""
        if isinstance(value, dict):
            return self._members(value)
        if isinstance(value, list):
            return self._entries(value)
        if isinstance(value, str):
            return _text([value])
        if isinstance(value, LongText | Arguments):
            return _text(value.blocks())
        if isinstance(value, bytearray):
            return _quoted(value)
        if isinstance(value, Raw):
            return _slices(memoryview(value))
        return iter((encode_json(value),))

    def _members(self, members: dict[str, object]) -> Iterator[bytes | _Nested]:
        group: dict[str, object] = {}
        weight = 0
        before = b"{"
        for key, member in members.items():
            more = len(key) + _weight(member, PIECE_BYTES)
            if group and weight + more > PIECE_BYTES:
                yield self._counted(before + encode_json(group)[1:-1], weight)
                before = b","
                group = {}
                weight = 0
            if more > PIECE_BYTES:
                yield self._counted(before + encode_json(key) + b":")
                before = b","
                yield _Nested(member)
            else:
                group[key] = member
                weight += more
        if group:
            yield self._counted(before + encode_json(group)[1:], weight)
        else:
            yield self._counted(b"{}" if before == b"{" else b"}")

    def _entries(self, entries: list[object]) -> Iterator[bytes | _Nested]:
        group: list[object] = []
        weight = 0
        before = b"["
        for entry in entries:
            more = _VALUE_WEIGHT if type(entry) in _PLAIN else _weight(entry, PIECE_BYTES)
            if group and weight + more > PIECE_BYTES:
                yield self._counted(before + encode_json(group)[1:-1], weight)
                before = b","
                group = []
                weight = 0
            if more > PIECE_BYTES:
                yield self._counted(before)
                before = b","
                yield _Nested(entry)
            else:
                group.append(entry)
                weight += more
        if group:
            yield self._counted(before + encode_json(group)[1:], weight)
        else:
            yield self._counted(b"[]" if before == b"[" else b"]")

    def _counted(self, part: bytes, weight: int = 0) -> bytes:
        self._weight = weight
        self.values += count_values(part)
        return part


def _weight(value: object, most: int) -> int:
    """Return about how much work it is to encode a value; anything above `most` if it is more than that."""
    weight = 0
    pending = [value]
    while pending:
        value = pending.pop()
        weight += _VALUE_WEIGHT
        if isinstance(value, str):
            weight += len(value)
        elif isinstance(value, dict):
            weight += sum(map(len, value))
            if len(value) * _VALUE_WEIGHT <= most:
                pending += value.values()
            else:
                weight += most
        elif isinstance(value, list):
            if len(value) * _VALUE_WEIGHT <= most:
                pending += value
            else:
                weight += most
        elif isinstance(value, Raw):
            weight += memoryview(value).nbytes
        elif isinstance(value, LongText | Arguments | bytearray):
            weight += most
        if weight > most:
            break
    return weight


def _text(blocks: Iterable[str]) -> Iterator[bytes]:
    """Yield a string in slices."""
    yield b'"'
    held: list[str] = []
    size = 0
    for block in blocks:
        held.append(block)
        size += len(block)
        if size >= _SLICE:
            yield from _slices_of("".join(held))
            held = []
            size = 0
    yield from _slices_of("".join(held))
    yield b'"'


def _slices_of(text: str) -> Iterator[bytes]:
    for at in range(0, len(text), PIECE_BYTES):
        yield encode_json(text[at : at + PIECE_BYTES])[1:-1]


def _quoted(text: bytearray) -> Iterator[bytes]:
    yield b'"'
    yield from _slices(memoryview(text))
    yield b'"'


def _slices(data: memoryview) -> Iterator[bytes]:
    for at in range(0, len(data), PIECE_BYTES):
        yield bytes(data[at : at + PIECE_BYTES])
