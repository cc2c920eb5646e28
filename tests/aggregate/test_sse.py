"""Tests of the event stream decoder: the WHATWG standard, and the bounds."""

from __future__ import annotations

import dataclasses
import gc
import time

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.aggregate.sse import EventTooLargeError, ServerSentEvent, SSEDecoder
from stream_proxy.errors import APIError
from tests.support.properties import examples

Event = ServerSentEvent


def decode(*reads: bytes) -> list[ServerSentEvent]:
    decoder = SSEDecoder()
    return [event for read in reads for event in decoder.feed(read)]


def byte_by_byte(stream: bytes) -> list[ServerSentEvent]:
    return decode(*(stream[at : at + 1] for at in range(len(stream))))


class DecoderTests(SynchronousTestCase):
    def assertDecodes(self, stream: bytes, *events: ServerSentEvent) -> None:
        """Check that `stream` gives `events`, in one read and byte by byte."""
        self.assertEqual(decode(stream), list(events))
        self.assertEqual(byte_by_byte(stream), list(events))

    def test_line_ends(self) -> None:
        """Lines may end with LF, CRLF or CR, and with a mixture of them."""
        for end in (b"\n", b"\r\n", b"\r"):
            self.assertDecodes(b"data: a" + end + b"data: b" + end + end, Event(data=b"a\nb"))
        self.assertDecodes(b"data: a\r\ndata: b\n\rdata: c\n\n", Event(data=b"a\nb"), Event(data=b"c"))

    def test_cr_dispatches_at_once(self) -> None:
        """A CR ends its line at once, and an LF that follows later does not end another one."""
        decoder = SSEDecoder()
        self.assertEqual(decoder.feed(b"data: a\r\r"), [Event(data=b"a")])
        self.assertEqual(decoder.feed(b""), [])
        self.assertEqual(decoder.feed(b"\ndata: b\r"), [])
        self.assertEqual(decoder.feed(b""), [])
        self.assertEqual(decoder.feed(b"\n"), [])
        self.assertEqual(decoder.feed(b"\r"), [Event(data=b"b")])

    def test_bom(self) -> None:
        """A BOM at the start is skipped, even a split one; any further BOM is part of its line."""
        bom = b"\xef\xbb\xbf"
        self.assertDecodes(bom + b"data: a\n\n", Event(data=b"a"))
        self.assertDecodes(bom + bom + b"data: a\n\n")
        self.assertDecodes(b"\n" + bom + b"data: a\n\n")
        self.assertEqual(decode(b"\xef", b"\xbb", b"\xbfdata: a\n\n"), [Event(data=b"a")])

    def test_fields(self) -> None:
        """Comments, id, retry and unknown fields are skipped; one space is optional; names match exactly."""
        self.assertDecodes(
            b": c\nid: 1\nretry: 5\nfoo: x\nDATA: x\n data: x\ndata:  a \n\n", Event(data=b" a ")
        )
        self.assertDecodes(b"data:a\n\n", Event(data=b"a"))
        self.assertDecodes(b"data:a:b\n\n", Event(data=b"a:b"))

    def test_field_without_colon(self) -> None:
        """A field without a colon has an empty value (web-platform-tests, format-field-data)."""
        self.assertDecodes(
            b"data:\n\ndata\ndata\n\ndata:test\n\n", Event(data=b""), Event(data=b"\n"), Event(data=b"test")
        )

    def test_event_name(self) -> None:
        """A name holds for one event, even for one without data; an empty name means message."""
        self.assertDecodes(b"event: a\ndata: 1\n\ndata: 2\n\n", Event("a", b"1"), Event(data=b"2"))
        self.assertDecodes(b"event: a\n\ndata: 2\n\n", Event(data=b"2"))
        self.assertDecodes(b"event: a\nevent\ndata: 2\n\n", Event(data=b"2"))
        self.assertDecodes(b"event:a\nevent: b\ndata: 2\n\n", Event("b", b"2"))

    def test_no_data(self) -> None:
        """Blank lines without data dispatch nothing."""
        self.assertDecodes(b"\n\n\n: ping\n\nid: 3\n\n")

    def test_unterminated(self) -> None:
        """An event that is not terminated waits for its blank line."""
        self.assertDecodes(b"data: a\n\ndata: b\n", Event(data=b"a"))

    def test_invalid_utf8(self) -> None:
        """Invalid UTF-8 becomes U+FFFD; a code point split between reads does not."""
        self.assertDecodes(
            b"event: \xff\ndata: a\xffb\xe2\x82\n\n", Event("\ufffd", "a\ufffdb\ufffd".encode())
        )
        self.assertDecodes("data: €😀\n\n".encode(), Event(data="€😀".encode()))

    def test_frozen(self) -> None:
        """Events are immutable values."""
        with self.assertRaises(dataclasses.FrozenInstanceError):
            Event().data = b""  # type: ignore[misc]


