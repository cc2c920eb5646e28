"""Watch over answers that are passed on: what their bytes tell."""

from __future__ import annotations

import itertools

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.observe.kinds import APIKind
from stream_proxy.observe.stream_watch import StreamWatch
from stream_proxy.observe.usage import Usage

CHAT = b"".join(
    b"data: %b\n\n" % each
    for each in (
        b'{"id":"c","model":"gpt-x-1","choices":[{"delta":{"role":"assistant","content":""}}],"usage":null}',
        b'{"id":"c","model":"gpt-x-1","choices":[{"delta":{"content":"Hel"}}],"usage":null}',
        b'{"id":"c","model":"gpt-x-1","choices":[{"delta":{"content":"\\"usage\\": {"}}],"usage":null}',
        b'{"id":"c","model":"gpt-x-1","choices":[{"delta":{},"finish_reason":"stop"}],"usage":null}',
        b'{"id":"c","model":"gpt-x-1","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7,'
        b'"prompt_tokens_details":{"cached_tokens":3},"completion_tokens_details":{"reasoning_tokens":2}}}',
        b"[DONE]",
    )
)
RESPONSES = (
    b'event: response.created\ndata: {"type":"response.created","response":{"model":"gpt-y"}}\n\n'
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"Hi"}\n\n'
    b'event: response.completed\ndata: {"type":"response.completed","response":{"model":"gpt-y","output":[],'
    b'"usage":{"input_tokens":8,"input_tokens_details":{"cached_tokens":0},"output_tokens":9,'
    b'"output_tokens_details":{"reasoning_tokens":4},"total_tokens":17},"user":null}}\n\n'
)
MESSAGES = (
    b'event: message_start\ndata: {"type":"message_start","message":{"model":"claude-z",'
    b'"usage":{"input_tokens":25,"cache_read_input_tokens":4,"output_tokens":1}}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"Hi"}}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":15}}\n\n'
)


#: A loaded machine may be slow to draw the first example.
PATIENT = settings(suppress_health_check=[HealthCheck.too_slow])


def watched(kind: APIKind, *reads: bytes, streams: bool = True) -> StreamWatch:
    """Return the watch over a body that came in these reads, at the seconds 0, 1, 2, …"""
    watch = StreamWatch(kind, streams=streams)
    for second, read in enumerate(reads):
        watch.feed(read, float(second))
    watch.end()
    return watch


def events(stream: bytes) -> list[bytes]:
    """Return the events of a stream."""
    return [event + b"\n\n" for event in stream.split(b"\n\n")[:-1]]


class StreamWatchTests(SynchronousTestCase):
    """:class:`StreamWatch`."""

    def test_chat(self) -> None:
        """The role is no content, a null is no usage, and text that looks like one is none."""
        watch = watched("chat", *events(CHAT))
        self.assertEqual((watch.first, watch.last, watch.events), (1.0, 5.0, 5))
        self.assertEqual((watch.model, watch.usage, watch.problem), ("gpt-x-1", Usage(5, 7, 3, 2), None))

    def test_others(self) -> None:
        """Each API has its own signs."""
        watch = watched("responses", *events(RESPONSES))
        self.assertEqual((watch.first, watch.events, watch.model), (1.0, 2, "gpt-y"))
        self.assertEqual(watch.usage, Usage(8, 9, 0, 4))
        watch = watched("messages", *events(MESSAGES))
        self.assertEqual((watch.first, watch.events, watch.model), (1.0, 2, "claude-z"))
        self.assertEqual(watch.usage, Usage(25, 15, 4))

    @PATIENT
    @given(st.lists(st.integers(1, len(CHAT) - 1), max_size=8))
    def test_cuts(self, cuts: list[int]) -> None:
        """However a stream is cut, content and usage are found."""
        places = [0, *sorted(cuts), len(CHAT)]
        watch = watched("chat", *(CHAT[a:b] for a, b in itertools.pairwise(places)))
        self.assertEqual(watch.usage, Usage(5, 7, 3, 2))
        self.assertIsNotNone(watch.first)

    def test_long(self) -> None:
        """Of a long stream no more than the last reads are held, and its events are counted about."""
        event = events(CHAT)[1]
        watch = StreamWatch("chat", streams=True)
        for _ in range(20):
            watch.feed(event * 500, 1.0)
        self.assertEqual(len(watch._parts), 1)
        for _ in range(1_000):
            watch.feed(event, 1.0)
        self.assertLess(sum(map(len, watch._parts)), 10_000)
        watch.feed(CHAT, 2.0)
        watch.end()
        self.assertEqual(watch.usage, Usage(5, 7, 3, 2))
        self.assertLess(abs(watch.events - 11_000), 1_500)

    def test_error(self) -> None:
        """An error at the end of a stream has its code, or its type."""
        begin = events(CHAT)[1]
        for error, name in (
            (b'{"message":"x","type":"server_error","code":"rate_limit_exceeded"}', "rate_limit_exceeded"),
            (b'{"message":"x","type":"server_error","code":null}', "server_error"),
            (b'{"message":"x","code":529}', "529"),
            (b"{}", "upstream_error"),
        ):
            watch = watched("chat", begin, b'data: {"error": %b}\n\n' % error)
            self.assertEqual(watch.problem, name)

    def test_json(self) -> None:
        """JSON has a model and a usage, and no events."""
        body = b'{"id":"c","model":"m","choices":[{"message":{"content":"%b"}}],"usage":{"prompt_tokens":1}}'
        watch = watched("chat", body % (b"x" * 50_000), streams=False)
        self.assertEqual((watch.model, watch.usage), ("m", Usage(1)))
        self.assertEqual((watch.first, watch.events), (None, 0))

    @PATIENT
    @given(
        st.sampled_from(["chat", "responses", "messages", "gemini", "completions"]),
        st.lists(
            st.one_of(st.binary(max_size=40), st.sampled_from([b'"usage":{', b'"error":{', b"{}", b'"a":']))
        ),
    )
    def test_anything(self, kind: APIKind, reads: list[bytes]) -> None:
        """Whatever comes raises nothing."""
        watched(kind, *reads)
