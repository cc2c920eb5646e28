"""Base URLs of upstreams."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit

from stream_proxy.http.headers import RawHeader
from stream_proxy.http.host import parse_authority

_ABSOLUTE = re.compile(rb"(?P<scheme>[A-Za-z]+)://(?P<authority>[^/?#\\]*)(?P<rest>.*)", re.DOTALL)
_VERSION_TWICE = re.compile(rb"(?P<version>/v[0-9][0-9a-z]*)(?P=version)(?=/|\Z)")
_LOCATIONS = (b"location", b"content-location")


@dataclass(frozen=True)
class UpstreamURL:
    """An upstream's base URL in its parts.

    ``host`` has no brackets, ``prefix`` (the path) no slash at its end.
    """

    scheme: str
    host: str
    port: int
    prefix: bytes

    @cached_property
    def netloc(self) -> bytes:
        """The host, with the port unless that is the scheme's default (RFC 9110 section 4.2.3)."""
        default = 443 if self.scheme == "https" else 80
        return (self._host if self.port == default else self.authority).encode("ascii")

    @property
    def authority(self) -> str:
        """The host with the port, even if that is the default."""
        return f"{self._host}:{self.port}"

    @property
    def _host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    @cached_property
    def origin(self) -> str:
        """Scheme, host and port, by which errors and the log name the upstream."""
        return f"{self.scheme}://{self.netloc.decode('ascii')}"

    def below(self, location: bytes) -> bytes | None:
        """Return what follows this URL in `location`, from its slash on; ``None`` for every other URL."""
        match = _ABSOLUTE.fullmatch(location)
        if match is None or match["scheme"].lower() != self.scheme.encode("ascii"):
            return None
        default = 443 if self.scheme == "https" else 80
        named, own = parse_authority(match["authority"]), parse_authority(self.netloc)
        if named is None or own is None or (named[0], named[1] or default) != (own[0], self.port):
            return None
        rest = match["rest"]
        if not rest.startswith(self.prefix):
            return None
        rest = rest[len(self.prefix) :]
        if not rest or rest[:1] in b"?#":
            return b"/" + rest
        # What begins with two slashes would be another host's to a client (RFC 3986 section 4.2).
        return rest if rest[:1] == b"/" and rest[1:2] not in (b"/", b"\\") else None


def local_locations(url: UpstreamURL, headers: list[RawHeader], mount: bytes = b"") -> list[RawHeader]:
    """Return the fields of a response with URLs below `url` led back to the proxy.

    Servers build these URLs out of the ``Host`` that they see, which is their own: a client that followed one
    would go past the proxy.

    :param mount: the path under which the client finds what is below `url`.
    """
    found = headers
    for place, (name, value) in enumerate(headers):
        if name.lower() in _LOCATIONS and (rest := url.below(value)) is not None:
            if found is headers:
                found = headers.copy()
            found[place] = (name, mount + rest)
    return found


def doubled_path(prefix: bytes, path: bytes) -> bytes | None:
    """Return what stands twice in a row in a target because two base URLs end with it, like ``/v1``.

    :param prefix: the path of the upstream's URL.
    :param path: the client's.
    """
    segments = prefix.split(b"/")
    for start in range(1, len(segments)):
        tail = b"/" + b"/".join(segments[start:])
        if (path + b"/").startswith(tail + b"/"):
            return tail
    match = _VERSION_TWICE.search(path)
    return match["version"] if match is not None else None


_PATH = re.compile(r"(/[\x21-\x22\x24-\x3e\x40-\x7e]*)?")


def parse_upstream_url(url: str) -> UpstreamURL:
    """Split a base URL into its parts.

    :raises ValueError: with a sentence about what is wrong with it.
    """
    url = url.strip()
    if re.search(r"[\x00-\x20\x7f]", url):  # urlsplit would drop line ends, and so change the host
        raise ValueError("must not hold blanks or control characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"is not a valid URL: {error}") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("must start with http:// or https://")
    if not parts.hostname:
        raise ValueError("names no host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or password; clients send their own Authorization")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise ValueError("must not have a query or a fragment")
    if not _PATH.fullmatch(parts.path):
        raise ValueError("has a path with characters that must be percent-encoded")
    try:
        host = parts.hostname if ":" in parts.hostname else parts.hostname.encode("idna").decode("ascii")
    except UnicodeError:
        raise ValueError("names a host that is no valid host name") from None
    if not re.fullmatch(r"[0-9A-Za-z._:%-]+", host):
        raise ValueError("names a host that is no valid host name")
    if port == 0:
        raise ValueError("has the port 0")
    default = 443 if parts.scheme == "https" else 80
    return UpstreamURL(parts.scheme, host, port or default, parts.path.rstrip("/").encode("ascii"))
