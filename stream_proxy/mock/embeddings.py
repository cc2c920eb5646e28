"""Models and embeddings: what the mock serves besides conversations and files."""

from __future__ import annotations

import base64
import random
import struct

from stream_proxy.mock.checks import count, missing
from stream_proxy.mock.text import tokens
from stream_proxy.mock.wire import EPOCH, ApiError, JSONObject, digest

MODELS = (
    "mock",
    "stream-only",
    "gpt-4o-mini",
    "gpt-5-mini",
    "text-embedding-3-small",
    "text-embedding-3-large",
)
_DIMENSIONS = {"text-embedding-3-large": 3072}


def models() -> JSONObject:
    """The list of models. Other names are answered all the same."""
    return {"object": "list", "data": [model(name) for name in MODELS]}


def model(name: str) -> JSONObject:
    """One of `MODELS`.

    :raises ApiError: 404 for any other.
    """
    if name not in MODELS:
        raise ApiError(404, f"The model '{name}' does not exist", param="model", code="model_not_found")
    return {"id": name, "object": "model", "created": EPOCH, "owned_by": "openai-stream-proxy"}


def embeddings(body: JSONObject) -> JSONObject:
    """A unit vector for each input, made of its hash: floats, or base64 of little-endian 32-bit ones.

    :raises ApiError: 400 for a request that makes no sense.
    """
    given = body.get("input")
    if given is None:
        raise missing("input")
    # A list of numbers is one input, given in tokens.
    inputs = given if isinstance(given, list) and not isinstance(next(iter(given), 0), int) else [given]
    if not all(isinstance(one, str | list) and one for one in inputs):
        raise ApiError(400, "'$.input' is invalid.", param="input")
    form = body.get("encoding_format") or "float"
    if form not in ("float", "base64"):
        raise ApiError(
            400, "Invalid value: 'encoding_format'.", param="encoding_format", code="invalid_value"
        )
    size = count(body, "dimensions", 1, 4096) or _DIMENSIONS.get(body["model"], 1536)
    used = sum(len(tokens(one)) if isinstance(one, str) else len(one) for one in inputs)
    data = []
    for index, one in enumerate(inputs):
        vector = _vector(digest(body["model"], one), size)
        value = base64.b64encode(struct.pack(f"<{size}f", *vector)).decode() if form == "base64" else vector
        data.append({"object": "embedding", "index": index, "embedding": value})
    return {
        "object": "list",
        "data": data,
        "model": body["model"],
        "usage": {"prompt_tokens": used, "total_tokens": used},
    }


def _vector(seed: str, size: int) -> list[float]:
    numbers = random.Random(seed)
    raw = [numbers.gauss(0.0, 1.0) for _ in range(size)]
    norm = sum(value * value for value in raw) ** 0.5
    return [round(value / norm, 9) for value in raw]
