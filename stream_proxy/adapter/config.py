"""Schema of ``"adapter": {…}`` in a rule."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from stream_proxy.adapter.payloads import Format
from stream_proxy.environment import has_reference

Name = Annotated[str, Meta(min_length=1)]


class AdapterConfig(Struct, frozen=True, rename="camel", kw_only=True):
    """The ``adapter`` of a rule; docs/adapter.md explains each key."""

    models: Annotated[tuple[Name, ...], Meta(min_length=1)] = ("gpt-3.5-turbo",)

    # The request to the service.
    method: Literal["POST", "GET"] = "POST"
    headers: dict[Name, str] = msgspec.field(default_factory=dict)
    request: dict[str, Any] | UnsetType = UNSET
    forward_authorization: bool = False

    # The format of its response.
    format: Format = "auto"
    payload: Literal["auto", "json", "text"] = "auto"
    mode: Literal["auto", "delta", "cumulative"] = "auto"
    keep_blanks: bool | None = None
    events: tuple[Name, ...] | None = None
    skip_events: tuple[Name, ...] = ()
    skip_payloads: tuple[Name, ...] = ()
    end_events: tuple[Name, ...] = ()
    end_marker: Name | None = None

    # Expressions for what a payload holds; without one, the usual places are searched.
    content: str | None = None
    replace: str | None = None
    reasoning: str | None = None
    tool_calls: str | None = None
    finish_reason: str | None = None
    usage: str | None = None
    error: str | None = None
    done: str | None = None

    @property
    def injects(self) -> bool:
        """Whether the service is called with a secret of the operator's."""
        return any(map(has_reference, self.headers.values()))
