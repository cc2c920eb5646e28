"""What the mock says: sentences, JSON that fits a schema, and how both fall into tokens."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

from stream_proxy.mock.wire import ApiError, JSONObject, encode

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
class Heard:
    """The end of a conversation: the last thing said, by the user or by a tool."""

    text: str
    from_tool: bool = False


def tokens(text: str) -> list[str]:
    """`text` in the pieces in which it is streamed and counted; joined they are `text` again."""
    return _TOKEN.findall(text)


def sentence(model: str, heard: Heard, words: int | None = None, number: int = 0) -> str:
    """The answer to what was heard: `words` long if given, and another one for each choice `number`."""
    echo = heard.text if len(heard.text) <= _MAX_ECHO else heard.text[:_MAX_ECHO] + "…"
    said = "The tools answered" if heard.from_tool else "You said"
    text = (
        f"{said}: “{echo}”. This is {model}, a mock: no model was asked and no key was needed, "
        "but each word of this came just as a real one would have sent it."
    )
    if number:
        text += f" (Choice {number + 1}.)"
    return text if words is None else " ".join(islice(cycle(text.split()), words))


def thought(heard: Heard) -> str:
    """The reasoning before that answer."""
    return f"Somebody wrote {len(heard.text)} characters to a mock. A friendly echo will do."


def content_text(content: object) -> str:
    """The text of a message's content: a string, or a list of parts of which the ones with text count."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(
            part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    return ""


def formatted(text: str, kind: object, schema: object, param: str) -> str:
    """`text` in the response format `kind`: as it is, in any JSON object, or in one that fits `schema`.

    :raises ApiError: 400 that names `param`, for an unknown kind or a schema that is none.
    """
    if kind == "text":
        return text
    if kind == "json_object":
        return encode({"answer": text}).decode()
    if kind != "json_schema":
        raise ApiError(400, f"Invalid value: '{param}.type'.", param=f"{param}.type", code="invalid_value")
    if not isinstance(schema, dict):
        raise ApiError(
            400,
            f"Missing required parameter: '{param}.schema'.",
            param=f"{param}.schema",
            code="missing_required_parameter",
        )
    return encode(_instance(schema, text, param)).decode()


def arguments(schema: object, text: str, param: str) -> str:
    """The arguments of a call to a function whose parameters have `schema`.

    :raises ApiError: 400 that names `param`, for a schema that is none.
    """
    value = _instance(schema, text, param) if isinstance(schema, dict) else {}
    return encode(value if isinstance(value, dict) else {}).decode()


def instance(schema: Any, text: str, root: JSONObject, depth: int = 0) -> Any:
    """A value that fits a simple JSON schema, with `text` where a string is free to choose.

    References into `root` are followed. Below a depth of six arrays are empty, optional properties missing,
    and what may be null is: so recursive schemas end.
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
        return (
            {key: value for one in objects for key, value in one.items()}
            if objects
            else next(iter(values), None)
        )
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
            return [
                instance(schema.get("items", True), text, root, depth + 1) for _ in range(min(least, 100))
            ]
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
        raise ApiError(
            400, f"Invalid schema for '{param}'.", param=param, code="invalid_json_schema"
        ) from None


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
    """Made-up log probabilities, one entry per token, each with `top` alternatives."""

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
