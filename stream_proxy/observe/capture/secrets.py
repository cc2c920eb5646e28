"""Secrets that a capture must not hold: known values, and whatever stands under a telling name. Sans-I/O.

What is known to be a key is blanked wherever it stands, also across the cuts of a body. Everything else is
told by the name of its header field, its part of the query or its JSON member.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from urllib.parse import quote_from_bytes, unquote_to_bytes

from stream_proxy.http.headers import RawHeader

#: What stands in place of a secret.
BLANK = b"***"
#: Shorter values may be part of any text.
_LEAST, _LEAST_SHOWN = 4, 8
#: Credentials of one request that are looked for in its bodies, and the longest of them.
_MOST_SHOWN, _LONGEST_SHOWN = 32, 8192

#: Longer names are judged each time anew.
_REMEMBERED = 64

#: Parts of the names of secrets, in lower case.
WORDS = (b"auth", b"cookie", b"token", b"secret", b"key", b"session", b"passw", b"credential")
_WORDS = re.compile(b"|".join(WORDS), re.IGNORECASE)
_QUERY_WORDS = re.compile(_WORDS.pattern + rb"|signature|^sig$|^code$", re.IGNORECASE)
# Parts of a query, wherever an URL stands.
_PARAMETER = re.compile(rb"([?&;])([^=&?#;\s\"]{1,256}+)=([^&#\s\"]*)")
#: Names and passwords in URLs.
_USER = re.compile(rb"://[^/?#@\s\"]{1,512}+@")
_FIELD_WORDS = re.compile(_WORDS.pattern + rb"|signature|csrf|xsrf", re.IGNORECASE)
_PROTOCOLS = b"sec-websocket-protocol"
#: Fields whose value is a scheme and a credential.
_SCHEMES = (b"authorization", b"proxy-authorization")


def is_telling(name: bytes) -> bool:
    """Report whether a name is one of a secret."""
    return _is_telling(name) if len(name) <= _REMEMBERED else _WORDS.search(name) is not None


@lru_cache(maxsize=1024)
def _is_telling(name: bytes) -> bool:
    return _WORDS.search(name) is not None


class Secrets:
    """Values that are known to be secrets.

    :param values: the values; those under 4 bytes are left out.
    """

    def __init__(self, values: Iterable[bytes] = ()) -> None:
        forms = {form for value in values if len(value) >= _LEAST for form in _forms(value)}
        #: In order, so that a part of one is found by bisection.
        self._values = sorted(forms)
        self._longest = max(map(len, forms), default=0)
        self._pattern = re.compile(_pattern(self._values)) if forms else None
        firsts = {re.escape(value[:1]) for value in forms}
        self._first = re.compile(b"|".join(sorted(firsts))) if forms else None

    def blanked(self, data: bytes) -> bytes:
        """Return whole `data` without these values."""
        return data if self._pattern is None else self._pattern.sub(BLANK, data)

    def cut(self, data: bytes) -> tuple[bytes, bytes]:
        """Return what of `data` is certain, blanked, and its end that may be the start of a value."""
        if self._pattern is None:
            return data, b""
        kept: list[bytes] = []
        at = 0
        for match in self._pattern.finditer(data):
            if self._goes_on(data[match.start() :]):
                break  # the start of a longer one
            kept += (data[at : match.start()], BLANK)
            at = match.end()
        held = self._start_of_value(data, at)
        kept.append(data[at:held])
        return b"".join(kept), data[held:]

    def _start_of_value(self, data: bytes, at: int) -> int:
        assert self._first is not None
        for match in self._first.finditer(data, max(at, len(data) - self._longest + 1)):
            if self._goes_on(data[match.start() :]):
                return match.start()
        return len(data)

    def _goes_on(self, start: bytes) -> bool:
        """Report whether `start` is a value's, and not all of it."""
        place = bisect_left(self._values, start)
        if place < len(self._values) and self._values[place] == start:
            place += 1
        return place < len(self._values) and self._values[place].startswith(start)


def _forms(value: bytes) -> Iterator[bytes]:
    """Yield the spellings of a value in headers, queries and JSON."""
    yield value
    quoted = quote_from_bytes(value, safe="").encode("ascii")
    yield quoted
    yield re.sub(rb"%[0-9A-F]{2}", lambda match: match[0].lower(), quoted)
    # PHP escapes slashes; .NET escapes what could mean something in HTML.
    yield value.replace(b"/", b"\\/")
    yield value.replace(b"+", b"\\u002B")
    yield value.replace(b"+", b"\\u002b")


