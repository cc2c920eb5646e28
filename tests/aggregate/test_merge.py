"""Tests of `merge_delta`, rule by rule, and of the lenient JSON that it merges."""

from __future__ import annotations

import json
import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.aggregate.merge import merge_delta, overlay, settled
from stream_proxy.lenient_json import decode_json, decode_members, encode_json


def merged(*deltas: dict[str, Any]) -> Any:
    target: dict[str, Any] = {}
    for delta in deltas:
        merge_delta(target, json.loads(json.dumps(delta)))
    return settled(target)


def calls(*fragments: Any) -> Any:
    """Return the tool calls of fragments in a delta each, after checking that one delta gives the same."""
    apart = merged(*({"tool_calls": [fragment]} for fragment in fragments))["tool_calls"]
    together = merged({"tool_calls": list(fragments)})["tool_calls"]
    assert apart == together, (apart, together)
    return apart


def call(args: str | None = None, name: str | None = None, **fields: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": args}
    return {**fields, "function": {key: value for key, value in function.items() if value is not None}}


class ValueTests(SynchronousTestCase):
    def test_strings_concatenate(self) -> None:
        """Strings concatenate, even those of unknown vendor fields and of nested objects."""
        for key in ("content", "reasoning_content", "reasoning", "refusal", "vendor_text"):
            self.assertEqual(merged({key: "a"}, {key: "b"}, {key: "c"}), {key: "abc"})
        audio = merged(
            {"audio": {"id": "a", "data": "AA", "transcript": "x"}},
            {"audio": {"data": "BB", "transcript": "y"}},
        )
        self.assertEqual(audio, {"audio": {"id": "a", "data": "AABB", "transcript": "xy"}})

    def test_newlines_survive(self) -> None:
        """Text is kept exactly, line ends included."""
        self.assertEqual(
            merged({"content": "a\r"}, {"content": "\nb\r\n"}, {"content": "\r"})["content"], "a\r\nb\r\n\r"
        )

    def test_null_never_erases(self) -> None:
        """A null never replaces a value; it stays only if no other value follows."""
        self.assertEqual(merged({"a": "x", "b": 1, "c": [1]}, {"a": None, "b": None, "c": None, "d": None}), {
            "a": "x", "b": 1, "c": [1], "d": None})  # fmt: skip
        self.assertEqual(merged({"a": None}, {"a": "x"}, {"a": "y"}), {"a": "xy"})

    def test_numbers_and_booleans(self) -> None:
        """The last number or boolean wins."""
        self.assertEqual(
            merged({"a": 1, "b": True, "c": 1.5}, {"a": 2, "b": False, "c": 0}), {"a": 2, "b": False, "c": 0}
        )

    def test_objects_merge(self) -> None:
        """Objects merge at any depth."""
        self.assertEqual(
            merged({"a": {"b": {"c": "x"}}}, {"a": {"b": {"c": "y", "d": 1}}}),
            {"a": {"b": {"c": "xy", "d": 1}}},
        )

    def test_plain_arrays_extend(self) -> None:
        """Arrays of plain values extend."""
        self.assertEqual(merged({"a": [1, "x"]}, {"a": []}, {"a": [None, [2]]}), {"a": [1, "x", None, [2]]})

    def test_identities(self) -> None:
        """Identities are set once, by the first value that is not empty."""
        for key in ("role", "id", "type", "index", "object", "model", "format", "signature"):
            self.assertEqual(
                merged({key: None}, {key: ""}, {key: "a"}, {key: "a"}, {key: "b"}, {key: ""}), {key: "a"}
            )
            self.assertEqual(merged({key: 0}, {key: 3}), {key: 0})

    def test_status(self) -> None:
        """The last status that is not empty wins."""
        self.assertEqual(
            merged({"status": "in_progress"}, {"status": "completed"}, {"status": ""}),
            {"status": "completed"},
        )

    def test_name(self) -> None:
        """A name equal to the whole so far is a repeat; any other one concatenates."""
        self.assertEqual(merged({"name": "get"}, {"name": "get"}), {"name": "get"})
        self.assertEqual(
            merged({"name": "get"}, {"name": "_x"}, {"name": "get_x"}, {"name": "y"}), {"name": "get_xy"}
        )

    def test_empty_string(self) -> None:
        """An empty string changes nothing; it stays only if there is no other value."""
        self.assertEqual(merged({"content": ""}), {"content": ""})
        self.assertEqual(merged({"content": None}, {"content": ""}), {"content": None})
        self.assertEqual(
            merged({"a": "x", "b": 1, "name": "n"}, {"a": "", "b": "", "name": ""}),
            {"a": "x", "b": 1, "name": "n"},
        )

    def test_clashes(self) -> None:
        """An object or array wins over a scalar; of two scalars the later one wins."""
        self.assertEqual(merged({"a": "x"}, {"a": 1}), {"a": 1})
        self.assertEqual(merged({"a": 1}, {"a": "x"}), {"a": "x"})
        self.assertEqual(merged({"a": {"b": 1}}, {"a": "x"}, {"a": 1}), {"a": {"b": 1}})
        self.assertEqual(merged({"a": [1]}, {"a": False}), {"a": [1]})

    def test_settling_keeps_the_tree(self) -> None:
        """A snapshot does not affect later deltas."""
        target: dict[str, Any] = {}
        for text in "abc":
            merge_delta(target, {"x": text, "l": [{"index": 0, "t": text}]})
            settled(target)
        self.assertEqual(settled(target), {"x": "abc", "l": [{"index": 0, "t": "abc"}]})


class ArrayTests(SynchronousTestCase):
    def test_by_index(self) -> None:
        """Entries merge by index; indexes may start at 1, have gaps and interleave."""
        found = calls(
            call("a", "f", index=3), call("x", "g", index=1), call("b", index=3), call("y", index=1)
        )
        self.assertEqual(found, [call("xy", "g", index=1), call("ab", "f", index=3)])

    def test_within_one_chunk(self) -> None:
        """Entries of one chunk merge with each other, even in the first chunk."""
        found = merged({"tool_calls": [call("a", "f", index=0), call("b", index=0)]})
        self.assertEqual(found, {"tool_calls": [call("ab", "f", index=0)]})
        nested = merged({"x": {"tool_calls": [call("a", index=0), call("b", index=0)]}})
        self.assertEqual(nested, {"x": {"tool_calls": [call("ab", index=0)]}})

    def test_same_index_other_id_and_name(self) -> None:
        """The same index with another id and a name is another call (Gemini, Groq)."""
        found = calls(call("{}", "f", index=0, id="a"), call("{1}", "g", index=0, id="b"), call("!", index=0))
        self.assertEqual(found, [call("{}", "f", index=0, id="a"), call("{1}!", "g", index=0, id="b")])
        back = calls(
            call("1", "f", index=0, id="a"), call("2", "g", index=0, id="b"), call("3", index=0, id="a")
        )
        self.assertEqual([c["function"]["arguments"] for c in back], ["13", "2"])
        custom = calls({"index": 0, "id": "a", "name": "f"}, {"index": 0, "id": "b", "name": "f"})
        self.assertEqual(len(custom), 2)

    def test_same_index_fresh_ids(self) -> None:
        """Another id without a name continues the call: some servers send a new id with every fragment."""
        found = calls(
            call("a", "f", index=0, id="1"), call("b", index=0, id="2"), call("c", "", index=0, id="3")
        )
        self.assertEqual(found, [call("abc", "f", index=0, id="1")])

    def test_same_index_other_type(self) -> None:
        """The same index with another type is a new entry, but not with a late or missing type."""
        key = "reasoning_details"
        found = merged(
            {key: [{"type": "reasoning.text", "text": "a", "index": 0}]},
            {key: [{"type": "reasoning.text", "text": "b", "index": 0}]},
            {key: [{"type": "reasoning.encrypted", "data": "E", "index": 0}]},
            {key: [{"type": "reasoning.text", "text": "c", "index": 0}]},
            {key: [{"type": "", "data": "F", "index": 1}, {"type": "t", "data": "G", "index": 1}]},
        )
        self.assertEqual(found[key], [
            {"type": "reasoning.text", "text": "abc", "index": 0},
            {"type": "reasoning.encrypted", "data": "E", "index": 0},
            {"type": "t", "data": "FG", "index": 1}])  # fmt: skip

    def test_late_name_and_id(self) -> None:
        """Arguments may precede the name, and the id may be missing or a number."""
        found = calls(call("{", index=0), call("}", "f", index=0, id=7), call("!", index=0, id=None))
        self.assertEqual(found, [call("{}!", "f", index=0, id=7)])

    def test_new_id_without_index(self) -> None:
        """Without an index a new id begins an entry, even with a known name; a known id continues one."""
        found = calls(
            call("1", "f", id="a"), call("2", "f", id="b"), call("3", id="a"), call("4"), call("5", id=9)
        )
        self.assertEqual(found, [call("134", "f", id="a"), call("2", "f", id="b"), call("5", id=9)])

    def test_index_dropped_later(self) -> None:
        """A fragment with an id only continues the entry that had an index as well."""
        found = calls(call("1", "f", index=0, id="a"), call("2", "g", index=1, id="b"), call("3", id="a"))
        self.assertEqual(found, [call("13", "f", index=0, id="a"), call("2", "g", index=1, id="b")])

    def test_neither_in_tool_calls(self) -> None:
        """With neither index nor id, tool_calls continues its last entry (Ollama, SambaNova)."""
        found = calls(call("1", "f", id="a"), call("2"), call("3"))
        self.assertEqual(found, [call("123", "f", id="a")])
        self.assertEqual(calls(call("1", "f"), call("2")), [call("12", "f")])

    def test_neither_elsewhere(self) -> None:
        """With neither, any other array appends, even entries with equal names and types."""
        cite = {"type": "url_citation", "name": "n", "url_citation": {"url": "u"}}
        self.assertEqual(
            merged({"annotations": [cite]}, {"annotations": [cite, cite]}), {"annotations": [cite] * 3}
        )

    def test_content_parts(self) -> None:
        """Content continues its last part of the same type, as does thinking inside it (Mistral)."""

        def thinking(text: str) -> dict[str, Any]:
            return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}

        parts = [thinking("a"), thinking("b"), *({"type": "text", "text": t} for t in "cd"), thinking("e")]
        found = merged(*({"content": [part]} for part in parts))
        self.assertEqual(found, {"content": [thinking("ab"), {"type": "text", "text": "cd"}, thinking("e")]})

    def test_content_part_after_plain_value(self) -> None:
        """Two parts with a plain value between them stay separate."""
        part = {"type": "text", "text": "a"}
        self.assertEqual(merged({"content": [part, 1]}, {"content": [part]}), {"content": [part, 1, part]})

    def test_content_text_and_parts(self) -> None:
        """Content that comes as text and as parts becomes parts."""
        part = {"type": "thinking", "thinking": []}
        found = merged(
            {"content": "a"}, {"content": "b"}, {"content": [part]}, {"content": "c"}, {"content": "d"}
        )
        self.assertEqual(found, {"content": [
            {"type": "text", "text": "ab"}, part, {"type": "text", "text": "cd"}]})  # fmt: skip
        self.assertEqual(merged({"content": ""}, {"content": [part]}, {"content": ""}), {"content": [part]})

    def test_single_object(self) -> None:
        """An object under the key of an array becomes an entry."""
        self.assertEqual(merged({"a": [{"id": 1}]}, {"a": {"id": 2}}), {"a": [{"id": 1}, {"id": 2}]})


