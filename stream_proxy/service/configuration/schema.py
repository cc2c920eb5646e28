"""JSON Schema of the configuration, made from its types."""

from __future__ import annotations

from typing import Any

import msgspec

from stream_proxy.service.configuration.shape import NOTES
from stream_proxy.service.configuration.types import Config
from stream_proxy.service.configuration.wording import plain_numbers

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
#: Which keys of an object stand in each other's place.
_ALTERNATIVES = {
    "KeySource": ("file", "environment"),
    "Rule": ("listenPort", "listen"),
    "UpstreamKeySource": ("file", "environment"),
}


def schema() -> dict[str, Any]:
    """Return the schema, for editors that check and complete a config file."""
    made = plain_numbers(msgspec.json.schema(Config))
    definitions = {name: _object(name, each) for name, each in sorted(made["$defs"].items())}
    whole = definitions.pop("Config")
    return {
        "$schema": _DIALECT,
        **whole,
        "title": "Configuration of openai-stream-proxy",
        "$defs": definitions,
    }


def _object(name: str, definition: dict[str, Any]) -> dict[str, Any]:
    """Return the definition of an object that takes no keys but its own and the operator's notes."""
    found = {key: each for key, each in definition.items() if each != []}
    found["properties"] = {key: _property(each) for key, each in definition["properties"].items()}
    found["patternProperties"] = {f"^[{''.join(NOTES)}]": {}}
    found["additionalProperties"] = False
    if name in _ALTERNATIVES:
        found["oneOf"] = [{"required": [key]} for key in _ALTERNATIVES[name]]
    return found


def _property(found: dict[str, Any]) -> dict[str, Any]:
    """Return a property with its description in front, where editors look for it, and null last."""
    if "anyOf" in found:
        found["anyOf"].sort(key=lambda each: each == {"type": "null"})
        for each in found["anyOf"]:
            if "description" in each:
                return {"description": each.pop("description"), **found}
    return found