class EndTests(SynchronousTestCase):
    def end(self, stream: bytes) -> list[ServerSentEvent]:
        """Return what the end of `stream` completes; the events before it do not count."""
        decoder, slow = SSEDecoder(), SSEDecoder()
        decoder.feed(stream)
        for at in range(len(stream)):
            slow.feed(stream[at : at + 1])
        events = decoder.end()
        self.assertEqual(slow.end(), events)
        self.assertEqual(slow.stray(), decoder.stray())
        return events

    def test_whole(self) -> None:
        """A last event without its blank line counts if its data is [DONE] or JSON."""
        for stream, event in [
            (b'data: {"a":1}', Event(data=b'{"a":1}')),
            (b'data: {"a":1}\n', Event(data=b'{"a":1}')),
            (b'data: {"a":1}\r', Event(data=b'{"a":1}')),
            (b'data: 1\n\ndata: {"a":1}\r\n', Event(data=b'{"a":1}')),
            (b'data: {"a":\ndata: 1}', Event(data=b'{"a":\n1}')),
            (b'event: x\ndata: {"a":1}', Event("x", b'{"a":1}')),
            (b'data: {"a":1}\nevent: x', Event("x", b'{"a":1}')),
            (b"data: [DONE]", Event(data=b"[DONE]")),
            (b"data:[DONE] \n", Event(data=b"[DONE] ")),
            (b"event: error\ndata: out of memory", Event("error", b"out of memory")),
            (b'data: "\xff"', Event(data='"\ufffd"'.encode())),
        ]:
            self.assertEqual(self.end(stream), [event], stream)

    def test_cut(self) -> None:
        """One whose data is cut, or that has none, is discarded."""
        for stream in (
            b"",
            b'data: {"a":1',
            b"data: [DON",
            b'data: {"a":1}\ndata: {',
            b"data: words",
            b"data: 1\n\n",
            b"event: x\n",
            b"dat",
            b"data",
            b": comment",
        ):
            self.assertEqual(self.end(stream), [], stream)

    def test_after_stray_error(self) -> None:
        """An error on stray lines before the last event comes before it."""
        self.assertEqual(
            self.end(b'error: {"code":400}\n\ndata: [DONE]'),
            [Event("error", b'{"code":400}'), Event(data=b"[DONE]")],
        )

    def test_too_large(self) -> None:
        """An event over its bound is an error at the end, too."""
        decoder = SSEDecoder(max_event_bytes=10)
        self.assertEqual(decoder.feed(b"data: a\n\ndata: 1234567890"), [Event(data=b"a")])
        self.assertRaises(EventTooLargeError, decoder.end)