class OverlayTests(SynchronousTestCase):
    def test_overlay(self) -> None:
        """Objects merge; any other value that is not null replaces the earlier one."""
        target = {"a": {"b": 1, "c": 2}, "d": "x", "e": [1], "f": None}
        overlay(target, {"a": {"b": 3, "c": None}, "d": "y", "e": [2], "f": None, "g": None})
        self.assertEqual(target, {"a": {"b": 3, "c": 2}, "d": "y", "e": [2], "f": None, "g": None})


class JSONTests(SynchronousTestCase):
    def test_lone_surrogates(self) -> None:
        """Halves of a surrogate pair are kept, encoded as escapes, and joined to one character."""
        halves = [decode_json(b'{"a":"x\\ud83d"}'), decode_json(b'{"a":"\\ude00y"}')]
        self.assertEqual(encode_json(merged(*halves)), b'{"a":"x\\ud83d\\ude00y"}')
        self.assertEqual(decode_json(encode_json({"é": "é\ud83d"})), {"é": "é\ud83d"})

    def test_numbers(self) -> None:
        """Large integers and short floats are unchanged; NaN and infinities become null."""
        text = b'{"a":123456789012345678901234567890,"b":0.1,"c":1e22,"d":-0.25}'
        self.assertEqual(encode_json(decode_json(text)), text)
        lenient = b'{"a":[NaN,Infinity,-Infinity,1e999,0.5],"s":"\\ud800"}'
        self.assertEqual(encode_json(decode_json(lenient)), b'{"a":[null,null,null,null,0.5],"s":"\\ud800"}')
        value = {"a": [float("inf"), float("nan")], "s": "Infinity"}
        self.assertEqual(encode_json(value), b'{"a":[null,null],"s":"Infinity"}')
        value["s"] = "NaN \ud800"
        self.assertEqual(encode_json(value), b'{"a":[null,null],"s":"NaN \\ud800"}')

    def test_not_json(self) -> None:
        """Anything else is a ValueError, also if it is nested too deep or has too many digits."""
        for data in (b"", b"x", b'{"a":', b"[" * 100_000, b"1" * 5000, b"'a'", b'"\xff', b'"\\q"', b"{} {}"):
            self.assertRaises(ValueError, decode_json, data)
            self.assertRaises(ValueError, decode_members, data)
        nested: list[Any] = []
        for _ in range(100_000):
            nested = [nested]
        self.assertRaises(ValueError, encode_json, nested)
        self.assertRaises(ValueError, encode_json, ["\ud800", nested])
        while nested:
            nested = nested.pop()

    def test_members_byte_for_byte(self) -> None:
        """Members keep their bytes, even if the fast parser refuses the object."""
        for odd in (b"1", b'"\\ud83d"'):
            data = b' { "a" : {"x": 1.50 , "y":"\\u00e9"} ,"b":[ ], "\\u0063":' + odd + b' , "a\\"":0 } '
            members = {name: bytes(value) for name, value in decode_members(data).items()}
            self.assertEqual(
                members, {"a": b'{"x": 1.50 , "y":"\\u00e9"}', "b": b"[ ]", "c": odd, 'a"': b"0"}
            )
        self.assertEqual(
            {name: bytes(value) for name, value in decode_members(b'{"a": 1.50, "b": [NaN]}').items()},
            {"a": b"1.50", "b": b"[null]"},
        )
        self.assertRaises(ValueError, decode_members, b'["\\ud83d"]')
        self.assertEqual(decode_members(b"{}"), {})


