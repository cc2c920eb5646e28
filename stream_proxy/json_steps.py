"""Work on long JSON in steps: to make it valid UTF-8, to judge it, and to decode it.

Each function does what one of `stream_proxy.lenient_json` does, and yields between steps of bounded work.
Only the fast parser takes a text whole.
"""

from __future__ import annotations

import gc
from codecs import getincrementaldecoder
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeVar

import msgspec

from stream_proxy.json_reader import Steps as Steps
from stream_proxy.json_reader import read_name, read_value, skip_blanks
from stream_proxy.lenient_json import (
    ESCAPES_PER_VALUE,
    brackets_nested_deeper,
    count_separators,
    decode_json,
    decode_members,
    noting,
    only_brackets,
    outside_strings,
)

T = TypeVar("T")
M = TypeVar("M")

#: What is longer is worked on in steps.
LONG_BYTES = 2**19
#: The cost of a step, in bytes of small events that take as long: more than one turn works on.
STEP_COST = 2**17
# Bytes of a step of searching, and of one of replacing what is no UTF-8.
_SEARCHED = 2**20
_DECODED = 2**18
# Parts without strings, of 64 KiB each, in one step.
_PARTS = 16
# Bytes that the fast parser may be given: it takes them whole.
_MOST_AT_ONCE = 2**24
_decode = msgspec.json.Decoder().decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def done(steps: Steps[T]) -> T:
    """Take all steps at once, and return their result."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result


def marking(steps: Steps[T], mark: M) -> Generator[M, None, T]:
    """Yield `mark` for each step, and return the result."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result
        yield mark


def costing(steps: Steps[T]) -> Generator[int, None, T]:
    """Yield the cost of each step, and return the result."""
    return marking(steps, STEP_COST)


def valid_utf8_steps(data: bytes) -> Steps[bytes]:
    """Return `data` with U+FFFD for what is not valid UTF-8."""
    try:
        for _ in _texts(data, "strict"):
            yield
        return data
    except UnicodeDecodeError:
        pass
    valid: list[bytes] = []
    for text in _texts(data, "replace"):
        valid.append(text.encode())
        yield
    return b"".join(valid)


def values_exceed_steps(data: bytes, most: int, *, object_weight: int = 1) -> Steps[bool]:
    """Report whether `data` has more than `most` values, as `values_exceed` does."""
    if len(data) * object_weight <= most:
        return False
    rough = 0
    for at in range(0, len(data), _SEARCHED):
        rough += _weight(data[at : at + _SEARCHED], object_weight)
        yield
    if rough <= most:
        return False
    exact = 0
    for number, part in enumerate(outside_strings(data)):
        exact += _weight(part, object_weight)
        if exact > most:
            return True
        if number % _PARTS == _PARTS - 1:
            yield
    return False


def count_values_steps(data: bytes, *, object_weight: int = 1) -> Steps[int]:
    """Return how many values `data` has; see `values_exceed`."""
    count = 0
    for number, part in enumerate(outside_strings(data)):
        count += _weight(part, object_weight)
        if number % _PARTS == _PARTS - 1:
            yield
    return count


def _weight(part: bytes, object_weight: int) -> int:
    return count_separators(part) + (object_weight - 1) * part.count(b"{")


def escapes_exceed_steps(data: bytes, most: int) -> Steps[bool]:
    """Report whether strings have more escapes than `most` values allow, as `escapes_exceed` does."""
    most *= ESCAPES_PER_VALUE
    escapes = 0
    for at in range(0, len(data) if len(data) > most else 0, _SEARCHED):
        part = data[at : at + _SEARCHED]
        escapes += len(part) - len(part.translate(None, b"\\"))
        yield
    return escapes > most


def nested_deeper_steps(data: bytes, most: int) -> Steps[bool]:
    """Report whether arrays and objects are nested more than `most` deep, as `nested_deeper` does."""
    if data.count(b"[") + data.count(b"{") <= most:
        return False
    yield
    brackets: list[bytes] = []
    for number, part in enumerate(outside_strings(data)):
        brackets.append(only_brackets(part))
        if number % _PARTS == _PARTS - 1:
            yield
    return brackets_nested_deeper(b"".join(brackets), most)


def decode_steps(data: bytes) -> Steps[Any]:
    """Return the JSON value in `data`, as `decode_json` does.

    :raises ValueError: not JSON, or nested too deep.
    """
    if len(data) <= LONG_BYTES:
        return decode_json(data)
    try:
        if len(data) <= _MOST_AT_ONCE:
            return _undisturbed(_decode, data)
    except msgspec.DecodeError:
        yield
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    # Where the fast parser comes first, it is what refuses strings that are no UTF-8.
    text = yield from _text(data, "replace" if len(data) <= _MOST_AT_ONCE else "strict")
    value, end = yield from read_value(text, skip_blanks(text, 0), noting([]))
    if skip_blanks(text, end) != len(text):
        raise ValueError("there is more behind it")
    return value


def decode_members_steps(
    data: bytes, encode: Callable[[Any], Iterable[bytes]]
) -> Steps[dict[str, msgspec.Raw]]:
    """Return the members of the JSON object in `data`, as `decode_members` does.

    :param encode: returns the JSON of a value in pieces, each of them a step.
    :raises ValueError: not a JSON object.
    """
    if len(data) <= LONG_BYTES:
        return decode_members(data)
    try:
        if len(data) <= _MOST_AT_ONCE:
            return _undisturbed(_decode_members, data)
    except msgspec.DecodeError:
        yield
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    text = yield from _text(data, "replace")
    inexpressible: list[str] = []
    decoder = noting(inexpressible)
    members: dict[str, msgspec.Raw] = {}
    at = skip_blanks(text, 0)
    if text[at : at + 1] != "{":
        raise ValueError("not an object")
    at = skip_blanks(text, at + 1)
    while text[at : at + 1] != "}" or members:
        name, at = yield from read_name(text, at)
        value, end = yield from read_value(text, at, decoder)
        if inexpressible:
            pieces: list[bytes] = []
            for piece in encode(value):
                pieces.append(piece)
                yield
            members[name] = msgspec.Raw(b"".join(pieces))
            inexpressible.clear()
        else:
            members[name] = msgspec.Raw(text[at:end].encode())
        yield
        at = skip_blanks(text, end)
        if text[at : at + 1] != ",":
            break
        at = skip_blanks(text, at + 1)
    if text[at : at + 1] != "}" or skip_blanks(text, at + 1) != len(text):
        raise ValueError("no end of the object where one is due")
    return members


def _undisturbed(decode: Callable[[bytes], T], data: bytes) -> T:
    """Return what `decode` does, with the cycle collector off: it would double the time that this takes."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        return decode(data)
    finally:
        if enabled:
            gc.enable()


def _texts(data: bytes, errors: str) -> Iterator[str]:
    """Yield `data` as text, in parts."""
    decoder = getincrementaldecoder("utf-8")(errors)
    for at in range(0, len(data), _DECODED):
        yield decoder.decode(data[at : at + _DECODED], at + _DECODED >= len(data))


def _text(data: bytes, errors: str) -> Steps[str]:
    parts: list[str] = []
    for part in _texts(data, errors):
        parts.append(part)
        yield
    return "".join(parts)
