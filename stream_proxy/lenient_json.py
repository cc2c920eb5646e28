"""Lenient JSON, as providers write it: values that the fast parser refuses but Python's ``json`` accepts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, TypeAlias, TypeGuard

import msgspec

#: A decoded JSON value, and one that is an object.
JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"
JSONObject: TypeAlias = dict[str, JSON]
#: The byte order mark of UTF-8, which some servers put before JSON and event streams.
BOM = b"\xef\xbb\xbf"

#: The largest integer that every reader of JSON has exactly. Beyond 2**61 - 1, which all hash to the same as
#: their remainders, numbers make no keys of a dict: with chosen ones each would be compared with all others.
EXACT = 2**53
#: Bytes that stand before a value; a text of JSON has no more values than these, and one.
_SEPARATORS = b",:[{"
#: Escapes in strings that take as long to decode as one value.
ESCAPES_PER_VALUE = 8
_PART_BYTES = 65_536
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

_decode = msgspec.json.Decoder().decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def valid_utf8(data: bytes) -> bytes:
    """Return `data` with U+FFFD for what is not valid UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace").encode()
    return data


def decode_json(data: bytes) -> Any:
    """Return the JSON value in `data`, which may hold lone surrogates, as `json` accepts them.

    NaN, infinities and numbers beyond the range of a float become ``None``, as JSON cannot express them.

    :raises ValueError: not JSON, or nested too deep.
    """
    try:
        return _decode(data)
    except msgspec.DecodeError:
        pass
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    try:
        return _LENIENT.decode(data.decode("utf-8", "replace"))
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def values_exceed(data: bytes, most: int, *, object_weight: int = 1) -> bool:
    """Report whether `data` has more than `most` values, by the count of ``,``, ``:``, ``[`` and ``{``.

    Nothing is decoded: it is decoding that makes 25 bytes and more of two.

    :param object_weight: how much a ``{`` counts.
    """

    def count(part: bytes) -> int:
        return count_separators(part) + (object_weight - 1) * part.count(b"{")

    if len(data) * object_weight <= most or count(data) <= most:
        return False
    return any(so_far > most for so_far in accumulate(map(count, outside_strings(data))))


def escapes_exceed(data: bytes, most: int) -> bool:
    """Report whether the strings in `data` have more escapes than take as long to decode as `most` values."""
    most *= ESCAPES_PER_VALUE
    return len(data) > most and len(data) - len(data.translate(None, b"\\")) > most


def nested_deeper(data: bytes, most: int) -> bool:
    """Report whether arrays and objects in `data` are nested more than `most` deep, if it is JSON."""
    if data.count(b"[") + data.count(b"{") <= most:
        return False
    return brackets_nested_deeper(b"".join(map(only_brackets, outside_strings(data))), most)


def only_brackets(part: bytes) -> bytes:
    """Return the brackets and braces of JSON without strings, all as brackets."""
    return part.translate(_BRACKETS, _NO_BRACKETS)


def brackets_nested_deeper(brackets: bytes, most: int) -> bool:
    """Report whether `brackets` are nested more than `most` deep, if all of them match."""
    for _ in range(most):
        shorter = brackets.replace(b"[]", b"")  # a level less
        if len(shorter) == len(brackets):
            return False  # no level is left, or the brackets do not match
        brackets = shorter
    return bool(brackets)


def count_separators(data: bytes) -> int:
    """Return how many bytes of `data` separate values, where they are not part of a string."""
    return len(data) - len(data.translate(None, _SEPARATORS))


def count_values(data: bytes) -> int:
    """Return how many bytes of `data`, whose strings are whole, stand before values."""
    if b'"' not in data:
        return count_separators(data)
    return sum(map(count_separators, outside_strings(data)))


def outside_strings(data: bytes) -> Iterator[bytes]:
    """Yield JSON without the contents of its strings, a part at a time: the pieces take memory, too."""
    inside = False
    at = 0
    while at < len(data):
        part = data[at : at + _PART_BYTES]
        if (len(part) - len(part.rstrip(b"\\"))) % 2:  # it ends inside an escape
            part = data[at : at + _PART_BYTES + 1]
        at += len(part)
        if b'\\"' in part:  # escapes hide where strings end
            part = part.replace(b"\\\\", b"").replace(b'\\"', b"")
        pieces = part.split(b'"')
        yield b"".join(pieces[inside::2])
        inside ^= len(pieces) % 2 == 0


def decode_members(data: bytes, *, verbatim: bool = False) -> dict[str, msgspec.Raw]:
    """Return the members of the JSON object in `data`, with the bytes of each value unchanged.

    Only a value that contains NaN or an infinity is encoded again, with ``null`` in place of it.

    :param verbatim: refuse an object with such a value, or one that is not UTF-8.
    :raises ValueError: not a JSON object.
    """
    try:
        return _decode_members(data)
    except msgspec.DecodeError:
        pass
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(decode_json(data), dict):
        raise ValueError("not an object")
    return _slice_members(data.decode("utf-8", "strict" if verbatim else "replace"), verbatim)


def is_verbatim(data: bytes) -> bool:
    """Report whether `data` is JSON for all but its lone surrogates: it need not be written anew."""
    inexpressible: list[str] = []
    try:
        noting(inexpressible).decode(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return False
    return not inexpressible


def noting(inexpressible: list[str]) -> json.JSONDecoder:
    """Return a decoder that adds to `inexpressible` each constant that JSON has no spelling for."""
    return json.JSONDecoder(parse_constant=inexpressible.append, parse_float=_finite)


def _slice_members(text: str, verbatim: bool) -> dict[str, msgspec.Raw]:
    """Return the members of `text`, which is known to be a JSON object."""
    blank = " \t\n\r"
    inexpressible: list[str] = []
    decoder = noting(inexpressible)
    members: dict[str, msgspec.Raw] = {}
    at = text.index("{") + 1
    while True:
        while text[at] in blank or text[at] == ",":
            at += 1
        if text[at] == "}":
            return members
        name, at = decoder.raw_decode(text, at)
        while text[at] in blank or text[at] == ":":
            at += 1
        value, end = decoder.raw_decode(text, at)
        if inexpressible and verbatim:
            raise ValueError("holds a number that no JSON can spell")
        encoded = encode_json(value) if inexpressible else text[at:end].encode()
        members[name] = msgspec.Raw(encoded)
        inexpressible.clear()
        at = end


def encode_json(value: Any) -> bytes:
    """Return `value` as JSON, lone surrogates as escapes, and NaN and infinities as ``null``.

    :raises ValueError: nested too deep.
    """
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        pass
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    try:
        text = _LENIENT_ENCODER.encode(value)
        if "NaN" in text or "Infinity" in text:
            text = _LENIENT_ENCODER.encode(_LENIENT.decode(text))
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    return text.encode("utf-8", "backslashreplace")


def is_integer(value: object) -> TypeGuard[int]:
    """Report whether `value` is an integer; Python counts booleans among these, JSON does not."""
    return isinstance(value, int) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Raw):
        return decode_json(bytes(value))
    raise TypeError(f"not a JSON value: {value!r}")


def _finite(literal: str) -> float | None:
    number = float(literal)
    return number if math.isfinite(number) else None


_LENIENT = json.JSONDecoder(parse_constant=lambda _: None, parse_float=_finite)
_LENIENT_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_plain)
