"""Values derived from a conversation, for services that take less than a list of messages."""

from __future__ import annotations

from stream_proxy.lenient_json import JSON, JSONObject

#: Their names in templates, where they stand beside the fields of the OpenAI request.
HELPERS = frozenset({"last_user_message", "system_prompt", "history", "user_id"})

_SYSTEM = ("system", "developer")
_ANONYMOUS = "anonymous"


def helper(name: str, request: JSONObject) -> str | None:
    """Return one of :data:`HELPERS` for an OpenAI chat request.

    ``last_user_message``: the text of the user's last message; empty if there is none.
    ``system_prompt``: the texts of the system and developer messages, separated by blank lines; ``None``
    if there are none.
    ``history``: the whole conversation, ``role: text`` for each message, separated by blank lines; just the
    text of a single message.
    ``user_id``: the request's ``user`` or ``safety_identifier``, else ``"anonymous"``.
    """
    given = request.get("messages")
    messages = [each for each in given if isinstance(each, dict)] if isinstance(given, list) else []
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
            turns = [(m.get("role"), content_text(m.get("content"))) for m in messages]
            return "\n\n".join(f"{role}: {text}" for role, text in turns if text)
        case "user_id":
            for key in ("user", "safety_identifier"):
                value = request.get(key)
                if isinstance(value, str) and value:
                    return value
            return _ANONYMOUS
    raise KeyError(name)


def content_text(content: JSON) -> str:
    """Return the text of a message's content: a string, or the texts of its parts joined by newlines."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (part.get("text") if isinstance(part, dict) else part for part in content)
    return "\n".join(part for part in parts if isinstance(part, str))
