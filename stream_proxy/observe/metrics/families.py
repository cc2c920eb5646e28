"""Families of metrics: all that a scrape may hold, with their labels and what each means. Sans-I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

#: What the names of families begin with, but those of processes, which have names that all exporters use.
PREFIX = "stream_proxy_"


def doubling(first: float, count: int) -> tuple[float, ...]:
    """Return so many bounds of buckets, each twice the one before."""
    return tuple(round(first * 2**step, 6) for step in range(count))


#: Bounds of durations of requests, 0.01 s to 655.36 s.
DURATIONS = doubling(0.01, 17)
#: Bounds of the time that the proxy itself takes, 50 µs to 250 ms.
OVERHEADS = (50e-6, 100e-6, 250e-6, 500e-6, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
#: Bounds of the time that one token takes, 1.25 ms to 2.56 s.
TOKEN_TIMES = doubling(0.00125, 12)
#: Bounds of the time that a connection takes, 1 ms to 16.384 s.
CONNECTS = doubling(0.001, 15)
#: Bounds of the reactor's lag, 0.5 ms to 2.048 s.
LAGS = doubling(0.0005, 13)


class Family(Struct, frozen=True):
    """One family.

    :param name: its name, with that of a counter ending in ``_total``.
    :param help: what it means, in one line.
    :param labels: the names of its labels.
    :param bounds: the upper bounds of a histogram's buckets, but the last one's, which is infinite.
    """

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


def _own(families: Iterable[Family]) -> dict[str, Family]:
    return {
        each.name: Family(each.kind, PREFIX + each.name, each.help, each.labels, each.bounds)
        for each in families
    }


_RULE = ("rule",)
_MODEL = ("rule", "model")

#: All families of ours, in the order of a scrape, by their names without the prefix.
FAMILIES = _own(
    (
        # Is it well?
        Family("counter", "requests_total", "Finished requests.", ("rule", "kind", "mode", "code")),
        Family("gauge", "requests_in_flight", "Requests under way.", ("rule", "mode")),
        Family("gauge", "oldest_request_seconds", "Age of the oldest request under way.", _RULE),
        Family(
            "histogram",
            "request_duration_seconds",
            "Time from a request's head to its end.",
            ("rule", "kind", "mode"),
            DURATIONS,
        ),
        Family(
            "histogram",
            "time_to_first_event_seconds",
            "Time from a request's head to the first event with content.",
            _MODEL,
            DURATIONS,
        ),
        Family(
            "histogram",
            "time_per_output_token_seconds",
            "Time between first and last event, per output token after the first.",
            _MODEL,
            TOKEN_TIMES,
        ),
        Family(
            "counter",
            "client_disconnects_total",
            "Clients that left before their response was whole.",
            ("rule", "phase"),
        ),
        Family(
            "counter",
            "refused_requests_total",
            "Requests that the proxy itself refused.",
            ("rule", "reason"),
        ),
        # The upstream
        Family("counter", "upstream_errors_total", "Failures of the upstream.", ("rule", "reason")),
        Family(
            "counter",
            "upstream_retries_total",
            "Further attempts at one request.",
            ("rule", "reason"),
        ),
        Family(
            "histogram",
            "upstream_connect_seconds",
            "Time that a new connection took, DNS and TLS included.",
            _RULE,
            CONNECTS,
        ),
        Family(
            "gauge",
            "upstream_connections",
            "Connections to the upstream.",
            ("rule", "state"),
        ),
        Family("gauge", "upstream_waiting", "Requests that wait for a connection.", _RULE),
        # The work
        Family(
            "counter",
            "tokens_total",
            "Tokens that answers reported.",
            ("rule", "model", "type"),
        ),
        Family(
            "counter",
            "calls_without_usage_total",
            "Successful calls of models whose tokens are not known.",
            _RULE,
        ),
        Family(
            "counter",
            "abandoned_events_total",
            "Events with content that had come for clients that left.",
            _RULE,
        ),
        Family(
            "counter",
            "kept_alive_answers_total",
            "Converted responses whose head went out early, to keep the connection alive.",
            _RULE,
        ),
        Family(
            "counter",
            "resumed_total",
            "Calls kept for a retry, and retries that joined one.",
            ("rule", "outcome"),
        ),
        Family(
            "gauge",
            "buffered_bytes",
            "Bytes read of held requests and responses under way.",
            _RULE,
        ),
        Family("gauge", "websocket_sessions", "Open WebSockets.", _RULE),
        Family(
            "counter",
            "websocket_messages_total",
            "Messages of WebSockets.",
            ("rule", "direction"),
        ),
        # Itself
        Family(
            "histogram",
            "overhead_seconds",
            "Time that the proxy itself took.",
            ("rule", "phase"),
            OVERHEADS,
        ),
        Family(
            "histogram",
            "reactor_lag_seconds",
            "How late a timer was.",
            ("worker",),
            LAGS,
        ),
        Family("counter", "config_reloads_total", "Reloads of the configuration that were asked for."),
        Family("gauge", "config_last_reload_success", "Whether the last one succeeded."),
        Family(
            "gauge",
            "certificate_not_after_seconds",
            "When the certificate that a rule shows expires, since the epoch.",
            _RULE,
        ),
        Family("counter", "worker_restarts_total", "Processes that took the place of one that ended."),
        Family("gauge", "build_info", "Versions, in the labels.", ("version", "python", "twisted")),
    )
)
