"""Generated text: responses, reasoning, JSON for a schema, and its tokens and log probabilities."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

from stream_proxy.mock.wire import JSONObject, encode, invalid, missing

_TOKEN = re.compile(r"\s*\w{1,12}|\s*[^\w\s]{1,4}|\s+")
_MAX_ECHO = 300
_MAX_DEPTH = 6
_FORMATS = {
    "date": "2025-06-15",
    "date-time": "2025-06-15T15:06:40Z",
    "time": "15:06:40Z",
    "email": "mock@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
    "hostname": "example.com",
    "duration": "PT1S",
    "ipv6": "2001:db8::1",
}


@dataclass(frozen=True)
class Prompt:
    """The last message of a conversation, from the user or from a tool."""

    text: str
    from_tool: bool = False

    def response(self, model: str, words: int | None = None, number: int = 0) -> str:
        """Return the text of the response: `words` long if given, and different for each choice `number`."""
        echo = self.text if len(self.text) <= _MAX_ECHO else self.text[:_MAX_ECHO] + "…"
        opening = "The tools answered" if self.from_tool else "You said"
        text = (
            f"{opening}: “{echo}”. This is {model}, a mock: no model was asked and no key was needed, "
            "but each word of this came just as a real one would have sent it."
        )
        if number:
            text += f" (Choice {number + 1}.)"
        return text if words is None else " ".join(islice(cycle(text.split()), words))

    def reasoning(self) -> str:
        """Return the reasoning that precedes the response."""
        return f"Somebody wrote {len(self.text)} characters to a mock. A friendly echo will do."


def tokens(text: str) -> list[str]:
    """Split `text` into the pieces in which it is streamed and counted."""
    return _TOKEN.findall(text)


def content_text(content: object) -> str:
    """Return the text of a message's content, which is a string or a list of parts, some with a text."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(
            part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    return ""


def formatted(text: str, kind: object, schema: object, param: str) -> str:
    """Return `text` in the response format `kind`: as it is, in a JSON object, or in one that fits `schema`.

    :raises MockError: 400 that names `param`, for an unknown kind or an invalid schema.
    """
    if kind == "text":
        return text
    if kind == "json_object":
        return encode({"answer": text}).decode()
    if kind != "json_schema":
        raise invalid(f"{param}.type", f"Invalid value: '{param}.type'.", "invalid_value")
    if not isinstance(schema, dict):
        raise missing(f"{param}.schema")
    return encode(_instance(schema, text, param)).decode()


def arguments(schema: object, text: str, param: str) -> str:
    """Return the arguments of a call to a function whose parameters have `schema`.

    :raises MockError: 400 that names `param`, for an invalid schema.
    """
    value = _instance(schema, text, param) if isinstance(schema, dict) else {}
    return encode(value if isinstance(value, dict) else {}).decode()


def instance(schema: Any, text: str, root: JSONObject, depth: int = 0) -> Any:
    """Return a value that fits a simple JSON schema, with `text` for strings without another constraint.

    References into `root` are followed. Recursive schemas come to an end because below a depth of six arrays
    are empty, optional properties are absent, and nullable values are null.
    """
    if not isinstance(schema, dict) or depth > 4 * _MAX_DEPTH:
        return text if schema is True else None
    if isinstance(reference := schema.get("$ref"), str):
        return instance(_resolve(reference, root), text, root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if isinstance(choices := schema.get("enum"), list) and choices:
        return choices[0]
    if isinstance(options := schema.get("anyOf") or schema.get("oneOf"), list):
        null = {"type": "null"} in options and depth > _MAX_DEPTH
        return None if null else instance(options[0], text, root, depth + 1)
    if isinstance(parts := schema.get("allOf"), list):
        values = [instance(part, text, root, depth + 1) for part in parts]
        objects = [value for value in values if isinstance(value, dict)]
        merged = {key: value for each in objects for key, value in each.items()}
        return merged if objects else next(iter(values), None)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = "null" if depth > _MAX_DEPTH and "null" in kind else next(iter(kind), "null")
    match kind:
        case "object":
            properties = schema.get("properties")
            if not isinstance(properties, dict):
                return {}
            wanted = schema.get("required", ()) if depth > _MAX_DEPTH else properties
            return {name: instance(properties[name], text, root, depth + 1) for name in wanted}
        case "array":
            least = schema.get("minItems", 1 if depth <= _MAX_DEPTH else 0)
            items = schema.get("items", True)
            return [instance(items, text, root, depth + 1) for _ in range(min(least, 100))]
        case "string":
            value = _FORMATS.get(str(schema.get("format")), text)
            return value.ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]
        case "integer" | "number":
            return _number(schema)
        case "boolean":
            return True
    return None


def _instance(schema: JSONObject, text: str, param: str) -> Any:
    try:
        return instance(schema, text, schema)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError):
        raise invalid(param, f"Invalid schema for '{param}'.", "invalid_json_schema") from None


def _number(schema: JSONObject) -> Any:
    low: Any = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    high: Any = schema.get("maximum", schema.get("exclusiveMaximum", low + 100))
    step: Any = schema.get("multipleOf", 1)
    above = math.ceil(low / step) * step
    value: Any
    for value in (0, 1, above, above + step, math.floor(high / step) * step, high, (low + high) / 2):
        if (
            schema.get("minimum", value) <= value <= schema.get("maximum", value)
            and schema.get("exclusiveMinimum", value - 1) < value < schema.get("exclusiveMaximum", value + 1)
            and not ("multipleOf" in schema and value % step)
            and (schema.get("type") != "integer" or value == int(value))
        ):
            return value
    return low


def _resolve(reference: str, root: JSONObject) -> object:
    found: Any = root
    for name in reference.removeprefix("#").split("/")[1:]:
        found = found.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found


def logprobs(pieces: Sequence[str], top: int) -> list[JSONObject]:
    """Return made-up log probabilities: an entry for each token, with `top` alternatives."""

    def entry(piece: str, rank: int) -> JSONObject:
        return {
            "token": piece,
            "logprob": round(-0.0625 * (rank + 1 + len(piece) % 5), 4),
            "bytes": list(piece.encode("utf-8", "replace")),
        }

    return [
        {
            **entry(piece, 0),
            "top_logprobs": [
                entry(piece if not rank else piece.upper() + "?" * rank, rank) for rank in range(top)
            ],
        }
        for piece in pieces
    ]
