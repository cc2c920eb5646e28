"""Capture of this process on the admin port, and what all downloads have in common."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from stream_proxy.error_codes import ErrorCode
from stream_proxy.errors import APIError, invalid_request, proxy_error
from stream_proxy.http.headers import RawHeader
from stream_proxy.observe.capture import curl, har, lines
from stream_proxy.observe.capture.capture import Capture
from stream_proxy.observe.capture.exchange import CapturedExchange
from stream_proxy.service.admin.capture.download import Download
from stream_proxy.service.admin.router import Visit

#: Forms of a download.
Form = Literal["har", "jsonl", "curl"]
#: What a capture is, as the admin port says it.
State = dict[str, object]

MOST_DOWNLOADS = 4
_TYPES: dict[Form, bytes] = {
    "har": b"application/json",
    "jsonl": b"application/x-ndjson",
    "curl": b"text/plain; charset=utf-8",
}
_NUMBER = re.compile(r"[0-9]{1,19}")
_PREFIX = re.compile(r"[0-9.]{1,40}-")
MISSING = "No such exchange is in the capture; those under way come into it when they end."


class LocalCapture:
    """The capture of this process."""

    def __init__(self, clock: IReactorTime, capture: Capture) -> None:
        self._clock = clock
        self._capture = capture
        self._downloads = 0

    def state(self) -> Deferred[State]:
        return succeed(self._capture.state())

    def want(self, requests: int) -> Deferred[State]:
        self._capture.want(requests)
        return self.state()

    def clear(self) -> Deferred[State]:
        self._capture.ring.clear()
        return self.state()

    def download(self, visit: Visit, form: Form) -> None:
        """Send all exchanges; for another process, which has its own, without what is around them."""
        query = visit.query
        prefix = query.get("prefix", "")
        is_part = _PREFIX.fullmatch(prefix) is not None
        steps = self._all(form, prefix if is_part else "")
        if form == "har" and not is_part:
            steps = around(steps)
        self._send(visit, steps, form, b"capture")

    def download_one(self, visit: Visit, name: str, form: Form) -> None:
        exchange = self._capture.ring.find(int(name)) if _NUMBER.fullmatch(name) else None
        if exchange is None:
            visit.fail(invalid_request(MISSING, ErrorCode.UNKNOWN_URL))
            return
        steps = self._one(exchange, form, "")
        self._send(visit, around(steps) if form == "har" else steps, form, b"exchange-" + name.encode())

    def _send(self, visit: Visit, steps: Iterator[bytes], form: Form, name: bytes) -> None:
        if self._downloads >= MOST_DOWNLOADS:
            visit.fail(busy())
            return
        self._downloads += 1
        if start(visit, form, name):
            Download(self._clock, visit, steps, self._ended).start()
        else:
            self._ended()

    def _ended(self) -> None:
        self._downloads -= 1

    def _all(self, form: Form, prefix: str) -> Iterator[bytes]:
        """Yield those that have ended by now, in their order, as long as they are kept."""
        ring = self._capture.ring
        place, last = ring.first, ring.first + len(ring)
        separator = b""
        while place < last:
            place = max(place, ring.first)
            exchange = ring.at(place)
            place += 1
            if exchange is not None:
                yield separator
                yield from self._one(exchange, form, prefix)
                separator = har.SEPARATOR if form == "har" else b""

    def _one(self, exchange: CapturedExchange, form: Form, prefix: str) -> Iterator[bytes]:
        name, epoch = f"{prefix}{exchange.number}", self._capture.epoch
        if form == "curl":
            return curl.command(exchange)
        return har.entries(exchange, name, epoch) if form == "har" else lines.line(exchange, name, epoch)


def around(entries: Iterator[bytes]) -> Iterator[bytes]:
    """Yield a HAR file with these entries."""
    yield har.BEGIN
    yield from entries
    yield har.END


def start(visit: Visit, form: Form, name: bytes) -> bool:
    """Set the head of a download, and report whether its body is wanted."""
    if not visit.is_open:
        return False
    headers: list[RawHeader] = []
    if form != "curl":
        headers.append((b"Content-Disposition", b'attachment; filename="%b.%b"' % (name, form.encode())))
    visit.start(200, _TYPES[form], headers)
    if visit.request.method == b"HEAD":
        visit.request.write(b"")
        visit.request.finish()
        return False
    return True


def busy() -> APIError:
    """Return the error for one download too many."""
    return proxy_error(
        ErrorCode.SERVER_IS_OVERLOADED, f"{MOST_DOWNLOADS} downloads of the capture run already; try again."
    )
