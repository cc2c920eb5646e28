"""Egress proxies: the choice between the rule's, the environment's, and none."""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import quote, unquote_to_bytes

from stream_proxy.environment import expand, variable
from stream_proxy.http.url import UpstreamURL, parse_upstream_url

#: Value of a rule's ``proxy`` that overrides the environment with no proxy.
DIRECT = "direct"
_PARTS = re.compile(r"(https?://)(?:([^/?#]*)@)?(.*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class EgressProxy:
    """Proxy that leads to an upstream.

    :param setting: the config key or environment variable that names it.
    :param authorization: the value of ``Proxy-Authorization`` for it.
    """

    url: UpstreamURL
    setting: str
    authorization: bytes | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Its name in error messages."""
        return f"the proxy {self.url.origin}"


def egress_proxy(url: UpstreamURL, setting: str | None, environ: Mapping[str, str]) -> EgressProxy | None:
    """Return the proxy to use for the upstream at `url`.

    Without a `setting` the environment decides: ``https_proxy`` or ``http_proxy`` by the upstream's scheme,
    else ``all_proxy``, unless ``no_proxy`` lists the host. Names in upper case count, too; lower case wins.
    This machine itself is never reached through a proxy.

    :param setting: a rule's ``proxy``: a URL in which ``${NAME}`` is a variable of the environment, or
        ``"direct"``.
    :param environ: the environment.
    :raises ValueError: the text says what is wrong, and quotes nothing that may be a password.
    """
    if setting is not None:
        text = _filled(setting.strip(), environ)
        proxy = None if text == DIRECT else _parse(text, "proxy")
        return None if is_loopback(url.host) else proxy
    if is_loopback(url.host) or is_excepted(url, _variable("no", environ)[1]):
        return None
    for scheme in (url.scheme, "all"):
        name, text = _variable(scheme, environ)
        if text:
            try:
                return _parse(text if "://" in text else "http://" + text, name)
            except ValueError as error:
                raise ValueError(f"the environment's {name} {error}") from None
    return None


def is_loopback(host: str) -> bool:
    """Report whether `host` is this machine, by its name or address."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address is not None and address.is_loopback


def is_excepted(url: UpstreamURL, no_proxy: str) -> bool:
    """Report whether a ``no_proxy`` list holds an upstream.

    :param no_proxy: names (which stand for their subdomains, too), ``.suffixes``, addresses, networks like
        ``10.0.0.0/8``, names and addresses with a port as ``host:port``; ``*`` stands for everything.
    """
    address = _address(url.host)
    names = (url.host.lower(), url.authority.lower())
    for entry in (entry.strip() for entry in no_proxy.split(",")):
        if entry == "*":
            return True
        network = _network(entry)
        if network is not None:
            if address is not None and address in network:
                return True
            continue
        suffix = entry.removeprefix("*").lstrip(".").lower()
        if suffix and any(name == suffix or name.endswith("." + suffix) for name in names):
            return True
    return False


def _parse(text: str, setting: str) -> EgressProxy:
    parts = _PARTS.fullmatch(text)
    if parts is None:
        raise ValueError("must start with http:// or https://")
    scheme, user, rest = parts.groups()
    if "@" in rest:
        raise ValueError("has a user or password with characters that must be percent-encoded")
    try:
        url = parse_upstream_url(scheme.lower() + rest)
    except ValueError as error:
        # urlsplit quotes the URL after the colon: a password, if the @ was forgotten.
        raise ValueError(re.sub(r"(is not a valid URL).*", r"\1", str(error), flags=re.DOTALL)) from None
    if url.prefix:
        raise ValueError("must not have a path")
    authorization = None
    if user is not None:
        name, _, password = user.partition(":")
        credentials = unquote_to_bytes(name) + b":" + unquote_to_bytes(password)
        authorization = b"Basic " + base64.b64encode(credentials)
    return EgressProxy(url, setting, authorization)


def _filled(setting: str, environ: Mapping[str, str]) -> str:
    """Return `setting` with its variables: verbatim, but percent-encoded in the user and password."""
    user, at, rest = setting.rpartition("@")
    user = expand(user, lambda name: quote(variable(name, environ), safe=":"))
    return user + at + expand(rest, lambda name: variable(name, environ)).strip()


def _variable(scheme: str, environ: Mapping[str, str]) -> tuple[str, str]:
    name = f"{scheme}_proxy"
    if name not in environ:
        name = name.upper()
    return name, environ.get(name, "").strip()


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return ip_address(socket.inet_aton(host))  # short forms such as 127.1, which resolvers accept
    except (OSError, ValueError):
        return None


def _network(entry: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(entry.removeprefix("[").removesuffix("]"), strict=False)
    except ValueError:
        return None
