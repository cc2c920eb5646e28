"""Limits of the data path: times, sizes and counts, with their defaults and what each means."""

from __future__ import annotations

from typing import Annotated, Literal

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
#: The most calls whose clients left that are kept, and the most that they hold, unless it is configured
#: otherwise.
RESUME_MAX_CALLS = 100
RESUME_MAX_BYTES = 64 * 2**20
Seconds = Annotated[float, Meta(gt=0)]
NoSeconds = Annotated[float, Meta(ge=0)]
Bytes = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=1)]
NoCount = Annotated[int, Meta(ge=0)]

# Limits that a rule may set for itself.
TimeoutSeconds = Annotated[
    Seconds,
    Meta(
        description="the longest silence: before a response begins, within a response, within an upload. "
        "A stream that keeps moving is never cut. A client that reads nothing for this long while data is "
        "waiting for it is disconnected; one that reads slowly is not"
    ),
]
KeepAliveSeconds = Annotated[
    NoSeconds | Literal["auto"],
    Meta(
        description="when, and then how often, a client that waits for a converted response receives a "
        "byte; 0: never; auto: in time for the time-out that the client announces, and for hops that show "
        "themselves"
    ),
]
FirstEventSeconds = Annotated[
    NoSeconds,
    Meta(
        description="how long the first event with content may take; comments and pings are none; 0: no limit"
    ),
]
StalledSeconds = Annotated[
    NoSeconds,
    Meta(description="the longest time between two events with content; 0: no limit"),
]
ResumeSeconds = Annotated[
    NoSeconds,
    Meta(
        description="how long the response of a converted call whose client left is waited for and kept, "
        "for a client that asks again; 0: not at all"
    ),
]
Retries = Annotated[
    NoCount,
    Meta(
        description="how many further attempts a call has before its first byte: after a connection that "
        "could not be made, and after 429 or 503 with a Retry-After"
    ),
]
RetryAfterMaxSeconds = Annotated[
    NoSeconds,
    Meta(description="the longest Retry-After that such an attempt waits for"),
]
WebSocketPingSeconds = Annotated[
    NoSeconds,
    Meta(
        description="how long a side of a WebSocket may be silent before it is sent a ping, and how long "
        "the pong may take; 0: no pings"
    ),
]
MaxConnections = Annotated[
    Count,
    Meta(description="how many client connections a rule may have at once"),
]
MaxUpstreamConnections = Annotated[
    Count,
    Meta(
        description="how many connections to a rule's upstream may be in use at once, WebSockets "
        "included. Further requests wait in order"
    ),
]
MaxUpstreamWaiting = Annotated[
    NoCount,
    Meta(description="how many requests may wait for one"),
]


class Limits(Struct, frozen=True, rename="camel", kw_only=True):
    """Limits that hold for every rule that does not set its own."""

    timeout_seconds: TimeoutSeconds = 600.0
    keep_alive_seconds: KeepAliveSeconds = "auto"
    first_event_seconds: FirstEventSeconds = 0.0
    stalled_seconds: StalledSeconds = 0.0
    connect_seconds: Annotated[Seconds, Meta(description="how long DNS, TCP and TLS together may take")] = (
        10.0
    )
    client_idle_seconds: Annotated[
        Seconds,
        Meta(
            description="how long an idle client connection is kept. Set it longer than the idle timeout "
            "of the load balancer in front"
        ),
    ] = 650.0
    request_head_seconds: Annotated[
        Seconds,
        Meta(
            description="how long a client may take to send a request's head, from its first byte, and "
            "for a TLS handshake, from the connection on"
        ),
    ] = 60.0
    request_body_seconds: Annotated[
        Seconds,
        Meta(
            description="how long a client may take to send a body that has to be held for conversion. "
            "Other uploads have no limit"
        ),
    ] = 600.0
    max_connection_age_seconds: Annotated[
        NoSeconds,
        Meta(
            description="how old a client connection may become before it is closed between two requests, "
            "so that clients spread over new instances; 0: any age"
        ),
    ] = 0.0
    resume_seconds: ResumeSeconds = 0.0
    retries: Retries = 0
    retry_after_max_seconds: RetryAfterMaxSeconds = 20.0
    web_socket_ping_seconds: WebSocketPingSeconds = 0.0

    max_request_bytes: Annotated[
        Bytes,
        Meta(
            description="the largest JSON body of a call that may have to be converted (100 MiB). Other "
            "uploads have no limit"
        ),
    ] = 100 * 2**20
    max_request_values: Annotated[
        Count,
        Meta(
            description="how many JSON values such a body may have, counted as the `,`, `:`, `[` and `{` "
            "outside of its strings. A large call (64 KiB and more) passes as it is, unconverted, if it "
            "has more than 1,024 members at the top, a name of more than 64 KiB, or such a value for "
            "`model`, `stream`, `stream_options`, `n`, `audio` or `background`"
        ),
    ] = MAX_REQUEST_VALUES
    max_response_bytes: Annotated[
        Bytes,
        Meta(description="the largest response that is assembled (256 MiB). Other responses have no limit"),
    ] = MAX_HELD_BYTES
    max_response_values: Annotated[
        Count,
        Meta(
            description="how many JSON values such a response, or one event of it, may have, counted in "
            "the same way: little JSON can take much memory. A choice counts as 512, and what is put "
            "together piece by piece (members of messages, tool calls, annotations) as 16 each. A payload "
            "of an adapter's service may have a 32nd part of them, and an object in it counts as 7. Eight "
            "escapes in the strings of one event or payload count as a value. With `logprobs` and 20 "
            "`top_logprobs`, a token has some 250 values: raise the limit for more than 2,000 tokens of "
            "these"
        ),
    ] = MAX_VALUES
    max_event_bytes: Annotated[
        Bytes,
        Meta(
            description="the largest event of a stream that is assembled, or payload of an adapter's "
            "service (16 MiB)"
        ),
    ] = MAX_EVENT_BYTES
    max_decoded_bytes: Annotated[
        Bytes,
        Meta(description="how much a compressed response may expand to while it is assembled (256 MiB)"),
    ] = MAX_HELD_BYTES
    max_header_bytes: Annotated[int, Meta(ge=1024, description="the largest request head")] = 65_536
    max_header_count: Annotated[Count, Meta(description="how many fields it may have")] = 500
    max_connections: MaxConnections = 10_000
    max_upstream_connections: MaxUpstreamConnections = 10_000
    max_upstream_waiting: MaxUpstreamWaiting = 1_000
    resume_max_calls: Annotated[
        NoCount,
        Meta(description="how many calls whose clients left may be kept for them at once, over all rules"),
    ] = RESUME_MAX_CALLS
    resume_max_bytes: Annotated[Bytes, Meta(description="how much these may hold in memory (64 MiB)")] = (
        RESUME_MAX_BYTES
    )
