"""The parts of a response that one payload carries."""

from __future__ import annotations

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

    @property
    def found(self) -> bool:
        """Whether the payload has a place for any of them."""
        return self.text is not None or self.reasoning is not None or self.tool_calls is not None

    def add(self, other: Extracted) -> None:
        """Append what was extracted from another payload, or another part of this one."""
        if other.text is not None:
            self.text = (self.text or "") + other.text
        if other.reasoning is not None:
            self.reasoning = (self.reasoning or "") + other.reasoning
        if other.tool_calls is not None:
            self.tool_calls = [*(self.tool_calls or ()), *other.tool_calls]
