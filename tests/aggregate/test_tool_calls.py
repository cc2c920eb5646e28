"""Tests of tool calls: which fragments belong to one call, and what the whole calls have."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.aggregate import long_text
from stream_proxy.aggregate.merge import merge_delta, settled
from stream_proxy.aggregate.reading.argument_reader import ArgumentReader
from stream_proxy.aggregate.tool_calls import finish_calls
from tests.aggregate.test_arguments import argument_texts, pieces
from tests.support.properties import examples

OSLO, ROME = '{"city":"Oslo"}', '{"city":"Rome"}'


def merged(*deltas: dict[str, Any]) -> Any:
    target: dict[str, Any] = {}
    for delta in deltas:
        merge_delta(target, json.loads(json.dumps(delta)))
    return settled(target, ArgumentReader())


def chunks(*arrays: list[Any]) -> Any:
    """Return the tool calls of chunks with these arrays."""
    return merged(*({"tool_calls": array} for array in arrays))["tool_calls"]


def apart(*fragments: Any) -> Any:
    """Return the tool calls of fragments in a chunk each."""
    return chunks(*([fragment] for fragment in fragments))


def calls(*fragments: Any) -> Any:
    """Return the tool calls of fragments in a chunk each, after checking that one chunk gives the same."""
    found = apart(*fragments)
    assert found == chunks(list(fragments)), (found, chunks(list(fragments)))
    return found


def call(arguments: str | None = None, name: str | None = None, **fields: Any) -> dict[str, Any]:
    members = {"name": name, "arguments": arguments}
    return {**fields, "function": {key: value for key, value in members.items() if value is not None}}


def shown(found: list[Any]) -> list[tuple[str, str]]:
    """Return name and arguments of each call."""
    return [(each["function"].get("name"), each["function"].get("arguments")) for each in found]


class IndexTests(SynchronousTestCase):
    """Fragments with an index."""

    def test_by_index(self) -> None:
        """Entries merge by index; indexes may start at 1, have gaps and interleave."""
        found = calls(
            call("a", "f", index=3), call("x", "g", index=1), call("b", index=3), call("y", index=1)
        )
        self.assertEqual(found, [call("xy", "g", index=1), call("ab", "f", index=3)])

    def test_within_one_chunk(self) -> None:
        """Entries of one chunk merge with each other, even in the first chunk."""
        found = chunks([call("", "f", index=0, id="a"), call("b", index=0)], [call("c", index=0)])
        self.assertEqual(found, [call("bc", "f", index=0, id="a")])
        nested = merged({"x": {"tool_calls": [call("a", index=0), call("b", index=0)]}})
        self.assertEqual(nested, {"x": {"tool_calls": [call("ab", index=0)]}})

    def test_other_id_and_name(self) -> None:
        """The same index with another id and a name of its own is another call (Gemini, Groq)."""
        found = calls(call(OSLO, "f", index=0, id="a"), call("", "f", index=0, id="b"), call(ROME, index=0))
        self.assertEqual(found, [call(OSLO, "f", index=0, id="a"), call(ROME, "f", index=0, id="b")])
        for arguments in ("", "{}", OSLO, '{"ci'):
            found = calls(call(arguments, "f", index=0, id="a"), call(ROME, "g", index=0, id="b"))
            self.assertEqual(shown(found), [("f", arguments), ("g", ROME)])

    def test_equal_calls(self) -> None:
        """Two calls that are equal but for their ids are two calls, without parameters too."""
        for arguments in (OSLO, "{}"):
            found = calls(call(arguments, "f", index=0, id="a"), call(arguments, "f", index=0, id="b"))
            self.assertEqual([each["id"] for each in found], ["a", "b"])

    def test_back_to_an_id(self) -> None:
        """A known id leads back to its entry at the same index."""
        back = calls(
            call("1", "f", index=0, id="a"), call("2", "g", index=0, id="b"), call("3", index=0, id="a")
        )
        self.assertEqual(shown(back), [("f", "13"), ("g", "2")])

    def test_fresh_ids(self) -> None:
        """Another id without a name continues the call: some servers send a fresh id with every fragment."""
        found = calls(
            call('{"city"', "f", index=0, id="1"), call(':"Os', index=0, id="2"),
            call('lo"}', "", index=0, id="3"), call("", index=0, id="4"), call("\n", index=0, id="5"),
        )  # fmt: skip
        self.assertEqual(found, [call(OSLO + "\n", "f", index=0, id="1")])

    def test_begun_twice(self) -> None:
        """A call begun again by name, before its arguments are whole, is one call with the first id."""
        for first, then in (("", OSLO), (OSLO[:5], OSLO[5:])):
            found = calls(
                call(first, "f", index=0, id="1"), call("", "f", index=0, id="2"), call(then, index=0)
            )
            self.assertEqual(found, [call(OSLO, "f", index=0, id="1")])
        found = apart(call("", "f", id="1", index=0), call("", "f", id="2", index=0), call(OSLO, id="2"))
        self.assertEqual(found, [call(OSLO, "f", index=0, id="1")])

    def test_name_in_every_fragment(self) -> None:
        """A name that comes with every fragment is no call of its own while the arguments go on (vLLM)."""
        found = calls(*(call(piece, "f", index=0) for piece in ('{"city', '":"Os', 'lo"}', "")))
        self.assertEqual(found, [call(OSLO, "f", index=0)])

    def test_name_in_fragments(self) -> None:
        """A name in fragments, with or without arguments beside them, is joined."""
        found = calls(call(name="get_", index=0, id="a"), call("", "city", index=0), call(OSLO, index=0))
        self.assertEqual(found, [call(OSLO, "get_city", index=0, id="a")])

    def test_complete_arguments(self) -> None:
        """After complete arguments a further object with a name or an id of its own is a further call."""
        for further in (
            call(ROME, "g", index=0),
            call(ROME, "f", index=0),
            call(ROME, index=0, id="b"),
            call(ROME, "g", index=0, id="a"),
        ):
            found = calls(call(OSLO, "f", index=0, id="a"), further)
            self.assertEqual([arguments for _, arguments in shown(found)], [OSLO, ROME], further)

    def test_said_again(self) -> None:
        """What repeats or extends complete arguments, or gives the first real ones, is the same call."""
        for first, then in ((OSLO, OSLO), ("{}", OSLO), (OSLO, '{"city":"Oslo","unit":"C"}'), (OSLO, "")):
            for fields in ({}, {"id": "a"}):
                found = calls(call(first, "f", index=0, id="a"), call(then, "f", index=0, **fields))
                self.assertEqual(found, [call(then or first, "f", index=0, id="a")])
            found = calls(call(first, "f", index=0, id="a"), call(then, index=0, id="b"))
            self.assertEqual(found, [call(then or first, "f", index=0, id="a")])
        self.assertEqual(shown(calls(call("{}", "f", index=0), call(OSLO, "g", index=0))),
                         [("f", "{}"), ("g", OSLO)])  # fmt: skip

    def test_other_type(self) -> None:
        """The same index with another type is another call, but not with a late or a missing type."""
        function = call(OSLO, "f", index=0, type="function")
        custom = {"index": 0, "type": "custom", "custom": {"name": "g", "input": "x"}}
        self.assertEqual(calls(function, custom), [function, custom])
        found = calls(
            call("", "f", index=0), call(OSLO, index=0, type="function"), call("", index=0, type="")
        )
        self.assertEqual(found, [call(OSLO, "f", index=0, type="function")])

    def test_custom_tools(self) -> None:
        """Parallel calls of custom tools, whose input is no JSON, are told apart by id and name."""

        def custom(id: str | None, name: str | None, text: str) -> dict[str, Any]:
            members = {"name": name, "input": text}
            made = {"index": 0, "custom": {key: value for key, value in members.items() if value is not None}}
            return made if id is None else {**made, "id": id}

        found = calls(custom("a", "f", ""), custom(None, None, "x"), custom("b", "f", "y"))
        self.assertEqual(found, [custom("a", "f", "x"), custom("b", "f", "y")])

    def test_long_name(self) -> None:
        """A name of many fragments is not built for each of them."""
        built = 0

        class Counting(StringIO):
            def getvalue(self) -> str:
                nonlocal built
                built += self.tell()
                return super().getvalue()

        self.patch(long_text, "StringIO", Counting)
        count = 1_000
        found = apart(*(call("", "ab" * (n % 3 + 1), index=0, id=str(n % 2)) for n in range(count)))
        size = sum(len(each["function"]["name"]) for each in found)
        self.assertLess(built, 4 * size)

    def test_late_name_and_id(self) -> None:
        """Arguments may precede the name, and the id may be missing or a number."""
        found = calls(call("{", index=0), call("}", "f", index=0, id=7), call("", index=0, id=None))
        self.assertEqual(found, [call("{}", "f", index=0, id=7)])

    def test_arguments_as_objects(self) -> None:
        """Arguments that come as objects come whole."""
        one: Any = {"index": 0, "function": {"name": "f", "arguments": {"city": "Oslo"}}}
        other: Any = {"index": 0, "function": {"name": "f", "arguments": {"city": "Rome"}}}
        self.assertEqual(calls(one, other), [one, other])

    def test_huge_indexes(self) -> None:
        """Indexes that hash alike, as multiples of 2**61 - 1 do, are told apart without a search."""
        found = calls(*(call(OSLO, "f", index=n * (2**61 - 1)) for n in (2, 0, 1)))
        self.assertEqual([each["index"] // (2**61 - 1) for each in found], [0, 1, 2])


class IdTests(SynchronousTestCase):
    """Fragments without an index."""

    def test_new_id(self) -> None:
        """A new id begins a call, even with a known name; a known id continues one."""
        found = calls(call("1", "f", id="a"), call("2", "f", id="b"), call("3", id="a"), call("5", id=9))
        self.assertEqual(found, [call("13", "f", id="a"), call("2", "f", id="b"), call("5", id=9)])
        self.assertEqual(shown(apart(call("1", "f", id="a"), call("2", id="b"), call("3"))), [
            ("f", "1"), (None, "23")])  # fmt: skip

    def test_index_dropped_or_late(self) -> None:
        """A fragment with an id only continues the entry that had an index as well, and the reverse."""
        found = calls(call("1", "f", index=0, id="a"), call("2", "g", index=1, id="b"), call("3", id="a"))
        self.assertEqual(found, [call("13", "f", index=0, id="a"), call("2", "g", index=1, id="b")])
        found = calls(call("1", "f", id="a"), call("2", index=0, id="a"), call("3", index=0))
        self.assertEqual(found, [call("123", "f", id="a", index=0)])

    def test_neither(self) -> None:
        """With neither, a fragment continues the last call (Ollama, SambaNova)."""
        self.assertEqual(apart(call("1", "f", id="a"), call("2"), call("3")), [call("123", "f", id="a")])
        self.assertEqual(apart(call("1", "f"), call("2")), [call("12", "f")])
        self.assertEqual(apart(call("1", "f", index=0), call("2")), [call("12", "f", index=0)])

    def test_neither_in_one_chunk(self) -> None:
        """The entries of one chunk are different calls, also equal ones, and with empty ids (Gemini)."""
        for fields in ({}, {"id": ""}, {"id": None, "index": None}):
            for other in (call(OSLO, "f", **fields), call(ROME, "f", **fields), call(OSLO, "g", **fields)):
                found = chunks([call(OSLO, "f", **fields), other])
                self.assertEqual(found, [call(OSLO, "f", **fields), other])
        found = chunks([call("", "f", id="a"), call("", "g")], [call("1"), call("2")], [call("3")])
        self.assertEqual(shown(found), [("f", "1"), ("g", "23")])

    def test_neither_after_complete_arguments(self) -> None:
        """Whole calls in a chunk each are different calls, unless one only says the last again."""
        for fields in ({}, {"id": "", "index": None}):
            found = apart(
                *(call(*each, **fields) for each in ((OSLO, "f"), (ROME, "f"), ("{}", "g"), (OSLO, "h")))
            )
            self.assertEqual(shown(found), [("f", OSLO), ("f", ROME), ("g", "{}"), ("h", OSLO)])
            found = apart(*(call(*each, **fields) for each in ((OSLO, "f"), (OSLO, "f"), ("", ""))))
            self.assertEqual(shown(found), [("f", OSLO)])


class FinishTests(SynchronousTestCase):
    """What whole calls have that fragments need not."""

    def finished(self, *found: Any, seed: str = "s") -> Any:
        message = {"tool_calls": json.loads(json.dumps(found))}
        finish_calls(message, seed)
        return message["tool_calls"]

    def test_index(self) -> None:
        """The index is removed."""
        whole = call("{}", "f", id="a", type="function")
        self.assertEqual(self.finished({**whole, "index": 3}, 5), [whole, 5])

    def test_type(self) -> None:
        """A call of a function has the type of one; another type stays."""
        for fields in ({}, {"type": None}, {"type": ""}, {"type": "function"}):
            self.assertEqual(self.finished(call("{}", "f", id="a", **fields))[0]["type"], "function")
        self.assertEqual(self.finished(call("{}", "f", id="a", type="mcp"))[0]["type"], "mcp")
        custom = {"id": "a", "type": "custom", "custom": {"name": "f", "input": ""}}
        self.assertEqual(self.finished(custom, {"x": 1}), [custom, {"x": 1}])

    def test_id(self) -> None:
        """A missing id is made, another one for each call, and the same for the same stream."""
        twice = [call("{}", "f", **fields) for fields in ({}, {"id": None})]
        first, second = (each["id"] for each in self.finished(*twice))
        self.assertRegex(first, "^call_[0-9a-f]{24}$")
        self.assertNotEqual(first, second)
        self.assertEqual(self.finished(*twice), self.finished(*twice))
        self.assertNotEqual(self.finished(*twice, seed="t")[0]["id"], first)
        self.assertNotEqual(self.finished(call(OSLO, "f"))[0]["id"], first)
        for own in ("a", 0, ""):
            self.assertEqual(self.finished(call("{}", "f", id=own))[0]["id"], own)

    def test_no_parameters(self) -> None:
        """Empty, missing and null arguments are those of a call without parameters."""
        for arguments in ("", " ", "null", None):
            found = self.finished(call(arguments, "f", id="a"), call(None, "f", id="b"))
            self.assertEqual(shown(found), [("f", "{}")] * 2)
        message: dict[str, Any] = {"function_call": {"name": "f", "arguments": None}}
        finish_calls(message, "s")
        self.assertEqual(message, {"function_call": {"name": "f", "arguments": "{}"}})


@st.composite
def made_calls(draw: st.DrawFn) -> list[tuple[str, str, str]]:
    """Generate calls: id, name and arguments of each."""
    count = draw(st.integers(1, 4))
    ids = draw(st.lists(st.text("abc1", min_size=1, max_size=3), min_size=count, max_size=count, unique=True))
    return [(id, draw(st.sampled_from(["f", "get_city", "ff"])), draw(argument_texts())) for id in ids]


@st.composite
def interleaved(draw: st.DrawFn) -> tuple[list[tuple[str, str, str]], list[list[dict[str, Any]]]]:
    """Generate calls, and chunks in which their fragments come mixed, as one of many servers sends them."""
    whole = draw(made_calls())
    style = draw(st.sampled_from(["once", "id each", "name each", "fresh ids", "id only"]))
    queues: list[list[dict[str, Any]]] = []
    for index, (id, name, text) in enumerate(whole):
        queue = []
        for position, piece in enumerate(draw(pieces(text))):
            fragment = call(piece)
            if style != "id only":
                fragment["index"] = index * 2
            if position == 0 or style in ("id each", "id only"):
                fragment["id"] = id
            elif style == "fresh ids":
                fragment["id"] = f"{id}-{position}"
            if position == 0 or style == "name each":
                fragment["function"]["name"] = name
            queue.append(fragment)
        queues.append(queue)
    order = draw(st.permutations([at for at, queue in enumerate(queues) for _ in queue]))
    fragments = [queues[at].pop(0) for at in order]
    cuts = sorted(draw(st.lists(st.integers(0, len(fragments)), max_size=4)))
    arrays = [fragments[a:b] for a, b in zip([0, *cuts], [*cuts, len(fragments)], strict=True)]
    return whole, arrays


class ConstructedTests(SynchronousTestCase):
    """Calls taken apart and put together again."""

    @examples(60)
    @given(interleaved())
    def test_interleaved(self, made: tuple[list[tuple[str, str, str]], list[list[dict[str, Any]]]]) -> None:
        """Any interleaving of calls that say by index or id where they belong gives the calls back."""
        whole, arrays = made
        found = [
            (each["id"], each["function"]["name"], each["function"]["arguments"]) for each in chunks(*arrays)
        ]
        self.assertEqual(sorted(found), sorted(whole))

    @examples(60)
    @given(st.data(), made_calls())
    def test_index_zero(self, data: st.DataObject, whole: list[tuple[str, str, str]]) -> None:
        """Calls that come one after the other at index 0, each with an id and a name, are given back."""
        fragments = []
        for id, name, text in whole:
            parts = data.draw(pieces(text))
            fragments += [
                call(parts[0], name, index=0, id=id),
                *(call(piece, index=0) for piece in parts[1:]),
            ]
        found = calls(*fragments)
        self.assertEqual([(each["id"], *shown([each])[0]) for each in found], whole)

    @examples(60)
    @given(st.data(), made_calls())
    def test_no_identity(self, data: st.DataObject, whole: list[tuple[str, str, str]]) -> None:
        """Whole calls with neither index nor id are given back, in one chunk or with names of their own."""
        self.assertEqual(shown(chunks([call(text, name) for _, name, text in whole])),
                         [(name, text) for _, name, text in whole])  # fmt: skip
        fragments, expected = [], []
        for number, (_, name, text) in enumerate(whole):
            parts = data.draw(pieces(text))
            named = f"{name}{number}"
            fragments += [call(parts[0], named), *(call(piece) for piece in parts[1:])]
            expected.append((named, text))
        self.assertEqual(shown(apart(*fragments)), expected)
