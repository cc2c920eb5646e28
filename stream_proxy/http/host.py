"""Host fields: which values are valid, and which host and port they name (RFC 9110 section 7.2)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, invalid_request

# A reg-name of RFC 3986 without the comma, by which some servers join two fields to one.
_AUTHORITY = re.compile(
    rb"(?P<host>\[[0-9A-Fa-f:.]+(?:%[\w.~-]+)?\]|(?:[\w.~!$&'()*+;=-]|%[0-9A-Fa-f]{2})+)"
    rb"(?::(?P<port>[0-9]{0,5}))?",
    re.ASCII,
)
_LAST_PORT = 65_535
#: Characters of an IPv6 address that ends with an IPv4 address.
_LONGEST_ADDRESS = 45
#: Bytes of the longest value whose parts are kept: the longest name that DNS knows, and a port.
_LONGEST_REMEMBERED = 260


def parse_authority(value: bytes) -> tuple[str, int | None] | None:
    """Return host and port of a ``Host`` value or of an origin's authority; ``None`` if it is invalid.

    The host is in lower case, without brackets and without the dot that ends an absolute name.
    """
    # Nearly all requests name the same few hosts.
    return _remembered(value) if len(value) <= _LONGEST_REMEMBERED else _parsed(value)


def _parsed(value: bytes) -> tuple[str, int | None] | None:
    match = _AUTHORITY.fullmatch(value)
    if match is None:
        return None
    host = match["host"].decode("ascii").lower()
    port = int(match["port"]) if match["port"] else None
    if port is not None and port > _LAST_PORT:
        return None
    if host.startswith("["):
        host = host[1:-1].partition("%")[0]
        try:
            return str(IPv6Address(host)), port
        except ValueError:
            return None
    return host.removesuffix(".") or host, port


_remembered = lru_cache(maxsize=256)(_parsed)


def is_address(host: str) -> bool:
    """Report whether a host is an IP address in the one spelling that no resolver is asked for."""
    return len(host) <= _LONGEST_ADDRESS and _is_address(host)


@lru_cache(maxsize=256)
def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def host_fault(values: Sequence[bytes], version: bytes) -> APIError | None:
    """Return the error for the ``Host`` fields of a request (RFC 9112 section 3.2).

    :param values: of all of them.
    :param version: of the request, like ``b"HTTP/1.1"``; HTTP/1.0 knows no such field.
    """
    match values:
        case []:
            problem = "has no Host header" if version == b"HTTP/1.1" else None
        case [value]:
            problem = "has an invalid Host header" if parse_authority(value) is None else None
        case _:
            problem = "has more than one Host header"
    if problem is None:
        return None
    return invalid_request(
        f"The request {problem}; send one with a host and, if need be, a port.", ErrorCode.INVALID_HOST
    )
