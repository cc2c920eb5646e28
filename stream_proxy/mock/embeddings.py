"""Models and embeddings."""

from __future__ import annotations

import base64
import random
import struct

from stream_proxy.mock.checks import count
from stream_proxy.mock.text import tokens
from stream_proxy.mock.wire import EPOCH, JSONObject, MockError, digest, invalid, missing

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
    """Return the list of models. Requests may name other models as well."""
    return {"object": "list", "data": [model(name) for name in MODELS]}


def model(name: str) -> JSONObject:
    """Return one of `MODELS`.

    :raises MockError: 404 for any other.
    """
    if name not in MODELS:
        raise MockError(404, f"The model '{name}' does not exist", param="model", code="model_not_found")
    return {"id": name, "object": "model", "created": EPOCH, "owned_by": "openai-stream-proxy"}


def embeddings(body: JSONObject) -> JSONObject:
    """Return a unit vector for each input, made from its hash: floats, or base64 of little-endian float32s.

    :raises MockError: 400 for an invalid request.
    """
    given = body.get("input")
    if given is None:
        raise missing("input")
    # A list of integers is one input, already tokenised.
    inputs = given if isinstance(given, list) and not isinstance(next(iter(given), 0), int) else [given]
    if not all(isinstance(one, str | list) and one for one in inputs):
        raise invalid("input", "'$.input' is invalid.")
    form = body.get("encoding_format") or "float"
    if form not in ("float", "base64"):
        raise invalid("encoding_format", "Invalid value: 'encoding_format'.", "invalid_value")
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
