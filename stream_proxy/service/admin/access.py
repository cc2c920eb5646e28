"""Access to the admin port: which requests are answered. Sans-I/O.

A browser sends what any page asks it to. Of what it sends with it, a page cannot change ``Host``, ``Origin``
and ``Sec-Fetch-Site``: by the first a name of the page's own is known that resolves to this machine (DNS
rebinding), by the others a page of elsewhere. Programs other than browsers send no ``Origin``.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum

from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, invalid_request, proxy_error
from stream_proxy.http.headers import RawHeader
from stream_proxy.http.host import is_address, parse_authority
from stream_proxy.http.origin import comes_from, parse_origin

#: Field of the response to a request without a key (RFC 9110 section 11.6.1).
CHALLENGE: tuple[RawHeader, ...] = ((b"WWW-Authenticate", b"Bearer"),)
#: Longest part of a header field that an error repeats.
_MOST_QUOTED = 100
_SAME = b"same-origin"
_KEY = "send a key of admin.key as Authorization: Bearer KEY"


class Guard(Enum):
    """What a request needs to be answered."""

    #: Nothing: health checks come from anywhere, some without a ``Host``.
    OPEN = "open"
    #: A host of ours, and no page of elsewhere behind it.
    PLACE = "place"
    #: A key as well, unless none is configured and only this machine can connect.
    KEY = "key"
    #: A key in any case: other users of this machine can connect, too.
    SECRET = "secret"


class AdminAccess:
    """Hosts and keys of the admin port.

    :param keys: the keys; see :class:`Guard` for what is answered without any.
    :param hosts: names of the port, beside ``localhost`` and all IP addresses.
    :param local: only this machine can connect.
    :param port: the port, for the name of the cookie: browsers send cookies to all ports of a host.
    :param secret: what cookies are made with; those made with another one are worth nothing.
    """

    def __init__(
        self,
        keys: Iterable[bytes] = (),
        hosts: Iterable[str] = (),
        *,
        local: bool = True,
        port: int | None = None,
        secret: bytes | None = None,
    ) -> None:
        #: Only this machine can connect.
        self.local = local
        self._hosts = frozenset(["localhost", *(name.lower().removesuffix(".") for name in hosts)])
        self._cookie = b"stream_proxy_admin" if port is None else b"stream_proxy_admin_%d" % port
        self._secret = secret or secrets.token_bytes(32)
        # Digests have one length, so that the time of a comparison says nothing about the keys.
        self._keys = tuple(_digest(key) for key in keys)
        self._tokens = tuple(self._token(digest) for digest in self._keys)

    def changed(self, keys: Iterable[bytes], hosts: Iterable[str]) -> AdminAccess:
        """Return the access after a reload, for which cookies of keys that are left stay good."""
        access = AdminAccess(keys, hosts, local=self.local, secret=self._secret)
        access._cookie = self._cookie
        return access

    def same_keys(self, other: AdminAccess) -> bool:
        """Report whether whoever shows a key here may do so there."""
        return set(self._tokens) == set(other._tokens) and self._hosts == other._hosts

    @property
    def has_keys(self) -> bool:
        """Whether there is any key."""
        return bool(self._keys)

    def refusal(self, guard: Guard, method: bytes, headers: Sequence[RawHeader]) -> APIError | None:
        """Return the error for a request that is not answered."""
        if guard is Guard.OPEN:
            return None
        error = self._foreign(method, headers)
        if error is None and guard is not Guard.PLACE:
            error = self._unauthorized(guard, headers)
        return error

    def _foreign(self, method: bytes, headers: Sequence[RawHeader]) -> APIError | None:
        """Return the error for a request to another host, or one that a page of elsewhere may have caused."""
        hosts = _values(headers, b"host")
        named = [parse_authority(value) for value in hosts]
        for value, parsed in zip(hosts, named, strict=True):
            if parsed is None or not (parsed[0] in self._hosts or is_address(parsed[0])):
                return _refused("the host", value, '; add it to "hosts" of "admin"')
        if not named:
            return _refused("requests without Host", b"", "")
        for origin in _values(headers, b"origin"):
            page = parse_origin(origin.decode("latin-1"))
            if page is None or not comes_from(page, named):
                return _refused("pages of the origin", origin, "")
        for site in _values(headers, b"sec-fetch-site"):
            site = site.strip().lower()
            if site == b"cross-site" or (method not in (b"GET", b"HEAD") and site != _SAME):
                return _refused("pages of other sites", b"", "; open its address by hand")
        return None

    def _unauthorized(self, guard: Guard, headers: Sequence[RawHeader]) -> APIError | None:
        if not self._keys:
            if guard is Guard.KEY and self.local:
                return None
            where = "there" if self.local else "where others than this machine can connect"
            return _no_key(f'This needs a key: set "key" of "admin", which is required {where}.')
        shown = list(_bearers(headers))
        given = [*map(_digest, shown), *self._cookies(headers)]
        # No short cuts: each is compared with all, so that the time taken is the same whichever fits.
        fits = [hmac.compare_digest(each, known) for each in given for known in (*self._keys, *self._tokens)]
        if any(fits):
            return None
        what = "The key is not one of the admin port's" if shown else "There is no key"
        return _no_key(f"{what}; {_KEY}.")

    def exchange(self, key: bytes) -> bytes | None:
        """Return the value of ``Set-Cookie`` for a key; ``None`` if it is none of ours."""
        digest = _digest(key)
        fits = [hmac.compare_digest(digest, known) for known in self._keys]
        return self._set_cookie(self._token(digest)) if any(fits) else None

    def forget(self) -> bytes:
        """Return the value of ``Set-Cookie`` that removes the cookie."""
        return self._set_cookie(b"") + b"; Max-Age=0"

    def _set_cookie(self, token: bytes) -> bytes:
        return b"%b=%b; Path=/; HttpOnly; SameSite=Strict" % (self._cookie, token)

    def _token(self, digest: bytes) -> bytes:
        return hmac.digest(self._secret, digest, "sha256").hex().encode()

    def _cookies(self, headers: Sequence[RawHeader]) -> Iterator[bytes]:
        for value in _values(headers, b"cookie"):
            for pair in value.split(b";"):
                name, _, token = pair.strip().partition(b"=")
                if name == self._cookie:
                    yield token


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _values(headers: Iterable[RawHeader], wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name.lower() == wanted]


def _bearers(headers: Iterable[RawHeader]) -> Iterator[bytes]:
    for value in _values(headers, b"authorization"):
        scheme, _, key = value.strip().partition(b" ")
        if scheme.lower() == b"bearer":
            yield key.strip()


def _refused(what: str, value: bytes, remedy: str) -> APIError:
    shown = f" {value[:_MOST_QUOTED].decode('latin-1')}" if value else ""
    return proxy_error(
        ErrorCode.FOREIGN_ORIGIN,
        f"The admin port does not answer {what}{shown}{remedy}.",
        for_log=f"the admin port does not answer {what} of the request",
    )


def _no_key(message: str) -> APIError:
    return invalid_request(message, ErrorCode.INVALID_API_KEY)
