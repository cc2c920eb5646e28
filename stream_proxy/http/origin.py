"""Web pages that call: which ones may spend a key that is the operator's.

A browser sends what any page asks it to: forms and WebSockets without asking first, and by DNS rebinding (a
name of the page's own that resolves to this machine) everything. What it does not let a page change are
``Host``, ``Origin`` and ``Sec-Fetch-Site``. Programs other than browsers send no ``Origin``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, proxy_error
from stream_proxy.http.headers import RawHeader
from stream_proxy.http.host import is_address, parse_authority

#: Stands for any port, and in other schemes than HTTP's for any host.
_ANY = "*"
_PORTS = {"http": 80, "https": 443}
_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<rest>[\x21-\x2b\x2d\x2e\x30-\x7e]*)", re.IGNORECASE
)
_LOCAL = ("localhost", "127.0.0.1", "[::1]")
#: The origins that may call where the rule names none: pages of this machine.
LOCAL_ORIGINS = tuple(f"{scheme}://{host}:{_ANY}" for scheme in _PORTS for host in _LOCAL)
#: Fields that say where a request comes from.
_SAYING = frozenset({b"host", b"origin", b"sec-fetch-site"})
#: Longest part of a header field that an error repeats.
_MOST_QUOTED = 100

#: Scheme, host and port.
Origin = tuple[str, str, int | str]


class Pages:
    """The hosts and origins by which browsers may call a rule.

    :param hosts: names of the proxy, beside ``localhost`` and all IP addresses.
    :param origins: origins of pages, like ``https://app.example``; a port ``*`` is any port, and ``SCHEME://*``
        any origin of a scheme other than HTTP's. ``None`` for :data:`LOCAL_ORIGINS`.
    :raises ValueError: one of them is no host or no origin; the text begins with its key.
    """

    def __init__(self, hosts: Iterable[str] = (), origins: Iterable[str] | None = None) -> None:
        self._hosts = frozenset(["localhost", *map(_host, hosts)])
        self._origins = frozenset(map(_allowed, LOCAL_ORIGINS if origins is None else origins))

    def refusal(self, headers: Iterable[RawHeader]) -> APIError | None:
        """Return the error for a request that a page may have caused which is none of these."""
        hosts, origins, sites = [], [], []
        for name, value in headers:
            lower = name.lower()
            if lower not in _SAYING:
                continue
            if lower == b"host":
                hosts.append(value)
            elif lower == b"origin":
                origins.append(value)
            else:
                sites.append(value.strip().lower())
        named = [parse_authority(host) for host in hosts]
        for host, parsed in zip(hosts, named, strict=True):  # none at all: no browser
            if parsed is None or not (parsed[0] in self._hosts or is_address(parsed[0])):
                return _foreign("the host", host, 'add it to "hosts"')
        for origin in origins:
            parsed_origin = parse_origin(origin.decode("latin-1"))
            if parsed_origin is None:  # "null" among others: no page's own
                return _foreign("pages of the origin", origin, "call from a page that has one")
            if not (self._allows(parsed_origin) or comes_from(parsed_origin, named)):
                return _foreign("pages of the origin", origin, 'add it to "origins"')
        if b"cross-site" in sites and not origins:
            return _foreign("pages of other sites", b"", 'add their origins to "origins"')
        return None

    def _allows(self, origin: Origin) -> bool:
        scheme, host, _ = origin
        return not self._origins.isdisjoint({origin, (scheme, host, _ANY), (scheme, _ANY, _ANY)})


def _host(text: str) -> str:
    parsed = parse_authority(text.encode("utf-8"))
    if parsed is None or ":" in text or _ANY in text:
        raise ValueError(f"hosts: {text[:_MOST_QUOTED]} must be a host name without scheme and port")
    return parsed[0]


def _allowed(text: str) -> Origin:
    """Return an origin of the configuration."""
    parsed = parse_origin(text.removesuffix(f":{_ANY}"))
    if parsed is None or (_ANY in parsed[1] and parsed[0] in _PORTS):
        # Neither "*" nor "null", which any page can send: what is open to all needs clientKeys.
        raise ValueError(
            f"origins: {text[:_MOST_QUOTED]} must be an origin like https://app.example or http://localhost:*"
        )
    scheme, host, port = parsed
    return scheme, host, _ANY if text.endswith(f":{_ANY}") or scheme not in _PORTS else port


def parse_origin(text: str) -> Origin | None:
    """Return scheme, host and port of an ``Origin`` value; ``None`` if it is invalid, or ``null``."""
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return None
    scheme, rest = match["scheme"].lower(), match["rest"].lower()
    if scheme not in _PORTS:
        return scheme, rest, _ANY
    authority = parse_authority(rest.encode("latin-1"))
    if authority is None:
        return None
    host, port = authority
    return scheme, host, _PORTS[scheme] if port is None else port


def comes_from(origin: Origin, named: list[tuple[str, int | None] | None]) -> bool:
    """Report whether a page came from the very host and port that it calls."""
    scheme, host, port = origin
    return scheme in _PORTS and any(
        parsed is not None and (parsed[0], parsed[1] or _PORTS[scheme]) == (host, port) for parsed in named
    )


def _foreign(what: str, value: bytes, remedy: str) -> APIError:
    shown = f" {value[:_MOST_QUOTED].decode('latin-1')}" if value else ""
    end = f"; {remedy}, or set clientKeys, because the rule spends a key of its own."
    return proxy_error(
        ErrorCode.FOREIGN_ORIGIN,
        f"This rule does not answer {what}{shown}{end}",
        for_log=f"the rule does not answer {what} of the request{end}",
    )
