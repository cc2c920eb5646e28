"""Tests that keeping events of a Responses stream undecoded changes no byte of a result, and no error."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase as TestCase

from stream_proxy import ResponseAccumulator, SSEDecoder
from stream_proxy.aggregate.reading.response_blocks import ResponseBlocks
from tests.support.compiled import skip_if_compiled
from tests.support.properties import examples
from tests.support.readers import Outcome, feed_all, outcome_of

DELTA = "response.output_text.delta"


def event(kind: str, fields: bytes = b"", *, line: bytes | None = None) -> bytes:
    """Return an event as OpenAI spells it; `line` replaces its event line."""
    name = kind.encode()
    head = b"event: %b\n" % name if line is None else line
    return head + b'data: {"type":"%b"%b%b}\n\n' % (name, b"," if fields else b"", fields)


def place(item: str = "msg_1", output: int = 0, part: int | None = 0) -> bytes:
    fields = b'"item_id":"%b","output_index":%d' % (item.encode(), output)
    return fields if part is None else fields + b',"content_index":%d' % part


def delta(text: bytes, kind: str = DELTA, number: int = 5, **at: Any) -> bytes:
    fields = b'"sequence_number":%d,%b,"delta":"%b","logprobs":[]' % (number, place(**at), text)
    return event(kind, fields)


def item(end: str, index: int, **members: Any) -> bytes:
    body = json.dumps(members, separators=(",", ":")).encode()
    return event(f"response.output_item.{end}", b'"output_index":%d,"item":%b' % (index, body))


def terminal(output: bytes | None = b"[]", status: str = "completed") -> bytes:
    fields = b"" if output is None else b',"output":%b' % output
    response = b'"response":{"id":"resp_1","status":"%b"%b}' % (status.encode(), fields)
    return event(f"response.{status}", response)


def outcome(
    reads: list[bytes], fast: bool, max_bytes: int = 10**6, max_values: int = 10**5, clean: bool = True
) -> Outcome:
    """Return after which read there was a result and what it was, or the error."""
    accumulator = ResponseAccumulator(max_bytes=max_bytes, max_values=max_values)
    return outcome_of(reads, accumulator, ResponseBlocks if fast else None, max_bytes + 65_536, clean=clean)


def counting() -> Any:
    """Return an accumulator that counts the events that it is fed one by one."""
    skip_if_compiled()

    class Counting(ResponseAccumulator):
        def __init__(self) -> None:
            super().__init__()
            self.fed = 0

        def feed(self, event: Any) -> None:
            self.fed += 1
            super().feed(event)

    return Counting()


def count_fed(reads: list[bytes]) -> tuple[int, dict[str, Any]]:
    accumulator = counting()
    result = feed_all(reads, accumulator, ResponseBlocks)
    return accumulator.fed, result


TEXTS = st.one_of(
    st.text(alphabet="ab é€😀", max_size=4).map(str.encode),
    st.text(alphabet='aé"\\\n\x00😀', max_size=4).map(lambda text: json.dumps(text)[1:-1].encode()),
    st.sampled_from(
        [rb"\ud83d", rb"\ude00", b'"', b"\\", b"\xff", b"\xe2\x82", b"\t", rb"\u00e9", b'a","x":"b']
    ),
)
KINDS = st.sampled_from(
    [
        DELTA,
        DELTA,
        "response.function_call_arguments.delta",
        "response.reasoning_summary_text.delta",
        "response.refusal.delta",
        "response.unknown.delta",
    ]
)
PLACES: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{}, {}, {}, {"part": 1}, {"part": None}, {"item": "fc_1", "output": 1}, {"item": "", "output": 2}]
)
DELTAS = st.builds(
    lambda text, kind, number, at: delta(text, kind, number, **at), TEXTS, KINDS, st.integers(0, 120), PLACES
)
RUNS = st.lists(TEXTS, min_size=2, max_size=6).map(
    lambda texts: b"".join(delta(text, number=8 + number) for number, text in enumerate(texts))
)
ITEMS = st.builds(
    lambda end, index, members: item(end, index, **members),
    st.sampled_from(["added", "done"]),
    st.integers(0, 2),
    st.sampled_from(
        [
            {"id": "msg_1", "type": "message", "status": "in_progress", "content": []},
            {"id": "fc_1", "type": "function_call", "name": "f", "arguments": ""},
            {"id": "rs_1", "type": "reasoning", "summary": []},
            {"type": "message", "content": [{"type": "output_text", "text": "t"}]},
            {},
        ]
    ),
)
DONE = st.builds(
    lambda text, at: event("response.output_text.done", b'%b,"text":"%b"' % (place(**at), text)),
    TEXTS,
    PLACES,
)
ODDITIES = st.sampled_from(
    [
        event("response.created", b'"response":{"id":"resp_1"}'),
        event("response.content_part.added", place() + b',"part":{"type":"output_text","text":""}'),
        event("response.image_generation_call.partial_image", b'"partial_image_b64":"xx"'),
        event("response.output_text.delta", b'"delta":"d"', line=b""),
        event(
            "response.output_text.delta",
            place() + b',"delta":"d"',
            line=b"event:response.output_text.delta\n",
        ),
        event("response.output_text.delta", place() + b',"delta":"d"').replace(b"\n", b"\r\n"),
        event("response.output_text.delta", place() + b',"delta":"d"').replace(b",", b",\ndata: "),
        event("response.output_text.delta", place() + b',"delta":"d"').replace(b"data: ", b"data:"),
        event("response.output_text.delta", place() + b',"delta":"d"').replace(b":", b": "),
        event("response.output_text.delta", place() + b',"delta":5'),
        event("response.output_text.delta", place() + b',"delta":NaN'),
        event("response.output_text.delta", place() + b',"delta":"a"},{"delta":"b"'),
        event("response.output_text.delta", place() + b',"delta":"a"').replace(b"}\n", b"\n"),
        event("response.output_text.delta", place() + b',"delta":"a"') + b"x\n",
        b"event: response.output_text.delta\ndata: \n\n",
        b"event: response.output_text.delta\ndata: null\n\n",
        b"event: response.output_text.delta\n\n",
        b"event: response.output_text.delta\n: comment\ndata: {}\n\n",
        b"id: 1\n" + delta(b"i"),
        b": ping\n\n",
        b"\n",
        b"nonsense\n",
        b'error: {"message": "no"}\n',
        b"data: [DONE]\n\n",
        b"data: not json\n\n",
        b'event: error\ndata: {"type":"error","code":"server_error","message":"no"}\n\n',
        b'event: response.error\ndata: {"message":"no"}\n\n',
        terminal(status="incomplete"),
        event("response.failed", b'"response":{"error":{"code":"rate_limit_exceeded","message":"slow"}}'),
    ]
)
TERMINALS = st.sampled_from(
    [
        terminal(),
        terminal(None),
        terminal(b"null"),
        terminal(b'[{"id":"x"}]'),
        terminal()[:-1],
        terminal()[:-9],
    ]
)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Generate a stream of deltas and what else may stand among them, cut into reads."""
    parts = draw(st.lists(st.one_of(RUNS, DELTAS, ITEMS, DONE, ODDITIES), max_size=10))
    body = b"".join(parts) + draw(TERMINALS)
    ends = sorted(draw(st.lists(st.integers(0, len(body)), max_size=5)))
    return [body[a:b] for a, b in zip([0, *ends], [*ends, len(body)], strict=True)]


