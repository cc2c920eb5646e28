"""Frames of WebSockets: the tracker that follows one direction of a session by the frame headers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.websocket.frames import WHOLE_BYTES, Close, FrameTracker
from tests.support.compiled import skip_if_compiled
from tests.support.properties import examples
from tests.support.sessions import BINARY, CLOSE, CONTINUATION, KEY, PING, PONG, TEXT, frame


@dataclass(frozen=True)
class Sent:
    """One frame, and the result of reading it."""

    data: bytes
    ends_message: bool = False
    close: bytes | None = None


#: Lengths where the form of a header changes, or where a frame becomes a long one.
EDGES = st.sampled_from([0, 1, 125, 126, 127, 65_535, WHOLE_BYTES, WHOLE_BYTES + 1, 70_000])
SIZES = st.integers(0, 300) | EDGES
KEYS = st.just(b"") | st.binary(min_size=4, max_size=4)
WIDTHS = st.sampled_from([0, 2, 8])


@st.composite
def control(draw: st.DrawFn) -> Sent:
    """A ping or a pong."""
    payload = draw(st.binary(max_size=125))
    opcode = draw(st.sampled_from([PING, PONG]))
    return Sent(frame(opcode, payload, key=draw(KEYS), width=draw(WIDTHS)))


@st.composite
def message(draw: st.DrawFn) -> list[Sent]:
    """A message in one to four frames, with control frames between them."""
    sizes = draw(st.lists(SIZES, min_size=1, max_size=4))
    frames: list[Sent] = []
    for place, size in enumerate(sizes):
        opcode = draw(st.sampled_from([TEXT, BINARY])) if place == 0 else CONTINUATION
        last = place == len(sizes) - 1
        payload = bytes((draw(st.integers(0, 255)),)) * size
        data = frame(opcode, payload, fin=last, key=draw(KEYS), width=draw(WIDTHS))
        frames.append(Sent(data, ends_message=last))
        if not last:
            frames += draw(st.lists(control(), max_size=2))
    return frames


@st.composite
def traffic(draw: st.DrawFn) -> list[Sent]:
    """Messages and control frames, and perhaps a close frame at the end."""
    frames: list[Sent] = []
    for part in draw(st.lists(message() | control().map(lambda one: [one]), max_size=4)):
        frames += part
    if draw(st.booleans()):
        payload = draw(st.just(b"") | st.binary(min_size=2, max_size=125))
        frames.append(Sent(frame(CLOSE, payload, key=draw(KEYS), width=draw(WIDTHS)), close=payload))
    return frames


@st.composite
def pieces(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """`data` as a network might deliver it."""
    cuts = draw(st.lists(st.integers(0, len(data)), max_size=12))
    near = draw(st.integers(0, min(40, len(data))))  # headers and short frames byte by byte
    ends = sorted({0, len(data), *cuts, *range(near)})
    return [data[start:end] for start, end in pairwise(ends)]


def fed(tracker: FrameTracker, data: bytes) -> bytes:
    """Feed `data` byte by byte, and return what is forwarded."""
    return b"".join(tracker.feed(data[place : place + 1]) for place in range(len(data)))


class SplittingTests(SynchronousTestCase):
    """Frames in arbitrary pieces."""

    @examples(100)
    @given(st.data())
    def test_legal_traffic(self, data: st.DataObject) -> None:
        """However they are split, the same bytes are forwarded, with the same messages and the same close."""
        frames = data.draw(traffic())
        whole = b"".join(one.data for one in frames)
        tracker = FrameTracker()
        out = b"".join(tracker.feed(piece) for piece in data.draw(pieces(whole)))
        self.assertEqual(out, whole)
        self.assertEqual(tracker.octets, len(whole))
        self.assertEqual(tracker.messages, sum(one.ends_message for one in frames))
        expected = frames[-1].close if frames else None
        self.assertEqual(tracker.close, None if expected is None else Close(expected))
        self.assertFalse(tracker.inside_frame)

    @examples(100)
    @given(st.data())
    def test_what_is_out_at_any_time(self, data: st.DataObject) -> None:
        """After each piece all whole frames are forwarded, and all that has arrived of a long one."""
        frames = [one.data for one in data.draw(traffic())]
        whole = b"".join(frames)
        tracker = FrameTracker()
        arrived = out = 0
        for piece in data.draw(pieces(whole)):
            arrived += len(piece)
            out += len(tracker.feed(piece))
            expected, inside = out_after(frames, arrived)
            self.assertEqual((out, tracker.inside_frame), (expected, inside))

    @examples(200)
    @given(st.lists(st.binary(max_size=200) | EDGES.map(bytes), max_size=30))
    def test_arbitrary_bytes(self, garbage: list[bytes]) -> None:
        """Arbitrary bytes never raise, nothing is added, and at most one frame is held."""
        tracker = FrameTracker()
        arrived = out = b""
        for piece in garbage:
            arrived += piece
            out += tracker.feed(piece)
            self.assertTrue(arrived.startswith(out))
            self.assertLessEqual(len(tracker._held), WHOLE_BYTES + 14)
            if tracker.close is None:
                self.assertEqual(len(out) + len(tracker._held), len(arrived))


def out_after(frames: list[bytes], arrived: int) -> tuple[int, bool]:
    """Return how much of `frames` is due when `arrived` bytes are in, and whether that ends inside one."""
    end = 0
    for data in frames:
        if end + len(data) <= arrived:
            end += len(data)
            continue
        second = data[1]
        header = 2 + {126: 2, 127: 8}.get(second & 0x7F, 0) + (4 if second & 0x80 else 0)
        long = len(data) - header > WHOLE_BYTES
        return (arrived, True) if long and arrived - end >= header else (end, False)
    return end, False


class HoldingTests(SynchronousTestCase):
    """Short frames are forwarded whole, long ones as they arrive."""

    def test_empty(self) -> None:
        """No bytes yield no bytes."""
        tracker = FrameTracker()
        self.assertEqual((tracker.feed(b""), tracker.octets, tracker.messages), (b"", 0, 0))

    def test_longest_short_frame(self) -> None:
        """Without its last byte, nothing of a frame of 65,536 bytes is forwarded."""
        for key in (b"", KEY):
            data = frame(BINARY, bytes(65_536), key=key)
            tracker = FrameTracker()
            self.assertEqual(tracker.feed(data[:-1]), b"")
            self.assertFalse(tracker.inside_frame)
            self.assertEqual(tracker.feed(data[-1:]), data)

    def test_shortest_long_frame(self) -> None:
        """A frame of 65,537 bytes is forwarded as soon as its header is complete."""
        for key in (b"", KEY):
            data = frame(BINARY, bytes(65_537), key=key)
            header = 10 + len(key)
            tracker = FrameTracker()
            self.assertEqual(tracker.feed(data[: header - 1]), b"")
            self.assertFalse(tracker.inside_frame)
            self.assertEqual(tracker.feed(data[header - 1 : header]), data[:header])
            self.assertTrue(tracker.inside_frame)
            self.assertEqual(tracker.feed(data[header:-1]), data[header:-1])
            self.assertEqual((tracker.inside_frame, tracker.messages), (True, 0))
            self.assertEqual(tracker.feed(data[-1:]), data[-1:])
            self.assertEqual((tracker.inside_frame, tracker.messages), (False, 1))

    def test_length_that_no_frame_has(self) -> None:
        """A length of 2**64 - 1 makes a long frame that never ends, of which nothing is held."""
        tracker = FrameTracker()
        data = b"\x82\x7f" + b"\xff" * 8
        self.assertEqual(tracker.feed(data), data)
        self.assertEqual(tracker.feed(bytes(1000)), bytes(1000))
        self.assertTrue(tracker.inside_frame)
        self.assertEqual(len(tracker._held), 0)

    def test_whole_frames_do_not_wait_for_the_next(self) -> None:
        """Of a read that ends inside a frame, everything before that frame is forwarded."""
        tracker = FrameTracker()
        first, second = frame(TEXT, b"one"), frame(TEXT, b"two")
        self.assertEqual(tracker.feed(first + second[:3]), first)
        self.assertEqual(tracker.feed(second[3:]), second)
        self.assertEqual(tracker.messages, 2)

    def test_messages(self) -> None:
        """A message counts when its last fragment has ended; control frames do not count."""
        tracker = FrameTracker()
        counts = []
        for data in (
            frame(TEXT, b"a", fin=False),
            frame(PING, b"p"),
            frame(CONTINUATION, b"b", fin=False),
            frame(PONG),
            frame(CONTINUATION, b""),
            frame(BINARY, b""),
        ):
            tracker.feed(data)
            counts.append(tracker.messages)
        self.assertEqual(counts, [0, 0, 0, 0, 1, 2])

    def test_cost(self) -> None:
        """Byte by byte, a frame is parsed once per part of its header and once at its end."""
        skip_if_compiled()
        tracker = FrameTracker()
        data = frame(BINARY, bytes(5000), key=KEY) * 2
        looks = 0
        follow = FrameTracker._follow

        def counted(self: FrameTracker, seen: bytes) -> int:
            nonlocal looks
            looks += 1
            return follow(self, seen)

        with mock.patch.object(FrameTracker, "_follow", counted):
            self.assertEqual(fed(tracker, data), data)
        # For each frame: after its first byte, its second, its header, and its payload.
        self.assertEqual(looks, 8)


class CloseTests(SynchronousTestCase):
    """Close frames, the only ones whose payload is read."""

    def test_nothing_follows(self) -> None:
        """Nothing after a close frame is forwarded, in the same read or later."""
        tracker = FrameTracker()
        close = Close.of(1000, "bye").frame(masked=False)
        self.assertEqual(
            tracker.feed(frame(TEXT, b"a") + close + frame(TEXT, b"b")), frame(TEXT, b"a") + close
        )
        self.assertEqual(tracker.feed(frame(TEXT, b"c")), b"")
        self.assertEqual((tracker.messages, tracker.octets), (1, len(frame(TEXT, b"a") + close)))
        self.assertEqual(len(tracker._held), 0)

    def test_unmasked(self) -> None:
        """Code and reason are unmasked."""
        for key in (b"", KEY, b"\0\0\0\0"):
            tracker = FrameTracker()
            fed(tracker, frame(CLOSE, b"\x10\xe1" + "ü".encode(), key=key))
            self.assertEqual(tracker.close, Close(b"\x10\xe1" + "ü".encode()))
            self.assertEqual(tracker.close and tracker.close.code, 4321)

    def test_inside_a_fragmented_message(self) -> None:
        """A close frame may come between two fragments."""
        tracker = FrameTracker()
        tracker.feed(frame(TEXT, b"a", fin=False) + frame(CLOSE))
        self.assertEqual((tracker.close, tracker.messages), (Close(), 0))

    def test_without_a_code(self) -> None:
        """An empty payload, or one that is too short for a code, has none."""
        self.assertIsNone(Close(b"").code)
        self.assertIsNone(Close(b"\x03").code)

    def test_payload_that_looks_like_a_close(self) -> None:
        """The same bytes inside a payload do not make a close frame."""
        for size in (100, 70_000):
            tracker = FrameTracker()
            fake = Close.of(1000).frame(masked=False)
            data = frame(BINARY, fake + bytes(size))
            middle = data.index(fake)
            self.assertEqual(tracker.feed(data[:middle]) + tracker.feed(data[middle:]), data)
            self.assertIsNone(tracker.close)

    def test_too_long(self) -> None:
        """A close frame that is too long ends the direction and is not legal."""
        tracker = FrameTracker()
        data = frame(CLOSE, b"\x03\xe8" + b"x" * 500)
        self.assertEqual(tracker.feed(data), data)
        self.assertEqual(tracker.close, Close(b"\x03\xe8" + b"x" * 124))
        self.assertFalse(tracker.close is None or tracker.close.legal)
        self.assertEqual(len(Close.of(1000, "y" * 200).frame(masked=False)), 127)

    def test_legal(self) -> None:
        """Only codes that endpoints may send, with a reason in UTF-8, are legal."""
        for code in (1000, 1003, 1007, 1014, 3000, 4999):
            self.assertTrue(Close.of(code, "Schluß").legal, code)
        self.assertTrue(Close().legal)
        for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535):
            self.assertFalse(Close.of(code).legal, code)
        self.assertFalse(Close(b"\x03").legal)
        self.assertFalse(Close(b"\x03\xe8\xff").legal)

    def test_round_trip(self) -> None:
        """A frame of ours, masked or not, is read back unchanged, and no mask is used twice."""
        for close in (Close(), Close.of(1001), Close.of(3000, "Schluß")):
            for masked in (False, True):
                tracker = FrameTracker()
                data = close.frame(masked=masked)
                self.assertEqual(bool(data[1] & 0x80), masked)
                self.assertEqual(tracker.feed(data), data)
                self.assertEqual(tracker.close, close)
        self.assertNotEqual(Close().frame(masked=True), Close().frame(masked=True))
