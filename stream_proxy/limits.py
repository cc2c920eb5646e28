"""Limits of the data path: times, sizes and counts, with their defaults."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

#: The most that one call may make the proxy hold in memory, unless it is configured otherwise.
MAX_HELD_BYTES = 256 * 2**20
#: The largest event that is read, unless it is configured otherwise: reading one is a single step.
MAX_EVENT_BYTES = 16 * 2**20
#: The most values that one response, event or request is decoded with, unless it is configured otherwise. A
#: value of two bytes takes up to 70 in memory; half a million are decoded in some 30 ms.
MAX_VALUES = 500_000
#: The same for a request: a conversation of a million tokens has some 50,000.
MAX_REQUEST_VALUES = 200_000
Seconds = Annotated[float, Meta(gt=0)]
NoSeconds = Annotated[float, Meta(ge=0)]
Bytes = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=1)]


class Limits(Struct, frozen=True, rename="camel", kw_only=True):
    """Limits that hold for every rule that does not set its own."""

    timeout_seconds: Seconds = 600.0
    client_idle_seconds: Seconds = 650.0
    connect_seconds: Seconds = 10.0
    request_head_seconds: Seconds = 60.0
    request_body_seconds: Seconds = 600.0
    keep_alive_seconds: NoSeconds = 0.0
    max_header_bytes: Annotated[int, Meta(ge=1024)] = 65_536
    max_header_count: Count = 500
    max_request_bytes: Bytes = 100 * 2**20
    max_request_values: Count = MAX_REQUEST_VALUES
    max_response_bytes: Bytes = MAX_HELD_BYTES
    max_response_values: Count = MAX_VALUES
    max_event_bytes: Bytes = MAX_EVENT_BYTES
    max_decoded_bytes: Bytes = MAX_HELD_BYTES
    max_connections: Count = 10_000
    max_upstream_connections: Count = 10_000
    max_upstream_waiting: Annotated[int, Meta(ge=0)] = 1_000
