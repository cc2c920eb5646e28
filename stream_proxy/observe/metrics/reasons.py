"""Reasons of refusals and of the upstream's failures, told from the record of a request. Sans-I/O."""

from __future__ import annotations

from stream_proxy.observe.record import Record

#: Errors about the way to the upstream and its response, by their codes.
UPSTREAM = {
    "upstream_dns": "dns",
    "upstream_refused": "connect",
    "upstream_unreachable": "connect",
    "upstream_tls": "tls",
    "egress_failed": "egress",
    "egress_refused": "egress",
    "upstream_timeout": "timeout",
    "upstream_stalled": "stalled",
    "upstream_cut": "cut",
    "upstream_incomplete": "cut",
    "upstream_malformed": "malformed",
    "upstream_encoding": "malformed",
    "content_not_found": "malformed",
    "upstream_status": "status_5xx",
    "upstream_error": "in_band",
    "response_too_large": "too_large",
    "response_too_many_values": "too_large",
    "event_too_large": "too_large",
    "decoded_too_large": "too_large",
}
#: Errors by which the proxy refuses a request, or gives one up that is under way.
REFUSED = {
    "invalid_api_key": "key",
    "foreign_origin": "origin",
    "server_is_overloaded": "limit",
    "no_connection_free": "limit",
    "server_stopping": "draining",
    "invalid_http": "malformed",
    "invalid_host": "malformed",
    "invalid_target": "malformed",
    "invalid_handshake": "malformed",
    "invalid_json": "malformed",
    "invalid_type": "malformed",
    "invalid_value": "malformed",
    "missing_required_parameter": "malformed",
    "invalid_request_error": "malformed",
    "model_not_found": "malformed",
    "unknown_url": "malformed",
    "method_not_supported": "malformed",
    "request_head_timeout": "slow",
    "request_body_timeout": "slow",
    "upload_stalled": "slow",
    "client_stalled": "slow",
    "request_nested_too_deep": "too_large",
    "request_too_large": "too_large",
    "request_too_many_values": "too_large",
    "request_head_too_large": "too_large",
    "too_many_headers": "too_large",
}
#: Errors that are neither.
NEITHER = frozenset(("cancelled", "internal_error"))
#: Those of the latter two that may come after the upstream's head; other such codes then are the upstream's.
_LATE = frozenset(("server_stopping", "upload_stalled", "client_stalled", *NEITHER))


def refusal(record: Record) -> str | None:
    """Return why the proxy refused a request, if it did."""
    code = record.code
    if code is None or (record.head is not None and code not in _LATE):
        return None
    return REFUSED.get(code)


def upstream_error(record: Record) -> str | None:
    """Return how the upstream failed, if it did."""
    code = record.code
    if code is None:
        if record.head is None or (record.status == 499 and record.problem is not None):
            return None  # it was ended here
        if record.status >= 400:
            return "status_4xx" if record.status < 500 else "status_5xx"
        return "cut" if record.problem is not None and record.mode != "websocket" else None
    if code in _LATE or (record.head is None and code in REFUSED):
        return None
    reason = UPSTREAM.get(code)
    if reason == "timeout":
        return _timeout(record)
    return reason or ("in_band" if record.head is not None else None)


def _timeout(record: Record) -> str:
    """Return what it was that took too long."""
    if record.head is not None:
        return "stalled"
    if record.connecting is not None and record.connected is None:
        return "connect"
    return "head_timeout"
