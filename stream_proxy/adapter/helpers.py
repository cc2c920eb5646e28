"""What people need of a conversation when a service takes less than a list of messages."""

from __future__ import annotations

from typing import Any

#: The names under which requests have it, beside the fields of the OpenAI request.
HELPERS = frozenset({"last_user_message", "system_prompt", "history", "user_id"})

_SYSTEM = ("system", "developer")
_ANONYMOUS = "anonymous"


def helper(name: str, request: dict[str, Any]) -> str | None:
    """One of :data:`HELPERS` for an OpenAI chat request.

    ``last_user_message``: the text of the last message of the user; empty if there is none.
    ``system_prompt``: the texts of the system and developer messages, a blank line between them; ``None``
    if there are none.
    ``history``: the whole conversation, ``role: text`` for each message, a blank line between them; a single
    message is its text alone.
    ``user_id``: the request's ``user`` or ``safety_identifier``, else ``"anonymous"``.
    """
    messages = [message for message in request.get("messages") or () if isinstance(message, dict)]
    match name:
        case "last_user_message":
            users = [message for message in messages if message.get("role") == "user"]
            return content_text(users[-1].get("content")) if users else ""
        case "system_prompt":
            texts = [content_text(m.get("content")) for m in messages if m.get("role") in _SYSTEM]
            return "\n\n".join(filter(None, texts)) or None
        case "history":
            if len(messages) == 1:
                return content_text(messages[0].get("content"))
            said = [(m.get("role"), content_text(m.get("content"))) for m in messages]
            return "\n\n".join(f"{role}: {text}" for role, text in said if text)
        case "user_id":
            for key in ("user", "safety_identifier"):
                value = request.get(key)
                if isinstance(value, str) and value:
                    return value
            return _ANONYMOUS
    raise KeyError(name)


def content_text(content: Any) -> str:
    """The text of a message's content: a string, or the texts of its parts, each on lines of its own."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (part.get("text") if isinstance(part, dict) else part for part in content)
    return "\n".join(part for part in parts if isinstance(part, str))