@st.composite
def quiet_streams(draw: st.DrawFn) -> bytes:
    """Generate a stream of the API without an error."""
    return b"".join(draw(st.lists(st.one_of(RUNS, DELTAS, ITEMS, DONE), max_size=10))) + terminal()


class BlockTests(TestCase):
    """Streams whose events are kept undecoded, and streams that are decoded event by event."""

    @examples(300)
    @given(
        streams(), st.sampled_from([10**6, 10**6, 4000, 600, 60]), st.sampled_from([10**5, 40]), st.booleans()
    )
    def test_same(self, reads: list[bytes], max_bytes: int, max_values: int, clean: bool) -> None:
        """Any stream, cut anywhere, has the same result or the same error after the same read."""
        self.assertEqual(
            outcome(reads, True, max_bytes, max_values, clean),
            outcome(reads, False, max_bytes, max_values, clean),
        )

    @examples(200)
    @given(quiet_streams())
    def test_kept_or_not(self, body: bytes) -> None:
        """Events that are added at once, as near a bound, make the same items as those that were kept."""
        kept = outcome([body], True)
        size = len(kept[1]) if isinstance(kept[1], bytes) else 0
        # No event is kept if ten times its size might exceed the bound.
        at_once = outcome([body], True, max_bytes=max(size, len(body)))
        self.assertEqual(at_once, kept)

    def test_unneeded(self) -> None:
        """Where the terminal event has the output, no delta is decoded or fed."""
        deltas = b"".join(delta(b"%d" % number, number=number) for number in range(300))
        body = item("added", 0, id="msg_1", type="message") + deltas + terminal(b'[{"id":"whole"}]')
        fed, result = count_fed([body[:3000], body[3000:]])
        self.assertEqual((fed, result["output"]), (1, [{"id": "whole"}]))

    def test_needed(self) -> None:
        """Where it has none, the deltas are decoded, however many came before."""
        count = 2000
        deltas = b"".join(delta(b"%d \\n" % number, number=number) for number in range(count))
        body = item("added", 0, id="msg_1", type="message") + deltas + terminal()
        for size in (len(body), 65_536, 1000, 150):
            fed, result = count_fed([body[at : at + size] for at in range(0, len(body), size)])
            self.assertEqual(fed, 1)
            text = "".join(f"{number} \n" for number in range(count))
            self.assertEqual(result["output"][0]["content"][0]["text"], text)

    def test_memory(self) -> None:
        """No more than some 64 KiB of undecoded events are kept."""
        accumulator = ResponseAccumulator()
        blocks = ResponseBlocks(SSEDecoder(), accumulator)
        for _ in range(40):
            blocks.feed(delta(b"x") * 100)
            self.assertLessEqual(accumulator.deferred_bytes, 65_536)

    def test_bounds(self) -> None:
        """Kept events count against the bounds, even if the terminal event would make them needless."""
        whole = terminal(b'[{"id":"x"}]')
        texts = b"".join(delta(b"x" * 100, part=part) for part in range(50)) + whole
        calls = b"".join(item("done", index, id=f"c{index}") for index in range(5000)) + whole
        for body, max_bytes, max_values in ((texts, 4000, 10**5), (calls, 10**6, 1000)):
            got = outcome([body], True, max_bytes, max_values)
            self.assertEqual(got, outcome([body], False, max_bytes, max_values))
            self.assertEqual(got[1], 502)
