"""The table of services whose payloads the adapter knows, in the order in which their rows are asked."""

from __future__ import annotations

from stream_proxy.adapter.shapes.model_apis import MODEL_APIS
from stream_proxy.adapter.shapes.platforms import PLATFORMS

VENDORS = (*MODEL_APIS, *PLATFORMS)
