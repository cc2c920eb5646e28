"""Loops: rules whose upstreams lead, through rules of the same process, back to themselves."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

from stream_proxy.adapter.dialect import Dialect
from stream_proxy.errors import ConfigError
from stream_proxy.http.url import UpstreamURL, parse_upstream_url
from stream_proxy.service.configuration.types import Rule
from stream_proxy.upstream.egress import is_loopback

Address = IPv4Address | IPv6Address
#: Where a rule listens: an address, and a port.
Place = tuple[Address, int]

_LOOPBACK: tuple[Address, ...] = (IPv4Address("127.0.0.1"), IPv6Address("::1"))


def check_loops(rules: list[Rule], places: Mapping[int, Place], named: Callable[[str], str]) -> None:
    """Check that no request would be sent from rule to rule for ever.

    Only names of this machine are known here: resolving the others would take time, and may change.

    :param places: where rules listen, by their index; those on UNIX sockets are no upstreams.
    :param named: returns the name that errors give to a key of the config.
    :raises ConfigError: a rule leads back to itself.
    """
    hops = {index: _hop(rule) for index, rule in enumerate(rules)}
    leads = {index: _find(url, places) for index, (url, _) in hops.items()}
    for start in leads:
        way = [start]
        while (target := leads[way[-1]]) is not None and target not in way:
            way.append(target)
        if target == start:
            through = ", ".join(f"rules[{index}]" for index in way[1:])
            how = hops[start][1] + (f" through {through}" if through else "")
            raise ConfigError(f"{named(f'rules[{start}].{how}')}, so each request would come again")


def _hop(rule: Rule) -> tuple[UpstreamURL, str]:
    """Return the server that a rule connects to, and the words of an error about it."""
    if rule.adapter is not None:
        url = Dialect(rule.upstream_url, rule.adapter).url
    else:
        url = parse_upstream_url(rule.upstream_url)
    proxy = rule.route.egress(url)
    if proxy is None:
        return url, "upstreamUrl: leads back to this rule"
    if proxy.setting == "proxy":
        return proxy.url, "proxy: leads back to this rule"
    return proxy.url, f"upstreamUrl: the environment's {proxy.setting} leads back to this rule"


def _find(url: UpstreamURL, places: Mapping[int, Place]) -> int | None:
    """Return the rule that a server is."""
    for index, (address, port) in places.items():
        if port == url.port and _reaches(url.host, address):
            return index
    return None


def _reaches(host: str, listening: Address) -> bool:
    """Report whether connections to `host` come to a socket that listens on an address of this machine."""
    for address in _addresses(host):
        if listening.is_unspecified:
            family = address.version == listening.version or listening.version == 6
            if family and (address.is_unspecified or _is_ours(address)):
                return True
        elif address == listening or (address.is_unspecified and listening in _LOOPBACK):
            return True
    return False


def _addresses(host: str) -> tuple[Address, ...]:
    """Return the addresses of a host that are known without asking anybody."""
    name = host.rstrip(".").lower()
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return _LOOPBACK if is_loopback(host) or name == socket.gethostname().lower() else ()
    return tuple(plain(str(each[4][0])) for each in found)


def plain(text: str) -> Address:
    """Return an address without a scope, and IPv4's as such."""
    address = ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_ours(address: Address) -> bool:
    """Report whether this machine has an address: the system sends to it from itself."""
    if address.is_loopback:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))  # nothing is sent
            return plain(probe.getsockname()[0]) == address
    except OSError:
        return False
