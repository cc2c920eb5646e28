"""Header fields: which ones a proxy forwards, and which ones end at it (RFC 9110 section 7.6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

#: Name and value of one field, as they came.
RawHeader = tuple[bytes, bytes]

#: Parts of expressions: a name (RFC 9110 section 5.6.2), and what a field may hold behind its colon. Both are
#: possessive: matching takes linear time.
TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
FIELD_TEXT = rb"[\t\x20-\x7e\x80-\xff]*+"
#: A line of a head that is known to be well-formed, with the blanks behind its value.
FIELD_LINE = re.compile(rb"([^:]++):[ \t]*+([^\r]*+)\r\n")

_TOKEN = re.compile(TOKEN)

#: Fields that belong to one connection, whether or not ``Connection`` lists them. ``Trailer`` is here because
#: trailers are not forwarded; ``Proxy-Connection`` is an old mistake that some clients still make.
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)

#: Fields that the proxy writes itself on a request (host and framing), or answers itself (``Expect``).
_REQUEST_OWN = HOP_BY_HOP | {b"host", b"content-length", b"expect"}

#: Fields that the proxy writes itself on a converted response.
_CONVERTED_OWN = HOP_BY_HOP | {b"content-type", b"content-length", b"content-encoding"}

#: Fields that the proxy writes itself on a request for an uncompressed response, and on a converted one.
_UNCOMPRESSED_OWN = _REQUEST_OWN | {b"accept-encoding"}
_STREAMING_OWN = _UNCOMPRESSED_OWN | {b"accept"}


def is_field_name(text: str) -> bool:
    """Report whether `text` is a valid field name (RFC 9110 section 5.6.2)."""
    return text.isascii() and _TOKEN.fullmatch(text.encode()) is not None


def raw_headers(headers: Iterable[tuple[bytes, Sequence[bytes]]]) -> list[RawHeader]:
    """Return one pair for each field, from names with all their values (``Headers.getAllRawHeaders()``)."""
    return [(name, value) for name, values in headers for value in values]


def connection_tokens(values: Iterable[bytes]) -> frozenset[bytes]:
    """Return the options that ``Connection`` fields list, in lower case (RFC 9110 section 7.6.1)."""
    return frozenset(
        token for value in values for part in value.split(b",") if (token := part.strip(b" \t").lower())
    )


def request_headers(headers: Iterable[RawHeader]) -> list[RawHeader]:
    """Return the client's fields that go upstream, in order, each as often as it came."""
    return _forwarded(headers, _REQUEST_OWN)


def streaming_request_headers(headers: Iterable[RawHeader]) -> list[RawHeader]:
    """Return the fields of a converted request, which asks for an uncompressed event stream."""
    own = [(b"Accept", b"text/event-stream"), (b"Accept-Encoding", b"identity")]
    return _forwarded(headers, _STREAMING_OWN) + own


def uncompressed_request_headers(headers: Iterable[RawHeader]) -> list[RawHeader]:
    """Return the client's fields for a request that asks for an uncompressed response."""
    return [*_forwarded(headers, _UNCOMPRESSED_OWN), (b"Accept-Encoding", b"identity")]


def response_headers(headers: Iterable[RawHeader], connection: Iterable[bytes] = ()) -> list[RawHeader]:
    """Return the upstream's fields that go to the client, in order, each as often as it came.

    :param connection: values of ``Connection`` fields that are not among `headers`.
    """
    return _forwarded(headers, HOP_BY_HOP, connection)


def converted_response_headers(headers: Iterable[RawHeader]) -> list[RawHeader]:
    """Return the upstream's fields that go to the client with a body that the proxy wrote."""
    return _forwarded(headers, _CONVERTED_OWN)


def _forwarded(
    headers: Iterable[RawHeader], own: frozenset[bytes], connection: Iterable[bytes] = ()
) -> list[RawHeader]:
    kept = []
    options = list(connection)
    for field in headers:
        lower = field[0].lower()
        if lower not in own:
            kept.append(field)
        elif lower == b"connection" and field[1] != b"keep-alive":  # the usual one, which names nothing more
            options.append(field[1])
    if options:
        listed = connection_tokens(options)
        kept = [field for field in kept if field[0].lower() not in listed]
    return kept
