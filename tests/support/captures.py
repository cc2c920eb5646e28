"""Captures in tests: made through real sockets, and read as they are downloaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from stream_proxy.observe.capture import curl, har, lines
from stream_proxy.observe.capture.capture import Capture
from stream_proxy.observe.capture.exchange import CapturedExchange
from stream_proxy.observe.ledger import Ledger
from tests.support.loopback import reactor
from tests.support.stage import eventually


def capturing(**options: Any) -> tuple[Ledger, Capture]:
    """Return a ledger whose requests are all captured, and the capture; `options` are those of Capture."""
    ledger = Ledger(reactor.seconds)
    return ledger, Capture(ledger, **{"always": True, **options})


def kept(capture: Capture) -> Iterator[CapturedExchange]:
    """Yield the exchanges of a capture."""
    ring = capture.ring
    for place in range(ring.first, ring.first + len(ring)):
        exchange = ring.at(place)
        assert exchange is not None
        yield exchange


async def captured(capture: Capture, count: int = 1) -> list[CapturedExchange]:
    """Wait until so many exchanges have ended, and return them."""
    assert await eventually(lambda: len(capture.ring) >= count)
    return list(kept(capture))


def as_har(capture: Capture) -> dict[str, Any]:
    """Return a capture as HAR, decoded."""
    entries = (b"".join(har.entries(each, str(each.number), capture.epoch)) for each in kept(capture))
    decoded: dict[str, Any] = json.loads(har.BEGIN + har.SEPARATOR.join(entries) + har.END)
    return decoded


def as_lines(capture: Capture) -> list[dict[str, Any]]:
    """Return a capture as JSON lines, decoded."""
    return [json.loads(b"".join(lines.line(each, str(each.number), capture.epoch))) for each in kept(capture)]


def as_curl(exchange: CapturedExchange) -> str:
    """Return an exchange as a command."""
    return b"".join(curl.command(exchange)).decode()


def everything(capture: Capture) -> bytes:
    """Return all downloads of a capture, one behind the other."""
    downloads = [
        json.dumps(as_har(capture)),
        *map(json.dumps, as_lines(capture)),
        *map(as_curl, kept(capture)),
    ]
    return "\n".join(downloads).encode()


def body_of(part: dict[str, Any]) -> str:
    """Return the body of a request or response in a JSON line."""
    return "".join(piece for _, piece in part.get("body", ()))