class StrayTests(SynchronousTestCase):
    def stray(self, *reads: bytes, keep: int = 64 * 2**10) -> bytes:
        decoder = SSEDecoder(max_stray_bytes=keep)
        for read in reads:
            decoder.feed(read)
        return decoder.stray()

    def test_bare_json(self) -> None:
        """Lines that are not fields are kept, joined by LF, with an unterminated last one."""
        text = b'{\n  "error": {\n    "message": "x"\n  }\n}'
        self.assertEqual(self.stray(b"data: a\n\n" + text), text)
        self.assertEqual(self.stray(text.replace(b"\n", b"\r\n") + b"\r\n"), text)
        self.assertEqual(self.stray(*(text[at : at + 1] for at in range(len(text)))), text)

    def test_error_before_an_event(self) -> None:
        """An error on stray lines is an event of its own, before the event that follows it."""
        for stray, data in [
            (b'error: {"code":400}\n', b'{"code":400}'),
            (b'error: {"code":400}\n\n', b'{"code":400}'),
            (b'error: {"code":400}\r\n\r\n', b'{"code":400}'),
            (b'{"error":\n"m"}\n', b'{"error":\n"m"}'),
            (b'[{"error": "m"}]\n\n', b'[{"error": "m"}]'),
            (b"error: \xff\n", "\ufffd".encode()),
        ]:
            stream = b"data: a\n\n" + stray + b"data: [DONE]\n\n"
            events = [Event(data=b"a"), Event("error", data), Event(data=b"[DONE]")]
            self.assertEqual(decode(stream), events)
            self.assertEqual(byte_by_byte(stream), events)
        for none in (b"rubbish\n", b'{"a": 1}\n', b'x: {"error": "m"}\n', b'{"error": "m"\n'):
            self.assertEqual(decode(none + b"data: a\n\n"), [Event(data=b"a")])

    def test_bound_before_an_event(self) -> None:
        """An error within the bound is found, one beyond it is not; each event begins anew."""
        long = b'{"message":"%b"}\n' % (b"x" * 100)
        for keep, count in ((len(long) - 1, 2), (len(long) - 2, 1)):
            decoder = SSEDecoder(max_stray_bytes=keep)
            for _ in range(2):
                self.assertEqual(len(decoder.feed(long + b"data: a\n\n")), count)

    def test_blank_lines_keep_it(self) -> None:
        """A blank line that dispatches no event keeps them; an event drops them."""
        self.assertEqual(self.stray(b"a\n\nb\n"), b"a\nb")
        self.assertEqual(self.stray(b"a\ndata: x\n\nb\n"), b"b")

    def test_fields_are_none(self) -> None:
        """Fields and comments are not stray, even unterminated ones."""
        self.assertEqual(self.stray(b"id: 1\nretry\n: c\nevent: a\ndata\ndata: x"), b"")

    def test_bound(self) -> None:
        """The first bytes are kept, up to the bound."""
        self.assertEqual(self.stray(b"aaa\nbbb\nccc\n", keep=5), b"aaa\nb")
        self.assertEqual(self.stray(b"aaa\nbbb", keep=5), b"aaa\nb")
        self.assertEqual(self.stray(b"aaaaaaa", keep=5), b"aaaaa")
        self.assertEqual(len(self.stray(b"x" * 200_000)), 65536)


