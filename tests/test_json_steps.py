"""Long JSON, which is judged and decoded in steps."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy import json_reader, json_steps
from stream_proxy.json_steps import (
    decode_members_steps,
    decode_steps,
    done,
    escapes_exceed_steps,
    nested_deeper_steps,
    valid_utf8_steps,
    values_exceed_steps,
)
from stream_proxy.lenient_json import (
    decode_json,
    decode_members,
    encode_json,
    escapes_exceed,
    nested_deeper,
    valid_utf8,
    values_exceed,
)

FRAGMENTS = (
    *(
        '"',
        '\\"',
        "\\\\",
        "\\ud83d",
        "\\ude00",
        "\\u00fc",
        "a",
        "é",
        "\U0001f600",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
    ),
    *('"a":', "1", "-1.5e3", "1e999", "NaN", "-Infinity", "null", "true", " ", "\n", "\\n", "\\x", "\x01"),
    *('"b"', '{"a":[', '"}', '"\\ud800"', "[]", "{}"),
)
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join)
STRINGS = st.text(max_size=6) | st.sampled_from(["\ud800", "\U0001f600", "\udc00\ud800", "\ud83d\\"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | STRINGS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(STRINGS, inner, max_size=4),
    max_leaves=20,
)
ODD = (
    b"\xe2",
    b"\x82",
    b"\xac",
    b"\xf0",
    b"\x9f",
    b"\xff",
    b"\xed\xa0\x80",
    b"a",
    b"\xc3",
    b"\xbc",
    b'"',
    b"\\",
)
BYTES = (
    st.lists(st.sampled_from(ODD), max_size=12).map(b"".join)
    | st.lists(st.sampled_from(ODD), max_size=4).map(lambda parts: b'["%b"]' % b"".join(parts))
    | TEXTS.map(str.encode)
    | st.builds(
        lambda value, indent: json.dumps(value, indent=indent).encode(), VALUES, st.sampled_from([None, 1])
    )
)


def outcome(make: Callable[[], object]) -> str:
    """Return what something makes, or that it is no JSON."""
    try:
        return repr(make())
    except ValueError:
        return "no JSON"


def raw(members: dict[str, msgspec.Raw]) -> list[tuple[str, bytes]]:
    """Return members that can be compared, in their order."""
    return [(name, bytes(value)) for name, value in members.items()]


class SameTests(SynchronousTestCase):
    """Results of steps, which are those of one step, however small the steps are."""

    def setUp(self) -> None:
        contents = json_reader._CONTENTS.pattern.replace("1,16", "1,2").replace("0,4096", "0,2")
        self.patch(json_reader, "_CONTENTS", re.compile(contents))
        for name, value in (("LONG_BYTES", -1), ("_DECODED", 3), ("_SEARCHED", 3), ("_MOST_AT_ONCE", -1)):
            self.patch(json_steps, name, value)

    @settings(max_examples=400)
    @given(BYTES)
    def test_decoded(self, data: bytes) -> None:
        """Any text makes the same value, and an object has the same members, byte for byte."""
        data = valid_utf8(data)
        self.assertEqual(outcome(lambda: done(decode_steps(data))), outcome(lambda: decode_json(data)))
        self.assertEqual(
            outcome(lambda: raw(done(decode_members_steps(data, lambda value: [encode_json(value)])))),
            outcome(lambda: raw(decode_members(data))),
        )

    @settings(max_examples=400)
    @given(BYTES)
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes make the same value where the fast parser comes first."""
        for most in (2**24, -1):
            self.patch(json_steps, "_MOST_AT_ONCE", most)
            found = outcome(lambda: done(decode_steps(data)))
            if most > 0 or found != "no JSON":
                self.assertEqual(found, outcome(lambda: decode_json(data)))

    @given(BYTES, st.integers(0, 5))
    def test_judged(self, data: bytes, most: int) -> None:
        """Any bytes have the same values, escapes and depth, and are the same UTF-8."""
        self.assertEqual(done(valid_utf8_steps(data)), valid_utf8(data))
        for weight in (1, 7):
            exceed = values_exceed(data, most, object_weight=weight)
            self.assertEqual(done(values_exceed_steps(data, most, object_weight=weight)), exceed)
        self.assertEqual(done(escapes_exceed_steps(data, most)), escapes_exceed(data, most))
        self.assertEqual(done(nested_deeper_steps(data, most)), nested_deeper(data, most))


class WorkTests(SynchronousTestCase):
    """Work of one step, counted rather than timed."""

    def test_strings(self) -> None:
        """A long string that the fast parser refuses is decoded some 64 KiB at a time."""
        text = "é\\n" * 500_000 + "\\ud800"
        sizes: list[int] = []
        decode = json_reader._decode_string

        def counting(part: str) -> Any:
            sizes.append(len(part))
            return decode(part)

        self.patch(json_reader, "_decode_string", counting)
        steps = decode_steps(f'["{text}"]'.encode())
        count = 0
        most = 0
        while True:
            before = len(sizes)
            try:
                next(steps)
            except StopIteration as stop:
                self.assertEqual(stop.value, [json.loads(f'"{text}"')])
                break
            count += 1
            most = max(most, sum(sizes[before:]))
        self.assertLess(most, 100_000)
        self.assertGreater(count, len(text) // 100_000)

    def test_values(self) -> None:
        """Many values that the fast parser refuses are decoded some thousands at a time."""
        values = [1.5, {"a": []}, "b"] * 60_000
        data = json.dumps(values).encode()[:-1] + b",NaN" + b" " * 2**18 + b"]"
        steps = decode_steps(data)
        count = 0
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                self.assertEqual(stop.value, [*values, None])
                break
            count += 1
        self.assertGreater(count, 4 * len(values) // 3 // 8192)

    def test_nested_too_deep(self) -> None:
        """What is nested deeper than `json` goes is no JSON."""
        with self.assertRaises(ValueError):
            done(decode_steps(b"[NaN," * 100_000 + b" " * 2**19))