def _pattern(values: list[bytes]) -> bytes:
    """Return an expression for sorted `values`, the longest first, that tries few of them at a place."""
    if len(values) == 1:
        return re.escape(values[0])
    first, last = values[0], values[-1]
    shared = next(
        (place for place, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]),
        min(len(first), len(last)),
    )
    groups: dict[bytes, list[bytes]] = {}
    for value in values:
        groups.setdefault(value[shared : shared + 1], []).append(value[shared:])
    ends = groups.pop(b"", None) is not None
    inner = b"|".join(_pattern(group) for group in groups.values())
    return re.escape(first[:shared]) + b"(?:" + inner + b")" + (b"?" if ends else b"")


def blank_url(text: bytes) -> bytes:
    """Return a text with URLs in it without the values of telling parts of queries, and without users."""
    if b"@" in text:
        text = _USER.sub(b"://" + BLANK + b"@", text)
    return _PARAMETER.sub(_blank_parameter, text) if b"=" in text else text


def blank_target(target: bytes, known: Sequence[Secrets]) -> bytes:
    """Return a target without secrets, also without those that it only shows when it is decoded."""

    def blank_part(part: bytes) -> bytes:
        decoded = unquote_to_bytes(part.replace(b"+", b" "))
        return part if blanked(decoded, known) == decoded else BLANK

    target = blanked(blank_url(target), known)
    if b"%" not in target and b"+" not in target:
        return target
    path, mark, query = target.partition(b"?")
    names = b"/".join(map(blank_part, path.split(b"/")))
    values = b"&".join(b"=".join(map(blank_part, pair.split(b"=", 1))) for pair in query.split(b"&"))
    return names + mark + values


def _blank_parameter(match: re.Match[bytes]) -> bytes:
    if _QUERY_WORDS.search(unquote_to_bytes(match[2])) is None:
        return match[0]
    return match[1] + match[2] + b"=" + BLANK


def blank_form(body: bytes) -> bytes:
    """Return a body in the form of a query without the values of its telling members."""
    return blank_url(b"&" + body)[1:]


def blanked(text: bytes, known: Iterable[Secrets]) -> bytes:
    """Return whole `text` without any of the known values."""
    for secrets in known:
        text = secrets.blanked(text)
    return text


def blank_fields(fields: Iterable[RawHeader], known: Iterable[Secrets]) -> list[RawHeader]:
    """Return header fields without secrets."""
    known = tuple(known)
    kept = []
    for name, value in fields:
        if _FIELD_WORDS.search(name) is not None:
            value = BLANK
        elif name.lower() == _PROTOCOLS:
            value = b", ".join(map(_blank_protocol, value.split(b",")))
        kept.append((blanked(name, known), blanked(blank_url(value), known)))
    return kept


def _blank_protocol(protocol: bytes) -> bytes:
    """Return a subprotocol without the key that browsers send in it, as they can send no header field."""
    protocol = protocol.strip()
    if not is_telling(protocol):
        return protocol
    prefix, dot, _ = protocol.rpartition(b".")
    return prefix + dot + BLANK


def shown(target: bytes, fields: Iterable[RawHeader]) -> Secrets:
    """Return the credentials that a request shows, which services quote in their errors."""
    found: list[bytes] = []
    for name, value in fields:
        lower = name.lower()
        if lower in _SCHEMES:
            found.append(value.strip().rpartition(b" ")[2])
        elif lower == b"cookie":
            found += [pair.partition(b"=")[2].strip() for pair in value.split(b";")]
        elif lower == _PROTOCOLS:
            found += [each.strip().rpartition(b".")[2] for each in value.split(b",") if is_telling(each)]
        elif _FIELD_WORDS.search(lower) is not None:
            found.append(value.strip())
        else:
            found += _parameters(value)
    found += _parameters(target)
    long = [each for each in found if _LEAST_SHOWN <= len(each) <= _LONGEST_SHOWN]
    return Secrets(long[:_MOST_SHOWN])


def _parameters(text: bytes) -> Iterator[bytes]:
    """Yield the values of telling parts of queries."""
    for match in _PARAMETER.finditer(text):
        if _QUERY_WORDS.search(unquote_to_bytes(match[2])) is not None:
            yield unquote_to_bytes(match[3].replace(b"+", b" "))
