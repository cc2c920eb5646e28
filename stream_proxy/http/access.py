"""Who may call, and as whom the upstream is called."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator
from urllib.parse import unquote_to_bytes

from stream_proxy.errors import INVALID_REQUEST, APIError
from stream_proxy.http.headers import RawHeader

#: Fields that hold a key and nothing else: Azure's, Anthropic's, Google's.
_KEY_FIELDS = (b"api-key", b"x-api-key", b"x-goog-api-key")
#: What a client proves itself with. None of it goes to an upstream that is called with another key.
_CREDENTIALS = frozenset({b"authorization", b"proxy-authorization", b"cookie", *_KEY_FIELDS})
_QUERY_CREDENTIALS = (b"key", b"api-key", b"api_key", b"access_token")
_PROTOCOLS = b"sec-websocket-protocol"
#: So browsers, which can set no field on a WebSocket, send a key to the Realtime API.
_KEY_PROTOCOL = b"openai-insecure-api-key."
#: The answer to a request without a key (RFC 9110 section 11.6.1).
CHALLENGE: tuple[RawHeader, ...] = ((b"WWW-Authenticate", b"Bearer"),)


class Access:
    """The keys of one rule.

    :param client_keys: those that clients may call with; without any, everybody may.
    :param upstream_key: what the upstream is called with, in place of what the client has.
    :param upstream_header: the field that takes it, bare, instead of ``Authorization: Bearer``.
    """

    def __init__(
        self,
        client_keys: Iterable[bytes] = (),
        upstream_key: bytes | None = None,
        upstream_header: str | None = None,
    ) -> None:
        # Of equal length whatever the keys are, so that comparing them says nothing about these.
        self._clients = [_digest(key) for key in client_keys]
        self._own: list[RawHeader] = []
        if upstream_key is not None and upstream_header is not None:
            self._own = [(upstream_header.encode("ascii"), upstream_key)]
        elif upstream_key is not None:
            self._own = [(b"Authorization", b"Bearer " + upstream_key)]
        self._key = upstream_key
        self._dropped = _CREDENTIALS | {name.lower() for name, _ in self._own}
        self._query: tuple[bytes, ...] = _QUERY_CREDENTIALS

    def for_adapter(self) -> Access:
        """The same where nothing of the client's request goes upstream, and all is the operator's."""
        access = Access()
        access._clients, access._own, access._key = self._clients, self._own, self._key
        access._dropped = frozenset(name.lower() for name, _ in self._own)
        access._query = ()
        return access

    def redacted(self, text: str) -> str:
        """`text` without the upstream's key: services repeat the keys that they refuse."""
        return text if self._key is None else text.replace(self._key.decode("ascii"), "***")

    def unauthorized(self, method: bytes, headers: Iterable[RawHeader]) -> APIError | None:
        """Why a request may not go upstream, if so; see :data:`CHALLENGE`.

        Every credential in it must be a client key: what another one is for only the upstream would know.
        """
        if not self._clients:
            return None
        fields = [(name.lower(), value) for name, value in headers]
        if _is_preflight(method, fields):
            return None
        shown = list(_credentials(fields))
        # Each is compared with all keys, and all are compared.
        known = [sum(hmac.compare_digest(_digest(key), each) for each in self._clients) for key in shown]
        if shown and all(known):
            return None
        what = "The API key is not one that this proxy knows" if shown else "There is no API key"
        return APIError(
            401,
            f"{what}; send a client key of the proxy as Authorization: Bearer KEY.",
            INVALID_REQUEST,
            code="invalid_api_key",
        )

    def headers(self, method: bytes, headers: Iterable[RawHeader]) -> Iterator[RawHeader]:
        """The fields of a request as they go upstream."""
        if not self._own:
            yield from headers
            return
        for name, value in headers:
            lower = name.lower()
            if lower == _PROTOCOLS:
                value = b", ".join(each for each in _list(value) if not each.startswith(_KEY_PROTOCOL))
                if not value:
                    continue
            if lower not in self._dropped:
                yield name, value
        if method != b"OPTIONS":  # preflights come without a key, and need none
            yield from self._own

    def target(self, target: bytes) -> bytes:
        """The target of a request as it goes upstream."""
        path, mark, query = target.partition(b"?")
        if not self._own or not mark:
            return target
        parts = query.split(b"&")
        kept = [part for part in parts if not self._is_credential(part)]
        if len(kept) == len(parts):
            return target
        return path + (b"?" + b"&".join(kept) if kept else b"")

    def answer_headers(self, headers: Iterable[RawHeader]) -> list[RawHeader]:
        """The fields of an answer as they go to the client: cookies belong to whose key it was."""
        if not self._own:
            return list(headers)
        return [(name, value) for name, value in headers if name.lower() != b"set-cookie"]

    def _is_credential(self, parameter: bytes) -> bool:
        name, _, value = parameter.partition(b"=")
        if unquote_to_bytes(name).lower() in self._query:
            return True
        digest = _digest(unquote_to_bytes(value.replace(b"+", b" ")))
        return any(hmac.compare_digest(digest, each) for each in self._clients)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _list(value: bytes) -> list[bytes]:
    return [part for each in value.split(b",") if (part := each.strip(b" \t"))]


def _credentials(fields: Iterable[RawHeader]) -> Iterator[bytes]:
    """All that a request shows as a key; names are in lower case. What is none shows as an empty one."""
    for name, value in fields:
        if name == b"authorization":
            scheme, _, key = value.strip().partition(b" ")
            yield key.strip() if scheme.lower() == b"bearer" else b""
        elif name in _KEY_FIELDS:
            yield value.strip()
        elif name == _PROTOCOLS:
            for each in _list(value):
                if each.startswith(_KEY_PROTOCOL):
                    yield each.removeprefix(_KEY_PROTOCOL)


def _is_preflight(method: bytes, fields: list[RawHeader]) -> bool:
    """A browser's question whether a page may call (Fetch standard, "CORS-preflight request")."""
    names = {name for name, _ in fields}
    return method == b"OPTIONS" and {b"origin", b"access-control-request-method"} <= names
