"""Tests of the items of a Responses stream: rebuilt from how they began, and from their pieces."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.aggregate.responses import ResponseAccumulator
from stream_proxy.aggregate.sse import ServerSentEvent
from stream_proxy.errors import APIError
from tests.support.properties import examples

CALL = {"id": "fc_1", "type": "function_call", "call_id": "c_1", "name": "f", "arguments": "", "status": "x"}


def event(kind: str, named: bool = True, /, **fields: Any) -> ServerSentEvent:
    data = json.dumps({"type": kind, **fields}).encode()
    return ServerSentEvent(kind if named else "message", data)


def added(index: int | None, **item: Any) -> ServerSentEvent:
    place = {} if index is None else {"output_index": index}
    return event("response.output_item.added", **place, item=item)


def done(index: int, **item: Any) -> ServerSentEvent:
    return event("response.output_item.done", output_index=index, item=item)


def piece(stem: str, delta: str, index: int = 0, **fields: Any) -> ServerSentEvent:
    return event(f"response.{stem}.delta", output_index=index, delta=delta, **fields)


def whole(stem: str, name: str, value: str, index: int = 0, **fields: Any) -> ServerSentEvent:
    return event(f"response.{stem}.done", output_index=index, **{name: value}, **fields)


def arguments(delta: str, index: int = 0, **fields: Any) -> ServerSentEvent:
    return piece("function_call_arguments", delta, index, **fields)


def text(delta: str, index: int = 0, part: int = 0, **fields: Any) -> ServerSentEvent:
    return piece("output_text", delta, index, content_index=part, **fields)


def accumulator(*events: ServerSentEvent, kind: str = "completed", **options: Any) -> ResponseAccumulator:
    made = ResponseAccumulator(**options)
    for each in (*events, event(f"response.{kind}", response={"id": "resp_1", "output": []})):
        made.feed(each)
    return made


def output(*events: ServerSentEvent, kind: str = "completed") -> Any:
    return accumulator(*events, kind=kind).result()["output"]


def output_text(value: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": value}


class CallTests(SynchronousTestCase):
    """Calls without output_item.done."""

    def test_arguments(self) -> None:
        """The arguments come from the done event, else from the deltas, with or without ids and indices."""
        for named in (True, False):
            for place in ({"output_index": 0}, {"item_id": "fc_1"}, {"output_index": 0, "item_id": "fc_1"}):
                pieces = [
                    event("response.function_call_arguments.delta", named, delta=each, **place)
                    for each in ("{", '"a"', ":1", "}")
                ]
                final = event("response.function_call_arguments.done", named, arguments='{"b":2}', **place)
                expected = {**CALL, "status": "completed"}
                self.assertEqual(output(added(0, **CALL), *pieces), [{**expected, "arguments": '{"a":1}'}])
                for events in ([final], [*pieces, final], [final, *pieces]):
                    self.assertEqual(
                        output(added(0, **CALL), *events), [{**expected, "arguments": '{"b":2}'}]
                    )

    def test_other_calls(self) -> None:
        """Other calls have their own events and members."""
        for type, stem, member in [
            ("mcp_call", "mcp_call_arguments", "arguments"),
            ("custom_tool_call", "custom_tool_call_input", "input"),
            ("code_interpreter_call", "code_interpreter_call_code", "code"),
        ]:
            item = {"id": "i", "type": type, member: ""}
            self.assertEqual(
                output(added(0, **item), piece(stem, "a"), piece(stem, "b")), [{**item, member: "ab"}]
            )
            self.assertEqual(output(added(0, **item), whole(stem, member, "c")), [{**item, member: "c"}])

    def test_never_began(self) -> None:
        """A call whose arguments never came is none; one that had them from the start is one."""
        self.assertEqual(output(added(0, **CALL)), [])
        given = {**CALL, "arguments": "{}", "status": "completed"}
        self.assertEqual(output(added(0, **given)), [given])
        self.assertEqual(output(arguments("{}")), [])

    def test_incomplete(self) -> None:
        """In an incomplete Response such an item is incomplete; one without a status gets none."""
        (item,) = output(added(0, **CALL), arguments("{"), kind="incomplete")
        self.assertEqual((item["status"], item["arguments"]), ("incomplete", "{"))
        bare = {key: value for key, value in CALL.items() if key != "status"}
        self.assertNotIn("status", output(added(0, **bare), arguments("{}"))[0])

    def test_interleaved(self) -> None:
        """Pieces of calls that interleave find their calls, and items stay in order."""
        second = {**CALL, "id": "fc_2", "call_id": "c_2"}
        found = output(
            added(1, **second),
            added(0, **CALL),
            *[
                arguments(each, index, item_id=id)
                for a, b in [("{", "["), ('"a"', "1"), (":1}", "]")]
                for each, index, id in [(a, 0, "fc_1"), (b, 1, "fc_2")]
            ],
        )
        self.assertEqual(
            [(each["call_id"], each["arguments"]) for each in found], [("c_1", '{"a":1}'), ("c_2", "[1]")]
        )

    def test_indices_that_begin_alike(self) -> None:
        """Indices of which one begins like the other are not taken for each other."""
        items = [added(index, **{**CALL, "id": "", "call_id": str(index)}) for index in (1, 12)]
        found = output(*items, arguments("a", 1), arguments("b", 12), arguments("c", 1), arguments("d", 12))
        self.assertEqual([each["arguments"] for each in found], ["ac", "bd"])

    def test_one_index_for_all(self) -> None:
        """Where indices repeat, ids tell items apart, and they come in order of arrival."""
        second = {**CALL, "id": "fc_2", "call_id": "c_2"}
        found = output(
            added(0, **CALL),
            added(0, **second),
            arguments("b", item_id="fc_2"),
            arguments("a", item_id="fc_1"),
        )
        self.assertEqual([each["arguments"] for each in found], ["a", "b"])

    def test_ids_that_change(self) -> None:
        """An item whose id differs from event to event is one item."""
        final = {**CALL, "id": "z", "arguments": "{}"}
        self.assertEqual(output(added(0, **CALL), arguments("{}", item_id="y"), done(0, **final)), [final])

    def test_one_id_for_all(self) -> None:
        """Items that share an id are told apart by their indices."""
        items = [{**CALL, "call_id": id, "arguments": "{}"} for id in ("c_1", "c_2")]
        self.assertEqual(output(*(done(index, **item) for index, item in enumerate(items))), items)

    def test_finished_items_stay(self) -> None:
        """What output_item.done says is not changed by pieces, or by its beginning sent again."""
        final = {**CALL, "arguments": "{}"}
        self.assertEqual(output(done(0, **final), arguments("x"), added(0, **CALL)), [final])


class TextTests(SynchronousTestCase):
    """Texts without output_item.done."""

    MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}

    def test_message(self) -> None:
        """A message that only began gets its texts, by index, from their done events, else their deltas."""
        expected = {**self.MESSAGE, "status": "completed"}
        events = [text("b", part=1), text("a"), text("c", part=1)]
        self.assertEqual(
            output(added(0, **self.MESSAGE), *events),
            [{**expected, "content": [output_text("a"), output_text("bc")]}],
        )
        final = whole("output_text", "text", "A", content_index=0, logprobs=[{"token": "A"}])
        self.assertEqual(
            output(added(0, **self.MESSAGE), text("x"), final),
            [{**expected, "content": [{**output_text("A"), "logprobs": [{"token": "A"}]}]}],
        )

    def test_other_parts(self) -> None:
        """Refusals and reasoning are parts, too."""
        refusal = {**self.MESSAGE, "status": "completed", "content": [{"type": "refusal", "refusal": "no"}]}
        self.assertEqual(
            output(added(0, **self.MESSAGE), piece("refusal", "n"), piece("refusal", "o")), [refusal]
        )
        item = {"id": "rs_1", "type": "reasoning", "summary": []}
        events = [
            piece("reasoning_summary_text", "s", summary_index=1),
            piece("reasoning_summary_text", "r", summary_index=0),
            piece("reasoning_text", "t", content_index=0),
        ]
        self.assertEqual(
            output(added(0, **item), *events),
            [
                {
                    **item,
                    "summary": [{"type": "summary_text", "text": "r"}, {"type": "summary_text", "text": "s"}],
                    "content": [{"type": "reasoning_text", "text": "t"}],
                }
            ],
        )
        self.assertEqual(output(added(0, **item)), [item])

    def test_without_item(self) -> None:
        """Texts without an item make one assistant message beside the items, in its place."""
        call = {**CALL, "arguments": "{}"}
        found = output(done(2, **call), text("Hel", 1, item_id="msg_9"), text("lo", 1, item_id="msg_9"))
        self.assertEqual(
            found,
            [
                {
                    "id": "msg_9",
                    "type": "message",
                    "status": "completed",
                    "role": "assistant",
                    "content": [output_text("Hello")],
                },
                call,
            ],
        )
        self.assertEqual(output(event("response.output_text.delta", delta="a"))[0]["id"], "msg_1")

    def test_item_after_its_texts(self) -> None:
        """An item that comes after its texts takes them, or replaces them."""
        self.assertEqual(output(text("a"), added(0, **self.MESSAGE))[0]["content"], [output_text("a")])
        final = {**self.MESSAGE, "content": [output_text("b")]}
        self.assertEqual(output(text("a"), done(0, **final)), [final])

    def test_without_place(self) -> None:
        """Pieces that tell neither item nor index are about the last item of their kind."""
        bare = [event("response.output_text.delta", delta=each) for each in ("a", "b")]
        self.assertEqual(output(added(0, **self.MESSAGE), *bare)[0]["content"], [output_text("ab")])
        self.assertEqual(output(*bare, added(0, **self.MESSAGE))[0]["content"], [output_text("ab")])
        final = {**self.MESSAGE, "content": [output_text("ab")]}
        self.assertEqual(output(*bare, done(0, **final)), [final])
        self.assertEqual(output(done(0, **final), *bare), [final])
        pieces = [event("response.function_call_arguments.delta", delta=each) for each in ("{", "}")]
        self.assertEqual(output(added(0, **CALL), done(1, **final), *pieces)[0]["arguments"], "{}")

    def test_empty_end(self) -> None:
        """An item that ends without what came in pieces gets it; without pieces it stays as it is."""
        shell = {**self.MESSAGE, "status": "completed"}
        filled = {**shell, "content": [output_text("ab")]}
        for events in (
            [added(0, **self.MESSAGE), text("a"), text("b"), done(0, **shell)],
            [text("a"), text("b"), done(0, **shell)],
            [done(0, **shell), text("a"), text("b")],
        ):
            self.assertEqual(output(*events), [filled])
        self.assertEqual(output(done(0, **shell)), [shell])
        call = {**CALL, "status": "completed"}
        self.assertEqual(
            output(added(0, **CALL), arguments("{}"), done(0, **call)), [{**call, "arguments": "{}"}]
        )
        self.assertEqual(output(done(0, **call)), [call])

    def test_text_beside_another_kind(self) -> None:
        """A text at the index of a call or of reasoning is not theirs."""
        reasoning = {"id": "rs_1", "type": "reasoning", "summary": []}
        found = output(added(0, **reasoning), text("a", item_id="msg_9"))
        self.assertEqual([each["type"] for each in found], ["reasoning", "message"])

    def test_odd_shapes(self) -> None:
        """Events of the wrong shape, and invalid ones, change nothing."""
        events = [
            added(0, **self.MESSAGE),
            text("a"),
            event("response.output_text.delta", output_index=0, content_index=0, delta=5),
            event("response.output_text.delta", output_index=0, content_index=0),
            ServerSentEvent(
                "response.output_text.delta", b'{"output_index": 0, "content_index": 0, "delta": "'
            ),
            ServerSentEvent("response.output_text.delta", b"rubbish"),
            event("response.output_item.added", item=None),
            text("b"),
        ]
        self.assertEqual(output(*events)[0]["content"], [output_text("ab")])

    def test_surrogates(self) -> None:
        """A surrogate pair split over two deltas is joined, among many others too."""
        halves = [text("x"), text("\ud83d"), text("\ude00"), text("y")]
        self.assertEqual(output(added(0, **self.MESSAGE), *halves)[0]["content"], [output_text("x😀y")])

    @examples(100)
    @given(
        st.lists(st.tuples(st.integers(0, 2), st.text(max_size=5)), max_size=30),
        st.booleans(),
        st.booleans(),
    )
    def test_any_interleaving(self, pieces: list[tuple[int, str]], named: bool, ids: bool) -> None:
        """However the deltas of several texts interleave, each text is given back."""
        items = [added(index, **{**self.MESSAGE, "id": f"m{index}"}) for index in range(3)]
        events = [
            event(
                "response.output_text.delta",
                named,
                output_index=index,
                content_index=0,
                delta=delta,
                **({"item_id": f"m{index}"} if ids else {}),
            )
            for index, delta in pieces
        ]
        texts = {each["id"]: each["content"][0]["text"] for each in output(*items, *events)}
        expected: dict[str, str] = {}
        for index, delta in pieces:
            expected[f"m{index}"] = expected.get(f"m{index}", "") + delta
        self.assertEqual(texts, expected)


class BoundTests(SynchronousTestCase):
    def test_long_texts(self) -> None:
        """A text of many deltas is whole, and what surrounds each of them does not count as held."""
        padding = "p" * 1000
        events = [text(f"{number} ", obfuscation=padding) for number in range(300)]
        made = accumulator(*events, max_bytes=10_000).result()["output"]
        self.assertEqual(made[0]["content"][0]["text"], "".join(f"{number} " for number in range(300)))

    def test_endless_text(self) -> None:
        """Deltas that never end are an error soon after the bound."""
        made = ResponseAccumulator(max_bytes=10_000)
        count = 0
        with self.assertRaises(APIError):
            while count < 10_000:
                made.feed(text("x" * 100))
                count += 1
        self.assertLess(count, 10_000 // 100 + 65_536 // 100)
