"""Tests that joining runs of chunks gives, byte for byte, the result of decoding each of them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase as TestCase

from stream_proxy import ChatCompletionsAccumulator
from stream_proxy.aggregate.reading.chat_runs import ChatRuns
from tests.support.compiled import skip_if_compiled
from tests.support.properties import examples
from tests.support.readers import Outcome, feed_all, outcome_of


def chunk(text: str, key: str = "content", **more: Any) -> bytes:
    """Return the event of a chunk with one text, of which `text` is what stands between the quotes."""
    head = '{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":'
    delta = f'{{"{key}":"{text}"}}'
    if key == "arguments":
        delta = f'{{"tool_calls":[{{"index":0,"function":{delta}}}]}}'
    tail = "".join(f",{json.dumps(name)}:{json.dumps(value)}" for name, value in more.items())
    return f'data: {head}{delta},"logprobs":null,"finish_reason":null}}]{tail}}}\n\n'.encode(
        "utf-8", "surrogatepass"
    )


END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"total_tokens":3}}\n\n'
DONE = b"data: [DONE]\n\n"


def outcome(reads: list[bytes], fast: bool, max_bytes: int = 10**6, clean: bool = True) -> Outcome:
    """Return after which read there was a result and what it was, or the error."""
    accumulator = ChatCompletionsAccumulator(max_bytes=max_bytes)
    return outcome_of(reads, accumulator, ChatRuns if fast else None, max_bytes + 65_536, clean=clean)


def counting() -> Any:
    """Return an accumulator that counts decoded events and joined runs."""
    skip_if_compiled()

    class Counting(ChatCompletionsAccumulator):
        def __init__(self) -> None:
            super().__init__()
            self.decoded = 0
            self.joined = 0

        def feed(self, event: Any) -> None:
            self.decoded += 1
            super().feed(event)

        def add_text(self, index: int, key: str, text: str, fed: int) -> None:
            self.joined += 1
            super().add_text(index, key, text, fed)

        def add_arguments(self, index: int, call: int, escaped: list[bytes], fed: int) -> None:
            self.joined += 1
            super().add_arguments(index, call, escaped, fed)

    return Counting()


def count_ways(reads: list[bytes]) -> tuple[int, int, dict[str, Any]]:
    """Return how many events were decoded, how many runs were joined, and the result."""
    accumulator = counting()
    result = feed_all(reads, accumulator, ChatRuns)
    return accumulator.decoded, accumulator.joined, result


KEYS = ["content", "reasoning_content", "refusal", "arguments", "name"]
TEXTS = st.one_of(
    st.text(alphabet="ab é€😀\\n", max_size=4).map(lambda text: json.dumps(text, ensure_ascii=False)[1:-1]),
    st.text(alphabet='aé"\\\n\x00\x7f😀', max_size=4).map(lambda text: json.dumps(text)[1:-1]),
    st.sampled_from(
        [r"\ud83d", r"\ude00", r"\uD83D\uDE00", '"', "\\", r"\x", "\t", "[DONE]", r"\u00e9", "\ud800"]
    ),
    st.sampled_from(["{", "}", "{}", r"{\"a\":1}", r"{\"a\":", "1}", r"{\"a\":\"", r"x\"}", r"{\"b\":2}"]),
)


def call_chunk(text: str, index: int | None = 0, id: str | None = None, name: str | None = None) -> bytes:
    """Return the event of a chunk with a fragment of a tool call, of which `text` is the arguments."""
    members = [
        "" if index is None else f'"index":{index},',
        "" if id is None else f'"id":"{id}",',
        '"function":{',
        "" if name is None else f'"name":"{name}",',
    ]
    head, tail = (part.encode() for part in ('{"tool_calls":[{' + "".join(members), "}}]}"))
    body = b'%b"arguments":"%b"%b' % (head, text.encode("utf-8", "surrogatepass"), tail)
    return b'data: {"choices":[{"index":0,"delta":%b,"finish_reason":null}]}\n\n' % body


CALL_CHUNKS = st.builds(
    call_chunk,
    TEXTS,
    st.sampled_from([0, 0, 0, 1, None]),
    st.sampled_from([None, None, "a", "b"]),
    st.sampled_from([None, None, "f", "g"]),
)
CHUNKS = st.one_of(
    st.builds(chunk, TEXTS, st.sampled_from(KEYS)),
    st.builds(lambda text: chunk(text), TEXTS),
    CALL_CHUNKS,
    st.lists(TEXTS, min_size=3, max_size=8).map(lambda texts: b"".join(map(call_chunk, texts))),
    st.builds(lambda text, pad: chunk(text, p=pad), TEXTS, st.sampled_from(["x", "yy", "é", 5])),
    st.builds(
        lambda text, beside: chunk(text).replace(b'"logprobs":null', beside),
        TEXTS,
        st.sampled_from(
            [
                b'"token_ids":[1,2]',
                b'"text":"t"',
                b'"token_id":5,"usage":{"total_tokens":2}',
                b'"logprobs":{"content":[{"token":"a"}]}',
                b'"message":{"content":"whole","v":"w"}',
                b'"content_filter_results":{"hate":{"filtered":false}},"v":[]',
            ]
        ),
    ),
    st.builds(lambda text: chunk(text).replace(b'"content":', b'"channel":"analysis","content":'), TEXTS),
    st.builds(lambda text: chunk(text, x_groq={"usage": {"total_tokens": 1}}), TEXTS),
    st.builds(
        lambda text, pad: chunk(text, obfuscation=pad), TEXTS, st.sampled_from(["x", "yy", 'q"', "é", 5])
    ),
    st.builds(
        lambda text, usage: chunk(text, usage=usage), TEXTS, st.sampled_from([None, {"total_tokens": 1}])
    ),
    st.builds(lambda text: chunk(text).replace(b'"index":0', b'"index":1'), TEXTS),
    st.builds(lambda text: chunk(text).replace(b"\n\n", b"\r\n\r\n"), TEXTS),
    st.builds(lambda text: chunk(text).replace(b'"content":', b'"role":"assistant","content" : '), TEXTS),
    st.builds(lambda text: chunk(text).replace(b'"model":"m"', b'"model":"n"'), TEXTS),
    st.builds(lambda text: chunk(text).replace(b"data: ", b"data:"), TEXTS),
    st.sampled_from(
        [
            END,
            DONE,
            b": ping\n\n",
            b"event: ping\ndata: {}\n\n",
            b"event: x\n",
            b"id: 1\n" + chunk("i"),
            b"nonsense\n",
            b"\n",
            b"data: {\n",
            b"data: not json\n\n",
            b'data: {"error":{"message":"no","code":429}}\n\n',
            chunk("\\u00e9").replace(b"\\u00e9", b"\xe2\x82"),
            chunk("x").replace(b"x", b"\xac"),
            chunk("x", error="no"),
            b'data: {"choices":[{"index":0,"delta":{"content":[{"type":"text","text":"p"}]}}]}\n\n',
        ]
    ),
)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Generate a stream with runs in it, cut into reads."""
    parts = draw(st.lists(st.tuples(CHUNKS, st.integers(1, 4)), max_size=8))
    body = b"".join(part * times for part, times in parts)
    body = b"".join([chunk("b"), chunk("c"), chunk("d")]) * draw(st.integers(0, 2)) + body
    body += draw(st.sampled_from([END + DONE, DONE, END, b""]))
    ends = sorted(draw(st.lists(st.integers(0, len(body)), max_size=5)))
    return [body[a:b] for a, b in zip([0, *ends], [*ends, len(body)], strict=True)]


