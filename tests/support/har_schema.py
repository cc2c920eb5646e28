"""Check of HAR 1.2 after the schema of its authors, and of what Chromium's importer asks for beyond it."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

_URI = re.compile(
    r"[a-z][a-z0-9+.-]*://[A-Za-z0-9.\-_:\[\]]+/(?:[A-Za-z0-9\-._~:/?@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*"
)
_PAIR = {"name": str, "value": str}
_REQUEST = {
    "method": str,
    "url": str,
    "httpVersion": str,
    "cookies": list,
    "headers": list,
    "queryString": list,
}
_RESPONSE = {"status": int, "statusText": str, "httpVersion": str, "cookies": list, "headers": list}
_SIZES = {"headersSize": int, "bodySize": int}


def check_har(decoded: Any) -> list[dict[str, Any]]:
    """Return the entries of a HAR file, or raise an AssertionError that says what is wrong with it."""
    log = decoded["log"]
    assert log["version"] == "1.2"
    _check(log["creator"], {"name": str, "version": str})
    assert isinstance(log["entries"], list)
    for entry in log["entries"]:
        _check_entry(entry)
    entries: list[dict[str, Any]] = log["entries"]
    return entries


def _check(value: Any, members: dict[str, Any]) -> None:
    assert isinstance(value, dict), value
    for name, kind in members.items():
        assert name in value, (name, list(value))
        assert isinstance(value[name], kind), (name, value[name])
        assert not (kind is int and isinstance(value[name], bool))


def _check_entry(entry: Any) -> None:
    _check(entry, {"startedDateTime": str, "time": (int, float), "cache": dict, "timings": dict})
    assert entry["startedDateTime"].endswith("Z")
    datetime.fromisoformat(entry["startedDateTime"])
    for name in ("send", "wait", "receive"):
        assert entry["timings"][name] >= 0, entry["timings"]
    assert all(isinstance(value, int | float) for value in entry["timings"].values())
    assert abs(entry["time"] - sum(value for value in entry["timings"].values() if value > 0)) < 0.01
    request, response = entry["request"], entry["response"]
    _check(request, _REQUEST | _SIZES)
    assert _URI.fullmatch(request["url"]), request["url"]
    if "postData" in request:
        _check(request["postData"], {"mimeType": str, "text": str})
    _check(response, _RESPONSE | _SIZES | {"redirectURL": str, "content": dict})
    _check(response["content"], {"size": int, "mimeType": str})
    for pair in [*request["headers"], *request["queryString"], *response["headers"]]:
        _check(pair, _PAIR)
    # Chromium skips a message that lacks one of these, and shows events of this type only.
    for message in entry.get("_eventSourceMessages", ()):
        _check(message, {"time": float, "eventName": str, "eventId": str, "data": str})
    if "_eventSourceMessages" in entry:
        assert response["content"]["mimeType"] == "text/event-stream"
    for message in entry.get("_webSocketMessages", ()):
        _check(message, {"time": float, "type": str, "opcode": int, "data": str})
        assert message["type"] in ("send", "receive")
    if "_webSocketMessages" in entry:
        assert entry["_resourceType"] == "websocket"
