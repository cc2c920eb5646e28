"""The parts of a response that one payload carries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stream_proxy.lenient_json import JSON


@dataclass(slots=True)
class Extracted:
    """Text, reasoning and tool calls out of a payload; ``None`` where it has no place for them.

    An empty text is not ``None``: the place for the text is there, if with nothing in it. A stream with such
    a payload is a response, one without any is a service that the adapter does not understand.
    """

    text: str | None = None
    reasoning: str | None = None
    tool_calls: list[JSON] | None = None
    #: The message to which the text belongs, where it comes in pieces and whole, and whether it is whole.
    message: str | None = None
    whole: bool = False
    #: The text counts only if none came before it.
    only_if_first: bool = False
    #: The text was the string in a field that other services fill with JSON.
    bare: bool = False
    #: It was found in JSON in a string.
    nested: bool = False

    @property
    def found(self) -> bool:
        """Whether the payload has a place for any of them."""
        return self.text is not None or self.reasoning is not None or self.tool_calls is not None


def joined(parts: Sequence[Extracted]) -> Extracted:
    """Return what several parts of a payload carry together."""
    texts = [part.text for part in parts if part.text is not None]
    reasoning = [part.reasoning for part in parts if part.reasoning is not None]
    calls = [part.tool_calls for part in parts if part.tool_calls is not None]
    return Extracted(
        "".join(texts) if texts else None,
        "".join(reasoning) if reasoning else None,
        [call for each in calls for call in each] if calls else None,
        bare=any(part.bare for part in parts),
        nested=any(part.nested for part in parts),
    )
