"""Capture of a process: off, on, or on for the next requests. Sans-I/O."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from stream_proxy.http.headers import RawHeader
from stream_proxy.observe.capture.exchange import CapturedExchange, Head
from stream_proxy.observe.capture.ring import CaptureRing
from stream_proxy.observe.capture.secrets import Secrets
from stream_proxy.observe.ledger import Ledger
from stream_proxy.observe.record import Record

#: The size of a ring, unless it is configured.
MEGABYTES = 64
#: The most requests that can be asked for at once.
MOST_WANTED = 10_000


class Capture:
    """Capture of the requests of a ledger, which knows of it only while it wants some.

    :param megabytes: the bound of the ring.
    :param bodies: keep bodies, not only heads and times.
    :param always: capture every request.
    :param secrets: the values that no capture holds.
    :param wall: seconds since 1970.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        megabytes: float = MEGABYTES,
        bodies: bool = True,
        always: bool = False,
        secrets: Iterable[bytes] = (),
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.ring = CaptureRing(int(megabytes * 2**20))
        self.bodies = bodies
        #: Seconds since 1970 at the zero of the reactor's clock.
        self.epoch = wall() - ledger.seconds()
        self._ledger = ledger
        self._always = always
        self._wanted = 0
        #: Values that are secrets wherever they stand.
        self.secrets = Secrets(secrets)
        self._switch()

    @property
    def always(self) -> bool:
        """Every request is captured."""
        return self._always

    @property
    def wanted(self) -> int:
        """How many of the next requests are captured, if not all are."""
        return self._wanted

    def want(self, requests: int) -> None:
        """Capture so many of the next requests; 0 for no more."""
        self._wanted = min(max(0, requests), MOST_WANTED)
        self._switch()

    def change(self, *, always: bool, megabytes: float, bodies: bool, secrets: Iterable[bytes]) -> None:
        """Go on with another configuration, from the next request on."""
        self._always, self.bodies = always, bodies
        self.secrets = Secrets(secrets)
        self.ring.resize(int(megabytes * 2**20))
        self._switch()

    def begin(
        self, record: Record, target: bytes, version: bytes, fields: Iterable[RawHeader], origin: str
    ) -> CapturedExchange:
        """Capture a request whose head is in."""
        if not self._always:
            self._wanted -= 1
            self._switch()
        head = Head(record.method, target, version, origin)
        return CapturedExchange(
            record, head, fields, self.ring, self.secrets, self._ledger.seconds, bodies=self.bodies
        )

    def state(self) -> dict[str, object]:
        """Return what there is, in the form of the admin port's JSON."""
        ring = self.ring
        return {
            "on": self._always or self._wanted > 0,
            "always": self._always,
            "wanted": self._wanted,
            "bodies": self.bodies,
            "exchanges": len(ring),
            "bytes": ring.size,
            "maxBytes": ring.most_bytes,
        }

    def _switch(self) -> None:
        self._ledger.capture = self if self._always or self._wanted > 0 else None
