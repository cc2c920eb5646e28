"""Access control of a rule: which clients may call, and with which key the upstream is called."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, invalid_request
from stream_proxy.http.headers import RawHeader
from stream_proxy.http.origin import Pages

#: Fields that hold a key and nothing else: Azure's, Anthropic's, Google's.
_KEY_FIELDS = (b"api-key", b"x-api-key", b"x-goog-api-key")
#: Fields with a client's credentials, which never reach an upstream that is called with the rule's own key.
_CREDENTIALS = frozenset({b"authorization", b"proxy-authorization", b"cookie", *_KEY_FIELDS})
_QUERY_CREDENTIALS = (b"key", b"api-key", b"api_key", b"access_token")
_PROTOCOLS = b"sec-websocket-protocol"
#: Browsers, which cannot set a header field on a WebSocket, send their key to the Realtime API in this way.
_KEY_PROTOCOL = b"openai-insecure-api-key."
#: Fields in which a client shows a key.
_SHOWING = frozenset({b"authorization", _PROTOCOLS, *_KEY_FIELDS})
#: Methods whose response repeats the request, credentials included: RFC 9110 section 9.3.8, and IIS's own.
_ECHOING = (b"TRACE", b"TRACK")
_ALLOW: tuple[RawHeader, ...] = ((b"Allow", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),)
_READABLE: tuple[RawHeader, ...] = (
    (b"Access-Control-Allow-Origin", b"*"),
    (b"Access-Control-Expose-Headers", b"*"),
)
#: Shorter values are no keys, and may be part of any text.
_SHORTEST_SECRET = 8
#: Field of the response to a request without a key (RFC 9110 section 11.6.1).
CHALLENGE: tuple[RawHeader, ...] = ((b"WWW-Authenticate", b"Bearer"),)


@dataclass(frozen=True)
class HeaderChanges:
    """Changes of a rule to the fields of its requests.

    :param fields: stand in place of the client's of the same name.
    :param secret: those of these fields that hold a key of the operator's.
    :param removed: names of fields that do not go upstream, in lower case.
    :param keys: the keys in the secret fields.
    """

    fields: tuple[RawHeader, ...] = ()
    secret: tuple[RawHeader, ...] = ()
    removed: frozenset[bytes] = frozenset()
    keys: tuple[bytes, ...] = ()

    def applied(self, method: bytes, headers: list[RawHeader], removed: frozenset[bytes]) -> list[RawHeader]:
        """Return the fields of a request without those `removed`, and with those that are set.

        Preflight requests come without a key, and need none.
        """
        fields = self.fields if method == b"OPTIONS" else self.fields + self.secret
        dropped = removed.union(name.lower() for name, _ in self.fields + self.secret)
        return [field for field in headers if field[0].lower() not in dropped] + list(fields)


_NO_CHANGES = HeaderChanges()


class Access:
    """The keys of one rule.

    :param client_keys: the keys that clients may call with; without any, everybody may call.
    :param upstream_key: the key for the upstream, in place of the client's.
    :param upstream_header: the field that holds it, bare, instead of ``Authorization: Bearer``.
    :param hosts: see :class:`~stream_proxy.http.origin.Pages`, which judges requests where everyone in reach
        would spend the upstream's key.
    :param origins: see there.
    :param changes: what else changes in the fields of requests.
    :raises ValueError: one of the hosts or origins is none.
    """

    def __init__(
        self,
        client_keys: Iterable[bytes] = (),
        upstream_key: bytes | None = None,
        upstream_header: str | None = None,
        *,
        hosts: Iterable[str] = (),
        origins: Iterable[str] | None = None,
        changes: HeaderChanges | None = None,
    ) -> None:
        # Digests have one length, so that the time of a comparison says nothing about the keys.
        self._clients = tuple(_digest(key) for key in client_keys)
        self._own: list[RawHeader] = []
        if upstream_key is not None and upstream_header is not None:
            self._own = [(upstream_header.encode("ascii"), upstream_key)]
        elif upstream_key is not None:
            self._own = [(b"Authorization", b"Bearer " + upstream_key)]
        self._changes = changes or _NO_CHANGES
        # A cookie may be a credential, and none of a client's goes with a key of the operator's.
        self._removed = self._changes.removed | ({b"cookie"} if self._changes.secret else set())
        #: The keys of the operator's that go upstream; blanking a shorter text would blank any.
        self._keys = [upstream_key] if upstream_key is not None else []
        self._keys += [key for key in self._changes.keys if len(key) >= _SHORTEST_SECRET]
        self._pages = Pages(hosts, origins)
        #: Requests go upstream with a key of the operator's.
        self.injects = upstream_key is not None or bool(self._changes.secret)
        self._dropped = _CREDENTIALS | {name.lower() for name, _ in self._own}
        self._query: tuple[bytes, ...] = _QUERY_CREDENTIALS

    def for_adapter(self, *, injects: bool = False) -> Access:
        """Return the same access for upstream requests that are the operator's own.

        An adapter passes on no field and no query of its client, so there are no credentials to remove.

        :param injects: these requests hold a key already.
        """
        access = copy(self)
        access.injects = self.injects or injects
        access._dropped = frozenset(name.lower() for name, _ in self._own)
        access._removed = self._changes.removed
        access._query = ()
        return access

    def redacted(self, text: str) -> str:
        """Return `text` without the upstream's keys: services quote the keys that they reject."""
        for key in self._keys:
            text = text.replace(key.decode("latin-1"), "***")
        return text

    @property
    def is_open(self) -> bool:
        """Whether everyone in reach spends a key of the operator's, web pages included unless kept away."""
        return self.injects and not self._clients

    def refusal(
        self, method: bytes, headers: Sequence[RawHeader]
    ) -> tuple[APIError, tuple[RawHeader, ...]] | None:
        """Return the error for a request that may not go upstream, and the fields that go out with it."""
        if self.injects and method.upper() in _ECHOING:
            return _no_echo(), _ALLOW
        if self.is_open:
            foreign = self._pages.refusal(headers)
            return None if foreign is None else (foreign, ())
        unauthorized = self.unauthorized(method, headers)
        return None if unauthorized is None else (unauthorized, CHALLENGE)

    def cors(self, headers: Sequence[RawHeader]) -> list[RawHeader]:
        """Return the fields by which browsers let pages read a response of the proxy's own.

        Every page may, if it brings a key or spends none; else only one that may call (Fetch standard, "CORS
        protocol").

        :param headers: of the request.
        """
        if not self.is_open:
            return list(_READABLE)
        vary = (b"Vary", b"Origin")
        origins = [value for name, value in headers if name.lower() == b"origin"]
        if not origins or self._pages.refusal(headers) is not None:
            return [vary]
        return [(b"Access-Control-Allow-Origin", origins[0]), *_READABLE[1:], vary]

    def unauthorized(self, method: bytes, headers: Sequence[RawHeader]) -> APIError | None:
        """Return the error for a request that may not go upstream; it goes out with :data:`CHALLENGE`.

        Every credential in the request must be a client key: any other one is meant for the upstream.
        """
        if not self._clients:
            return None
        if method == b"OPTIONS" and _is_preflight(headers):
            return None
        shown = list(_credentials(headers))
        # No short cuts: each is compared with all keys, so that the time taken is the same whichever fits.
        known = [sum(hmac.compare_digest(_digest(key), each) for each in self._clients) for key in shown]
        if shown and all(known):
            return None
        what = "The API key is not one that this proxy knows" if shown else "There is no API key"
        return invalid_request(
            f"{what}; send a client key of the proxy as Authorization: Bearer KEY.", ErrorCode.INVALID_API_KEY
        )

    def headers(self, method: bytes, headers: Iterable[RawHeader]) -> list[RawHeader]:
        """Return the fields of a request as they go upstream."""
        fields = self._with_own_key(method, headers)
        if self._changes is _NO_CHANGES:
            return fields
        return self._changes.applied(method, fields, self._removed)

    def _with_own_key(self, method: bytes, headers: Iterable[RawHeader]) -> list[RawHeader]:
        if not self._own:
            return list(headers)
        kept = []
        for field in headers:
            lower = field[0].lower()
            if lower == _PROTOCOLS:
                value = b", ".join(each for each in _list(field[1]) if not each.startswith(_KEY_PROTOCOL))
                if not value:
                    continue
                field = (field[0], value)
            if lower not in self._dropped:
                kept.append(field)
        # Preflight requests come without a key, and need none.
        return kept if method == b"OPTIONS" else kept + self._own

    def target(self, target: bytes) -> bytes:
        """Return the target of a request as it goes upstream, without credentials in the query."""
        path, mark, query = target.partition(b"?")
        if not self._own or not mark:
            return target
        parts = query.split(b"&")
        kept = [part for part in parts if not self._is_credential(part)]
        if len(kept) == len(parts):
            return target
        return path + (b"?" + b"&".join(kept) if kept else b"")

    def answer_headers(self, headers: Iterable[RawHeader]) -> list[RawHeader]:
        """Return the fields of a response as they go to the client: cookies belong to the key's owner."""
        if not (self._own or self._changes.secret):
            return list(headers)
        return [(name, value) for name, value in headers if name.lower() != b"set-cookie"]

    def _is_credential(self, parameter: bytes) -> bool:
        name, _, value = parameter.partition(b"=")
        if unquote_to_bytes(name).lower() in self._query:
            return True
        digest = _digest(unquote_to_bytes(value.replace(b"+", b" ")))
        return any(hmac.compare_digest(digest, each) for each in self._clients)


