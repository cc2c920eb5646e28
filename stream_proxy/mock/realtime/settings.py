"""Settings of a Realtime session, and of a response that overrides them."""

from __future__ import annotations

from stream_proxy.mock.wire import EPOCH, JSONObject, invalid

_FIXED = frozenset(("id", "object", "type", "model", "expires_at"))


def initial_settings(model: str, seed: str) -> JSONObject:
    """Return the settings of a new session."""
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": f"sess_{seed[:21]}",
        "model": model,
        "output_modalities": ["text"],
        "instructions": "",
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "tracing": None,
        "truncation": "auto",
        "prompt": None,
        "expires_at": EPOCH + 3600,
        "audio": {"input": {"format": {"type": "audio/pcm", "rate": 24000}, "turn_detection": None}},
        "include": None,
    }


def updated_settings(settings: JSONObject, changes: JSONObject) -> JSONObject:
    """Return `settings` with `changes`, except to members that are fixed for the session's life.

    :raises MockError: 400 that names the setting with an invalid value.
    """
    check_settings(changes, "session")
    return {**settings, **{name: value for name, value in changes.items() if name not in _FIXED}}


def check_settings(settings: JSONObject, parent: str) -> None:
    """Check the settings that the mock uses.

    :param parent: the member of the event that holds them.
    :raises MockError: 400 that names the setting with an invalid value.
    """
    for name, kind in (("instructions", str), ("tools", list), ("output_modalities", list)):
        if settings.get(name) is not None and not isinstance(settings[name], kind):
            param = f"{parent}.{name}"
            raise invalid(param, f"Invalid type for '{param}'.", "invalid_type")
    if settings.get("output_modalities") not in (None, ["text"]):
        message = "This is a mock without a voice: it can only say ['text']."
        raise invalid(f"{parent}.output_modalities", message, "invalid_value")
    limit = settings.get("max_output_tokens", "inf")
    if limit != "inf" and (type(limit) is not int or limit < 1):
        param = f"{parent}.max_output_tokens"
        raise invalid(param, f"Invalid value for '{param}'.", "invalid_value")
