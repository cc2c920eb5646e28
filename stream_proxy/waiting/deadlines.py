"""Deadlines of clients that wait for one JSON: when a byte has to reach them. Sans-I/O.

SDKs announce their time-outs in headers; hops between client and proxy show themselves in others, and cut
connections on which nothing moves (load balancers at 60 s, CDNs at 100 s). Everything else is as patient as
Node's fetch and the NATs: 300 s without a head, 350 s without a byte.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from stream_proxy.http.headers import RawHeader

#: Fields in which SDKs announce after how many seconds without a byte they give up.
_ANNOUNCED = frozenset({b"x-stainless-read-timeout", b"x-stainless-timeout"})
#: Fields by which a hop between client and proxy shows itself.
_HOPS = frozenset({b"via", b"forwarded", b"x-forwarded-for", b"cf-ray", b"x-amzn-trace-id"})
_TELLING = _ANNOUNCED | _HOPS
# As SDKs write numbers; `float` would take underscores, blanks and other alphabets' digits as well.
_NUMBER = re.compile(rb"[0-9]{1,15}(\.[0-9]{1,15})?")

_BEHIND_HOP = 50.0
_PATIENT = 240.0
_INTERVAL = 15.0
#: Parts of the announced time-out after which the head and each further byte go out.
_HEAD_SHARE, _INTERVAL_SHARE = 0.8, 0.4
_LEAST_ANNOUNCED = 1.0
_LEAST_INTERVAL = 0.5


class Schedule(NamedTuple):
    """When a client that waits receives bytes, in seconds: the first, and then the interval; 0: never."""

    first: float
    interval: float


def announced_timeout(fields: Iterable[RawHeader]) -> float | None:
    """Return the seconds after which a client gives up, if it says so; the least of several.

    What is no number, not finite or at most 0 counts as absent, less than a second as one.
    """
    least: float | None = None
    for name, value in fields:
        if name.lower() in _ANNOUNCED and _NUMBER.fullmatch(value.strip()):
            seconds = float(value)
            if math.isfinite(seconds) and seconds > 0:
                seconds = max(seconds, _LEAST_ANNOUNCED)
                least = seconds if least is None else min(least, seconds)
    return least


def schedule(setting: float | Literal["auto"], fields: Iterable[RawHeader], *, hop: bool) -> Schedule:
    """Return when the client of a converted call receives bytes.

    :param setting: ``keepAliveSeconds``.
    :param fields: the client's header fields.
    :param hop: the connection itself shows a hop: HTTP/1.0, or the PROXY protocol.
    """
    if setting != "auto":
        return Schedule(setting, setting)
    telling = [field for field in fields if field[0].lower() in _TELLING]
    announced = announced_timeout(telling) if telling else None
    if any(name.lower() in _HOPS for name, _ in telling):
        hop = True
    first = _BEHIND_HOP if hop else _PATIENT
    if announced is None:
        return Schedule(first, _INTERVAL)
    interval = max(min(_INTERVAL, announced * _INTERVAL_SHARE), _LEAST_INTERVAL)
    return Schedule(min(first, announced * _HEAD_SHARE), interval)
