"""Identity of a call: whether a later one is the same call, asked again. Sans-I/O."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import NamedTuple

from stream_proxy.http.headers import RawHeader, request_headers

_COUNT = re.compile(rb"[0-9]{1,6}")
#: Fields that differ between a call and its retry, or that hops write.
_CHANGING = frozenset({b"x-stainless-retry-count", b"traceparent", b"tracestate", b"x-request-id", b"via"})
_CHANGING_PREFIX = b"x-forwarded-"
#: Fields that can say on whose behalf a call is made.
_CREDENTIALS = frozenset({b"authorization", b"api-key", b"x-api-key", b"x-goog-api-key", b"cookie"})
_KEY_QUERY = re.compile(rb"[?&](key|api[-_]?key|access_token)=[^&]", re.IGNORECASE)


class Identity(NamedTuple):
    """A call, as far as a retry repeats it.

    ``digest`` is a SHA-256 of rule, method, target, body and all end-to-end fields but those that change;
    ``credential`` one of what says on whose behalf it is made, ``None`` if nothing does; ``retry`` the number
    of the attempt, 0 for the first; ``idempotency_key`` what the client named the call, if it did.
    """

    digest: bytes
    credential: bytes | None
    retry: int
    idempotency_key: bytes | None

    @property
    def is_retry(self) -> bool:
        """Whether the call says that it may have been made before."""
        return self.retry > 0 or self.idempotency_key is not None

    def repeats(self, lost: Identity) -> bool:
        """Report whether this call says that it asks again what the lost one asked."""
        if self.digest != lost.digest:
            return False
        named = self.idempotency_key is not None and self.idempotency_key == lost.idempotency_key
        return named or self.retry > lost.retry


def says_retry(fields: Iterable[RawHeader]) -> bool:
    """Report whether a call says that it may be asked again: by its count, or by a name of its own."""
    for name, value in fields:
        lower = name.lower()
        if lower == b"idempotency-key" or (lower == b"x-stainless-retry-count" and value != b"0"):
            return True
    return False


class Identifier:
    """Digest of a call, built as its body comes.

    :param rule: the name of the rule.
    :param fields: the client's fields, as they came.
    """

    def __init__(self, rule: str, method: bytes, target: bytes, fields: Iterable[RawHeader]) -> None:
        fields = list(fields)
        kept = sorted((name.lower(), value) for name, value in request_headers(fields))
        self._digest = hashlib.sha256()
        for part in (rule.encode(), method, target):
            self._add(part)
        credentials = []
        self._retry = 0
        self._named: bytes | None = None
        for name, value in kept:
            if name == b"x-stainless-retry-count" and _COUNT.fullmatch(value):
                self._retry = int(value)
            if name == b"idempotency-key":
                self._named = value
            if name in _CREDENTIALS:
                credentials.append(b"%b:%b" % (name, value))
            if name not in _CHANGING and not name.startswith(_CHANGING_PREFIX):
                self._add(name)
                self._add(value)
        if _KEY_QUERY.search(target):
            credentials.append(target)
        self._credential = hashlib.sha256(b"\n".join(credentials)).digest() if credentials else None
        self._add(b"")  # the body follows

    def update(self, piece: bytes) -> None:
        """Add a piece of the body."""
        self._digest.update(piece)

    def identity(self) -> Identity:
        """Return the identity of the call, whose whole body is in."""
        return Identity(self._digest.digest(), self._credential, self._retry, self._named)

    def _add(self, part: bytes) -> None:
        self._digest.update(b"%d:" % len(part))
        self._digest.update(part)