def _no_echo() -> APIError:
    return invalid_request(
        "TRACE is not served where the proxy adds a key, because its response would show that key; "
        "use another method.",
        ErrorCode.METHOD_NOT_SUPPORTED,
    )


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _list(value: bytes) -> list[bytes]:
    return [part for each in value.split(b",") if (part := each.strip(b" \t"))]


def _credentials(headers: Iterable[RawHeader]) -> Iterator[bytes]:
    """Yield every key in a request's fields.

    A credential of another kind is yielded as an empty key, which fits no client key.
    """
    for name, value in headers:
        lower = name.lower()
        if lower not in _SHOWING:
            continue
        if lower == b"authorization":
            scheme, _, key = value.strip().partition(b" ")
            yield key.strip() if scheme.lower() == b"bearer" else b""
        elif lower in _KEY_FIELDS:
            yield value.strip()
        else:
            for each in _list(value):
                if each.startswith(_KEY_PROTOCOL):
                    yield each.removeprefix(_KEY_PROTOCOL)


def _is_preflight(headers: Iterable[RawHeader]) -> bool:
    """Report whether by an OPTIONS a browser asks if a page may call (Fetch, "CORS-preflight request")."""
    return {b"origin", b"access-control-request-method"} <= {name.lower() for name, _ in headers}