class BoundTests(SynchronousTestCase):
    def test_edge(self) -> None:
        """An event of the maximum size passes, one byte more does not, however it is cut."""
        for size in (1, 3, 1000):
            for stream, fits in [(b"data: 34567890\n\n", 15), (b"data:a\ndata:b\n\n", 14)]:
                for limit in (fits, fits - 1):
                    decoder = SSEDecoder(max_event_bytes=limit)
                    reads = [stream[at : at + size] for at in range(0, len(stream), size)]
                    if limit == fits:
                        self.assertEqual(sum(len(decoder.feed(read)) for read in reads), 1)
                    else:
                        with self.assertRaises(EventTooLargeError):
                            for read in reads:
                                decoder.feed(read)

    def test_kind_of_error(self) -> None:
        """The error is the API error for responses that are too large, and stays."""
        decoder = SSEDecoder(max_event_bytes=10)
        error = self.assertRaises(EventTooLargeError, decoder.feed, b"x" * 11)
        self.assertIsInstance(error, ValueError)
        self.assertIsInstance(error, APIError)
        self.assertEqual((error.status, error.should_retry), (502, False))
        self.assertRaises(EventTooLargeError, decoder.feed, b"\n\n")

    def test_events_before_come_first(self) -> None:
        """Events that were complete in the same read are delivered before the error."""
        decoder = SSEDecoder(max_event_bytes=10)
        self.assertEqual(decoder.feed(b"data: a\n\ndata: 1234567890\n\n"), [Event(data=b"a")])
        self.assertRaises(EventTooLargeError, decoder.feed, b"")

    def test_many_small_events(self) -> None:
        """The bound applies to one event, not to the stream."""
        decoder = SSEDecoder(max_event_bytes=10)
        self.assertEqual(len(decoder.feed(b"data: a\n\n" * 100)), 100)
        self.assertEqual(len(decoder.feed(b": comment\n" * 100 + b"data: a\n\n")), 1)

    def test_linear(self) -> None:
        """Eight times the length costs about eight times as much in 64-byte reads, not sixty-four times."""

        gc.disable()  # it looks at whatever the process has
        self.addCleanup(gc.enable)

        def seconds(size: int, unit: bytes) -> float:
            stream = b"data: " + unit * (size // len(unit)) + b"\n\n"
            reads = [stream[at : at + 64] for at in range(0, len(stream), 64)]
            decoder = SSEDecoder()
            start = time.process_time()
            count = sum(len(decoder.feed(read)) for read in reads)
            self.assertEqual(count, 1)
            return time.process_time() - start

        for unit in (b"x", b"xxxxx\ndata: "):
            small = min(seconds(250_000, unit) for _ in range(3))
            large = min(seconds(2_000_000, unit) for _ in range(3))
            self.assertLess(large, 30 * small + 0.01)


class ArbitraryTests(SynchronousTestCase):
    PIECES = st.sampled_from(
        [
            b"data:",
            b"data: ",
            b"event: ",
            b"\r",
            b"\n",
            b"\r\n",
            b"\n\n",
            b"\xef\xbb\xbf",
            b":",
            b"x",
            b"\xe2\x82",
            b'{"error":1}',
            b"error:",
            b"[DONE]",
        ]
    )

    @examples(200)
    @given(st.lists(PIECES | st.binary(max_size=4), max_size=40).map(b"".join), st.data())
    def test_any_bytes_any_split(self, stream: bytes, data: st.DataObject) -> None:
        """Arbitrary bytes never raise, data is valid UTF-8, and cuts between reads do not matter."""
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
        reads = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        whole, split = SSEDecoder(), SSEDecoder()
        events = whole.feed(stream)
        self.assertEqual([event for read in reads for event in split.feed(read)], events)
        self.assertEqual(split.stray(), whole.stray())
        last = whole.end()
        self.assertEqual(split.end(), last)
        self.assertEqual(split.stray(), whole.stray())
        for event in events + last:
            event.data.decode()

    @examples(150)
    @given(st.lists(PIECES | st.binary(max_size=4), max_size=40).map(b"".join), st.integers(1, 12))
    def test_bound_any_split(self, stream: bytes, limit: int) -> None:
        """With a small bound, one read and single bytes give the same events, all within the bound."""
        outcomes = []
        for size in (1, 1000):
            decoder = SSEDecoder(max_event_bytes=limit)
            events: list[ServerSentEvent] = []
            failed = False
            try:
                for at in range(0, len(stream), size):
                    events += decoder.feed(stream[at : at + size])
                decoder.feed(b"")
            except EventTooLargeError:
                failed = True
            self.assertTrue(all(len(event.data.decode()) <= limit for event in events))
            outcomes.append((events, failed))
        self.assertEqual(outcomes[0], outcomes[1])