class CostTests(SynchronousTestCase):
    def seconds(self, count: int, delta: dict[str, Any]) -> float:
        target: dict[str, Any] = {}
        start = time.process_time()
        for _ in range(count):
            merge_delta(target, delta)
        settled(target)
        return time.process_time() - start

    def test_linear(self) -> None:
        """Eight times as many fragments of any kind cost about eight times as much."""
        for delta in (
            {"content": "x" * 50},
            {"name": "x" * 50},
            {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "n", "arguments": "x" * 50}}]},
            {"annotations": [{"type": "t"}]},
        ):
            small = min(self.seconds(1_000, delta) for _ in range(3))
            large = min(self.seconds(8_000, delta) for _ in range(3))
            self.assertLess(large, 30 * small + 0.01, delta)

    def test_parallel_calls_linear(self) -> None:
        """Finding an entry does not search the others."""

        def seconds(count: int) -> float:
            target: dict[str, Any] = {}
            start = time.process_time()
            for n in range(count):
                merge_delta(target, {"tool_calls": [{"index": 0, "id": f"c{n}", "function": {"name": "f"}}]})
            self.assertEqual(len(settled(target)["tool_calls"]), count)
            return time.process_time() - start

        self.assertLess(
            min(seconds(8000) for _ in range(2)), 30 * min(seconds(1000) for _ in range(3)) + 0.01
        )


KEYS = st.sampled_from(
    ["content", "tool_calls", "thinking", "index", "id", "type", "name", "function", "text", "status", "x"]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 3)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "a", "text", "\ud83d"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=15,
)


class ArbitraryTests(SynchronousTestCase):
    @settings(max_examples=300, deadline=None, derandomize=True)
    @given(st.lists(st.dictionaries(KEYS, JSON, max_size=5), max_size=5))
    def test_never_raises(self, deltas: list[dict[str, Any]]) -> None:
        """Arbitrary JSON merges into a value that can be encoded."""
        target: dict[str, Any] = {}
        for delta in deltas:
            merge_delta(target, delta)
            overlay({}, delta)
        plain = settled(target)
        self.assertEqual(json.loads(encode_json(plain)), json.loads(json.dumps(plain)))
