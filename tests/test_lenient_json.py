"""Bounds of JSON that hold before it is decoded."""

from __future__ import annotations

import json
from typing import Any
from unittest import TestCase

from hypothesis import example, given
from hypothesis import strategies as st

from stream_proxy.lenient_json import nested_deeper, values_exceed

texts = st.text(st.sampled_from('",:[]{}\\x\né\U0001f600'), max_size=12)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


def separators(value: Any) -> int:
    """Count what stands before values in the JSON of `value`."""
    if isinstance(value, dict):
        return 1 + len(value) + max(len(value) - 1, 0) + sum(map(separators, value.values()))
    if isinstance(value, list):
        return 1 + max(len(value) - 1, 0) + sum(map(separators, value))
    return 0


def depth(value: Any) -> int:
    """Return how deep arrays and objects of `value` are nested."""
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


class BoundTests(TestCase):
    """Values and depth, told without decoding."""

    @given(values, st.booleans())
    @example({'a\\": [1, 2]': '\\\\",,"'}, False)
    def test_values(self, value: Any, ascii: bool) -> None:
        """Separators count outside of strings only, however these are written."""
        data = json.dumps(value, ensure_ascii=ascii).encode()
        count = separators(value)
        self.assertFalse(values_exceed(data, count), data)
        if count:
            self.assertTrue(values_exceed(data, count - 1), data)

    def test_long_strings(self) -> None:
        """Strings that are longer than what is looked at in one piece are still strings."""
        for text in ("," * 200_000, '",' * 100_000, "\\," * 100_000, '\\"' * 70_000):
            data = json.dumps([text, text, [1, 2]]).encode()
            self.assertFalse(values_exceed(data, 5))
            self.assertTrue(values_exceed(data, 4))

    @given(values)
    def test_depth(self, value: Any) -> None:
        """Arrays and objects count alike, and brackets in strings do not."""
        data = json.dumps(value).encode()
        levels = depth(value)
        self.assertFalse(nested_deeper(data, levels), data)
        if levels:
            self.assertTrue(nested_deeper(data, levels - 1), data)

    @given(st.binary(max_size=60))
    def test_any_bytes(self, data: bytes) -> None:
        """Anything can be asked about."""
        values_exceed(data, 3)
        nested_deeper(data, 3)
