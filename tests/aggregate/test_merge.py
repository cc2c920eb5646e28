"""Tests of `merge_delta`, rule by rule, and of the lenient JSON that it merges."""

from __future__ import annotations

import gc
import json
import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.aggregate.merge import merge_delta, overlay, settled
from stream_proxy.aggregate.reading.argument_reader import ArgumentReader
from stream_proxy.lenient_json import decode_json, decode_members, encode_json
from tests.support.properties import examples


def merged(*deltas: dict[str, Any]) -> Any:
    target: dict[str, Any] = {}
    for delta in deltas:
        merge_delta(target, json.loads(json.dumps(delta)))
    return settled(target, ArgumentReader())


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

    def test_label(self) -> None:
        """An unknown string whose fragments are all the same stands once; known texts always join."""
        self.assertEqual(merged(*[{"a": "x"}] * 3), {"a": "x"})
        self.assertEqual(merged(*[{"a": "x"}] * 3, {"a": ""}, {"a": "y"}, {"a": "x"}), {"a": "xxxyx"})
        self.assertEqual(merged({"b": {"a": "x"}}, {"b": {"a": "x"}}), {"b": {"a": "x"}})
        for key in ("content", "reasoning_content", "reasoning", "refusal", "text", "thinking", "transcript",
                    "data", "summary"):  # fmt: skip
            self.assertEqual(merged({key: "ha"}, {key: "ha"}), {key: "haha"})

    def test_empty_string(self) -> None:
        """An empty string changes nothing; it stays only if there is no other value."""
        self.assertEqual(merged({"content": ""}), {"content": ""})
        self.assertEqual(merged({"content": None}, {"content": ""}, {"content": None}), {"content": ""})
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
        fragments = [{"index": 3, "t": "a"}, {"index": 1, "t": "x"}, {"index": 3, "t": "b"}, {"index": 1}]
        whole = {"x": [{"index": 1, "t": "x"}, {"index": 3, "t": "ab"}]}
        self.assertEqual(merged(*({"x": [fragment]} for fragment in fragments)), whole)
        self.assertEqual(merged({"x": fragments}), whole)

    def test_by_id(self) -> None:
        """Without an index a new id opens an entry, and a known one continues it."""
        fragments = [{"id": "a", "t": "1"}, {"id": "b", "t": "2"}, {"id": "a", "t": "3"}, {"id": 9, "t": "4"}]
        whole = {"x": [{"id": "a", "t": "13"}, {"id": "b", "t": "2"}, {"id": 9, "t": "4"}]}
        self.assertEqual(merged(*({"x": [fragment]} for fragment in fragments)), whole)

    def test_executed_tools(self) -> None:
        """Tools that the server ran come twice at one index, the second time with their result (Groq)."""
        tool = {"index": 0, "type": "search", "name": "s", "arguments": '{"query": "x"}', "site": "web"}
        ran = {**tool, "output": "found", "search_results": {"results": [{"url": "u"}]}}
        python = {"index": 1, "type": "python", "arguments": '{"code": "1"}'}
        found = merged(
            *({"executed_tools": [each]} for each in (tool, ran, python, {**python, "output": "1"}))
        )
        self.assertEqual(found["executed_tools"], [ran, {**python, "output": "1"}])

    def test_reasoning_details(self) -> None:
        """Another type or another id is the next entry, and all are counted (OpenRouter)."""
        text, secret = ({"type": f"reasoning.{kind}", "index": 0} for kind in ("text", "encrypted"))
        found = merged(*({"reasoning_details": [detail]} for detail in (
            {**text, "text": "a"}, {**text, "text": "b"}, {**secret, "data": "E", "id": "r1"},
            {**secret, "data": "F", "id": "r2"}, {**text, "text": "c"}, {**text, "text": "d", "id": "r3"},
            {**text, "text": "e", "id": "r3"}, {**text, "text": "f", "id": "r4"})))  # fmt: skip
        self.assertEqual([{k: v for k, v in each.items() if k not in ("type", "index")}
                          for each in found["reasoning_details"]], [
            {"text": "ab"}, {"data": "E", "id": "r1"}, {"data": "F", "id": "r2"},
            {"text": "cde", "id": "r3"}, {"text": "f", "id": "r4"}])  # fmt: skip
        self.assertEqual([each["index"] for each in found["reasoning_details"]], [0, 1, 2, 3, 4])

    def test_reasoning_details_of_several_indexes(self) -> None:
        """Where indexes tell entries apart they count, and a late type is none of another entry."""
        found = merged(*({"reasoning_details": [detail]} for detail in (
            {"index": 1, "text": "x"}, {"index": 0, "type": "", "text": "a"}, {"index": 1, "text": "y"},
            {"index": 0, "type": "reasoning.text", "signature": "s"})))  # fmt: skip
        self.assertEqual(found["reasoning_details"], [
            {"index": 0, "type": "reasoning.text", "text": "a", "signature": "s"},
            {"index": 1, "text": "xy"}])  # fmt: skip

    def test_reasoning_details_that_are_signed(self) -> None:
        """A signature ends the text that it signs; one that comes with each fragment does not."""
        text = {"type": "reasoning.text", "index": 0}
        found = merged(*({"reasoning_details": [detail]} for detail in (
            {**text, "text": "a"}, {**text, "signature": "s"}, {**text, "text": "b", "signature": "t"},
            {**text, "text": "c", "signature": "t"})))  # fmt: skip
        self.assertEqual(found["reasoning_details"], [
            {**text, "text": "a", "signature": "s"},
            {**text, "text": "bc", "signature": "t", "index": 1}])  # fmt: skip

    def test_reasoning_details_without_identity(self) -> None:
        """With neither index nor id, the type alone says where the next entry begins."""
        text, secret = ({"type": f"reasoning.{kind}"} for kind in ("text", "encrypted"))
        found = merged(*({"reasoning_details": [detail]} for detail in (
            {**text, "text": "a"}, {**text, "text": "b"}, {**secret, "data": "A"}, {**secret, "data": "B"},
            {**text, "text": "c"}, {**text, "signature": "s"}, {**text, "text": "d"})))  # fmt: skip
        self.assertEqual(found["reasoning_details"], [
            {**text, "text": "ab"}, {**secret, "data": "A"}, {**secret, "data": "B"},
            {**text, "text": "c", "signature": "s"}, {**text, "text": "d"}])  # fmt: skip

    def test_encrypted_without_id(self) -> None:
        """Encrypted data are never joined without an id; under one id they may come in fragments."""
        secret = {"type": "reasoning.encrypted", "index": 0}
        found = merged(*({"reasoning_details": [detail]} for detail in (
            {**secret, "data": "A"}, {**secret, "data": "B"}, {**secret, "data": "C", "id": "r"},
            {**secret, "data": "D", "id": "r"})))  # fmt: skip
        self.assertEqual([each["data"] for each in found["reasoning_details"]], ["A", "B", "CD"])

    def test_thinking_blocks(self) -> None:
        """A block is continued until it is signed; another type begins another (LiteLLM)."""

        def block(text: str, signature: str = "") -> dict[str, Any]:
            return {"type": "thinking", "thinking": text, "signature": signature}

        redacted = {"type": "redacted_thinking", "data": "E"}
        blocks = [
            block("a"),
            block("b"),
            block("", "s"),
            block("c"),
            block("d", "t"),
            redacted,
            redacted,
            block("e"),
        ]
        found = merged(*({"thinking_blocks": [each]} for each in blocks))
        self.assertEqual(found["thinking_blocks"], [
            block("ab", "s"), block("cd", "t"), redacted, redacted, block("e")])  # fmt: skip

    def test_summary(self) -> None:
        """An array of summary parts continues its last part."""
        part = {"type": "summary_text", "text": "a"}
        self.assertEqual(
            merged({"summary": [part]}, {"summary": [part]}), {"summary": [{**part, "text": "aa"}]}
        )

    def test_whole_parts(self) -> None:
        """Two images are two parts, though their type is the same."""
        image = {"type": "image_url", "image_url": {"url": "data:x"}}
        self.assertEqual(merged({"content": [image]}, {"content": [image]}), {"content": [image, image]})

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
    """Costs in processor time, without the garbage collector: it looks at whatever the process has."""

    def setUp(self) -> None:
        gc.disable()
        self.addCleanup(gc.enable)

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
                call = {"index": 0, "id": f"c{n}", "function": {"name": "f", "arguments": "{}"}}
                merge_delta(target, {"tool_calls": [call]})
            self.assertEqual(len(settled(target)["tool_calls"]), count)
            return time.process_time() - start

        self.assertLess(
            min(seconds(8000) for _ in range(2)), 30 * min(seconds(1000) for _ in range(3)) + 0.01
        )


KEYS = st.sampled_from(
    [
        *(
            "content",
            "tool_calls",
            "thinking",
            "index",
            "id",
            "type",
            "name",
            "function",
            "text",
            "status",
            "x",
        ),
        *("arguments", "reasoning_details", "thinking_blocks", "summary", "signature", "data", "custom"),
    ]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 3)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "a", "text", "\ud83d", "{}", '{"a":', "1}"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=15,
)


class ArbitraryTests(SynchronousTestCase):
    @examples(300)
    @given(st.lists(st.dictionaries(KEYS, JSON, max_size=5), max_size=5))
    def test_never_raises(self, deltas: list[dict[str, Any]]) -> None:
        """Arbitrary JSON merges into a value that can be encoded."""
        target: dict[str, Any] = {}
        for delta in deltas:
            merge_delta(target, delta)
            overlay({}, delta)
        plain = settled(target)
        self.assertEqual(json.loads(encode_json(plain)), json.loads(json.dumps(plain)))
