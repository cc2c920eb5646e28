"""Answer ordinary OpenAI calls out of an upstream event stream.

The decoder and the accumulators are sans-I/O and import no Twisted; the names that are built on Twisted load
when they are first used (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stream_proxy.aggregate.chat import ChatCompletionsAccumulator
from stream_proxy.aggregate.responses import ResponseAccumulator
from stream_proxy.aggregate.sse import ServerSentEvent, SSEDecoder
from stream_proxy.errors import APIError, IncompleteStreamError

if TYPE_CHECKING:
    from stream_proxy.adapter.config import AdapterConfig
    from stream_proxy.adapter.resource import AdapterResource
    from stream_proxy.downstream.site import ProxySite
    from stream_proxy.flows.resource import (
        ChatCompletionsApiProxy,
        PassthroughApiProxy,
        ProxyResource,
        ResponsesApiProxy,
    )
    from stream_proxy.http.access import Access
    from stream_proxy.limits import Limits
    from stream_proxy.upstream.route import Route

#: The one source of the version, which the package's metadata are built with.
__version__ = "0.1.0"

_LAZY = {
    "Access": "stream_proxy.http.access",
    "AdapterConfig": "stream_proxy.adapter.config",
    "AdapterResource": "stream_proxy.adapter.resource",
    "ChatCompletionsApiProxy": "stream_proxy.flows.resource",
    "Limits": "stream_proxy.limits",
    "PassthroughApiProxy": "stream_proxy.flows.resource",
    "ProxyResource": "stream_proxy.flows.resource",
    "ProxySite": "stream_proxy.downstream.site",
    "ResponsesApiProxy": "stream_proxy.flows.resource",
    "Route": "stream_proxy.upstream.route",
}

__all__ = [
    "APIError",
    "Access",
    "AdapterConfig",
    "AdapterResource",
    "ChatCompletionsAccumulator",
    "ChatCompletionsApiProxy",
    "IncompleteStreamError",
    "Limits",
    "PassthroughApiProxy",
    "ProxyResource",
    "ProxySite",
    "ResponseAccumulator",
    "ResponsesApiProxy",
    "Route",
    "SSEDecoder",
    "ServerSentEvent",
]


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
