"""Captured request as a command line of curl, quoted for POSIX shells. Sans-I/O."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from stream_proxy.observe.capture.bodies import Body
from stream_proxy.observe.capture.exchange import CapturedExchange
from stream_proxy.observe.capture.har import url
from stream_proxy.observe.capture.secrets import BLANK
from stream_proxy.observe.capture.writing import as_base64, pairs

#: Longer arguments are refused by Linux (``MAX_ARG_STRLEN``).
_MOST_ARGUMENT = 100_000
#: Fields that curl writes itself, or that are not true of the body any more.
_OWN = ("host", "content-length", "transfer-encoding", "content-encoding", "accept-encoding", "connection")
_KEY = '"$API_KEY"'
_BLANK = BLANK.decode("ascii")


def command(exchange: CapturedExchange) -> Iterator[bytes]:
    """Yield the parts of a command that sends the request again; the key is in ``$API_KEY``."""
    body, method = exchange.request, exchange.head.method.decode("latin-1")
    piped = body.size > _MOST_ARGUMENT or not body.is_text or any(b"\0" in piece for _, piece in body.pieces)
    if piped:
        yield b"base64 -d <<'END_OF_BODY' | "
    words = ["curl", "-g", _keyed(url(exchange))]
    if method == "HEAD":
        words.append("-I")
    elif method != ("POST" if body.pieces else "GET"):
        words += ["-X", quote(method)]
    yield " ".join(words).encode()
    for name, value in pairs(body.fields):
        option = _option(name, value)
        if option is not None:
            yield b" \\\n  -H " + option.encode()
    if body.pieces and not any(name.lower() == b"content-type" for name, _ in body.fields):
        yield b" \\\n  -H 'Content-Type:'"
    if piped:
        yield b" \\\n  --data-binary @-\n"
        yield from _lines(body)
        yield b"END_OF_BODY\n"
    elif body.pieces:
        yield b" \\\n  --data-raw '"
        for _, piece in body.pieces:
            yield piece.replace(b"'", b"'\"'\"'")
        yield b"'\n"
    else:
        yield b"\n"


def _option(name: str, value: str) -> str | None:
    """Return a field as a word of the shell; ``None`` for one that cannot be sent again."""
    lower = name.lower()
    if lower in _OWN or lower.startswith("x-capture-"):
        return None
    if lower == "authorization":
        return f'"{name}: Bearer $API_KEY"'
    if lower in ("api-key", "x-api-key", "x-goog-api-key"):
        return f'"{name}: $API_KEY"'
    if value == _BLANK:
        return None
    if not value:
        return quote(f"{name};")
    return quote(f"{name}: {value}")


def _keyed(text: str) -> str:
    """Return a URL as a word of the shell, with the key in place of what was blanked."""
    return _KEY.join(quote(part) for part in text.replace("%2A%2A%2A", _BLANK).split(_BLANK))


def _lines(body: Body) -> Iterator[bytes]:
    for part in as_base64(body):
        if part:
            yield part + b"\n"