class RunTests(TestCase):
    """Streams that are joined and streams that are decoded."""

    @examples(300)
    @given(streams(), st.sampled_from([10**6, 300, 60]), st.booleans())
    def test_same(self, reads: list[bytes], max_bytes: int, clean: bool) -> None:
        """Any stream, cut anywhere, has the same result or the same error after the same read."""
        self.assertEqual(outcome(reads, True, max_bytes, clean), outcome(reads, False, max_bytes, clean))

    def test_joined(self) -> None:
        """The first chunk of a run is decoded; the rest of each read is joined."""
        body = b"".join(chunk(f"{number} \\n é") for number in range(100))
        decoded, joined, result = count_ways([body + END + DONE])
        self.assertEqual((decoded, joined), (3, 1))
        text = "".join(f"{number} \n é" for number in range(100))
        self.assertEqual(result["choices"][0]["message"]["content"], text)

    def test_reads(self) -> None:
        """A chunk that is cut between two reads belongs to the run as well."""
        body = b"".join(chunk(str(number)) for number in range(100))
        decoded, joined, result = count_ways([body[:5000], body[5000:9000], body[9000:], END, DONE])
        self.assertEqual((decoded, joined), (3, 3))
        self.assertEqual(len(result["choices"][0]["message"]["content"]), 190)

    def test_kinds(self) -> None:
        """Reasoning, arguments and padded chunks make runs as well."""
        for key, more in (
            ("reasoning_content", {}),
            ("arguments", {}),
            ("content", {"obfuscation": "abc"}),
            ("content", {"p": "abc"}),
            ("content", {"usage": None}),
        ):
            body = chunk("a", key, **more) * 50
            for padding in more.keys() & {"obfuscation", "p"}:
                body = b"".join(chunk("a", key, **{padding: "x" * (n % 7)}) for n in range(50))
            decoded, joined, result = count_ways([chunk("a", key), body + END + DONE])
            self.assertLess(decoded, 8, (key, more))
            self.assertGreater(joined, 0)
            self.assertTrue(result.keys().isdisjoint({"obfuscation", "p"}))

    def test_arguments(self) -> None:
        """In a run it matters as well where fragments of arguments end; calls after it find their place."""
        whole = '{"a":"x"}'
        for texts, read in (
            (["{}", *[whole] * 20], whole),
            ([whole[:end] for end in range(1, len(whole) + 1)], whole),
            (["{", *[" "] * 20, "}"], "{" + " " * 20 + "}"),
        ):
            run = b"".join(call_chunk(json.dumps(text)[1:-1]) for text in texts)
            body = call_chunk("", 0, "i", "f") + run + call_chunk("{}", 0, "j", "g") + END + DONE
            self.assertEqual(outcome([body], True), outcome([body], False))
            _, joined, result = count_ways([body])
            self.assertEqual(joined, 1)
            calls = [call["function"] for call in result["choices"][0]["message"]["tool_calls"]]
            self.assertEqual(calls[0], {"name": "f", "arguments": read})
            self.assertEqual(calls[1:], [{"name": "g", "arguments": "{}"}])

    def test_interrupted(self) -> None:
        """Another event in the middle of a run ends it, and a new run begins after it."""
        body = (
            chunk("a") * 20
            + b": ping\n\n"
            + chunk("b") * 20
            + chunk("c", "reasoning_content")
            + chunk("d") * 20
        )
        decoded, _, result = count_ways([body + END + DONE])
        self.assertLess(decoded, 14)
        message = result["choices"][0]["message"]
        self.assertEqual(
            (message["content"], message["reasoning_content"]), ("a" * 20 + "b" * 20 + "d" * 20, "c")
        )

    def test_look_alikes(self) -> None:
        """Chunks that only look like those of a run are decoded."""
        chat = b'{"choices":[{"index":0,"delta":%b}]}'
        parts = chat % b'{"content":[{"type":"text","text":"p"}]}'
        array = chat % b'{"tool_calls":[{"index":0,"function":[{"q":1}]}]}'
        call = chat % b'{"tool_calls":[{"index":0,"function":{"arguments":"%b"}}]}'
        for first, like in (
            (b"", chat % b'{"content":"%b","cont\\u0065nt":"z"}'),
            (b"", b'{"x":{"content":"%b"},"choices":[{"index":0,"delta":{"reasoning" :"z"}}]}'),
            (b"", (chat % b'{"content":"%b"}')[:-1] + b',"choices":[{"index":0,"delta":{"content" :"z"}}]}'),
            (b"", (chat % b'{"content":"%b"}')[:-1] + b',"obfuscation":"p","obfuscation" :"q"}'),
            (b"", chat % b'{"role":["q"],"content":"%b"}'),
            (
                b"",
                b'{"choices":[{"index":0,"delta":{"content":"%b"}}],"x":{"obfuscation":"%b"},"obfuscation":""}',
            ),
            (array, call),
            (parts, chat % b'{"content":"%b"}'),
        ):
            chunks = [first] if first else []
            chunks += [like.replace(b"%b", text) for text in (b"a", b"b", b"c", b"d", b"e")]
            body = b"".join(b"data: " + each + b"\n\n" for each in chunks) + END + DONE
            self.assertEqual(outcome([body], True), outcome([body], False), like)

    def test_other_in_the_middle(self) -> None:
        """A chunk of the same length for another choice, or another event, is none of the run."""
        for other in (chunk("b").replace(b'"index":0', b'"index":1'), b": ping\n\n", b"data:  [DONE]\n\n"):
            body = chunk("a") * 5 + other + chunk("c") * 5 + END + DONE
            self.assertEqual(outcome([body], True), outcome([body], False))

    def test_no_runs(self) -> None:
        """In a stream without runs, as of two interleaved choices, the search pauses, and goes on later."""
        pair = b"".join(chunk("a").replace(b'"index":0', b'"index":%d' % index) for index in (0, 1))
        body = pair * 50 + chunk("b") * 6 + END + DONE
        self.assertEqual(outcome([body[:9000], body[9000:]], True)[1:], outcome([body], False)[1:])
        self.assertEqual(count_ways([body])[1], 0)
        self.assertEqual(count_ways([chunk("b") * 6 + END + DONE])[1], 1)
        for run in ([chunk("b") * 200], [chunk("b")] * 200):
            self.assertGreater(count_ways([pair * 50, *run, END, DONE])[1], 0)

    def test_dividers(self) -> None:
        """A delete character in a text is part of it; the chunks around it are joined all the same."""
        texts = ["a", "\x7f", "b\\u007f", "\x7f\x7f", "c"] * 10
        decoded, joined, result = count_ways([b"".join(map(chunk, texts)) + END + DONE])
        self.assertEqual((decoded, joined), (3, 1))
        self.assertEqual(result["choices"][0]["message"]["content"], "a\x7fb\x7f\x7f\x7fc" * 10)

    def test_blank_lines(self) -> None:
        """More blank lines than one between events, and at the end of a read, mean nothing."""
        reads = [chunk("a") + b"\n", b"\n" + chunk("b") + b"\n\n\n", chunk("c") + b"\n", END + DONE]
        self.assertEqual(outcome(reads, True), outcome(reads, False))

    def test_single_reads(self) -> None:
        """A run goes on over reads of one chunk each, and over comments between them."""
        reads = [chunk("a"), *[chunk("b"), b": ping\n\n"] * 20, END, DONE]
        decoded, joined, result = count_ways(reads)
        self.assertEqual((decoded, joined), (3, 20))
        self.assertEqual(result["choices"][0]["message"]["content"], "a" + "b" * 20)
