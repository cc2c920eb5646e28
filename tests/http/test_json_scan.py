"""Scan of JSON objects that arrive in pieces: their members, judged as those of whole texts are."""

from __future__ import annotations

import itertools
import json
import tracemalloc
from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from stream_proxy.flows.conversion.call import Kind, call_of, call_to_convert
from stream_proxy.http.body_pieces import BodyPieces
from stream_proxy.http.json_members import LONGEST_PLAIN, Value, members
from stream_proxy.http.json_scan import MOST_MEMBERS, STEP_BYTES, ObjectScan
from stream_proxy.lenient_json import decode_members, values_exceed

TARGET = b"/v1/chat/completions"

blanks = st.sampled_from(["", "", " ", "\n\t\r "])
in_strings = st.lists(
    st.sampled_from(
        [
            "a",
            "é",
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            " ",
            '\\"',
            "\\\\",
            "\\n",
            "\\/",
            "\\u0041",
            "\\ud83d\\ude00",
            "\\ud83d",
            "\\ude00",
        ]
    ),
    max_size=5,
).map(lambda parts: '"' + "".join(parts) + '"')
scalars = st.sampled_from(["0", "-1.5e3", "12", "true", "false", "null"])


def _list(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(blanks, st.lists(inner, max_size=4)).map(
        lambda drawn: "[" + drawn[0] + ("," + drawn[0]).join(drawn[1]) + drawn[0] + "]"
    )


def _object(names: st.SearchStrategy[str], inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(blanks, st.lists(st.tuples(names, inner), max_size=4)).map(
        lambda drawn: (
            "{"
            + drawn[0]
            + ",".join(f"{name}{drawn[0]}:{drawn[0]}{value}{drawn[0]}" for name, value in drawn[1])
            + "}"
        )
    )


values = st.recursive(
    st.one_of(scalars, in_strings),
    lambda inner: st.one_of(_list(inner), _object(in_strings, inner)),
    max_leaves=12,
)
#: Names that a call has, some of them with escapes, and others.
names = st.one_of(
    in_strings, st.sampled_from(['"model"', '"stream"', '"str\\u0065am"', '"stream_options"', '"a"'])
)
objects = st.tuples(blanks, _object(names, values), blanks).map("".join)
tokens = st.lists(
    st.sampled_from(
        ["{", "}", "[", "]", ":", ",", '"', '"a"', "\\", '\\"', " ", "1", "true", "NaN", "\\ud83d", "\x00"]
    ),
    max_size=12,
).map("".join)


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """Draw JSON, nearly JSON, or tokens of it."""
    data = draw(st.one_of(objects, objects, tokens, tokens.map(lambda inner: "{" + inner + "}"))).encode()
    if draw(st.integers(0, 2)) == 0:
        at = draw(st.integers(0, len(data)))
        odd = draw(st.sampled_from([b"", b'"', b"\\", b"{", b"}", b",", b"x", b"\x00", b"\xff", b"NaN"]))
        data = data[:at] + odd + data[at + draw(st.integers(0, 1)) :]
    return data


def scan_of(data: bytes, cuts: list[int], most: int = 10**9) -> tuple[ObjectScan, BodyPieces]:
    """Return the scan of `data`, cut at these places, and its pieces."""
    scan, body = ObjectScan(most), BodyPieces()
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, end in itertools.pairwise(places):
        scan.feed(data[start:end])
        body.append(data[start:end])
    scan.end()
    return scan, body


def in_steps(data: bytes, most: int = 10**9) -> tuple[ObjectScan, BodyPieces]:
    """Return the scan of `data`, as it comes in from a network, and its pieces."""
    return scan_of(data, list(range(0, len(data), STEP_BYTES)), most)


def plain(found: dict[str, Value] | None) -> list[tuple[str, bytes]] | None:
    """Return members in their order."""
    return None if found is None else [(name, bytes(value)) for name, value in found.items()]


def expected(data: bytes) -> list[tuple[str, bytes]] | None:
    """Return the members of a whole text."""
    try:
        return [(name, bytes(value)) for name, value in decode_members(data, verbatim=True).items()]
    except ValueError:
        return None


class AgreementTests(TestCase):
    """The scan of any text, cut anywhere, and the decoding of the whole text."""

    @given(texts(), st.lists(st.integers(0, 200), max_size=8), st.booleans())
    def test_members(self, data: bytes, cuts: list[int], byte_by_byte: bool) -> None:
        """Both find the same members, with the same bytes in the same order, or both find none."""
        scan, body = scan_of(data, list(range(len(data))) if byte_by_byte else cuts)
        self.assertEqual(plain(members(scan, body)), expected(data))

    @given(texts(), st.lists(st.integers(0, 200), max_size=8), st.integers(1, 20))
    def test_values(self, data: bytes, cuts: list[int], most: int) -> None:
        """Both count the same values."""
        self.assertEqual(scan_of(data, cuts, most)[0].too_many, values_exceed(data, most))

    @given(texts(), st.lists(st.integers(0, 200), max_size=8), st.booleans())
    def test_calls(self, data: bytes, cuts: list[int], usage: bool) -> None:
        """The same texts are calls to convert, and are sent as the same bytes."""
        for kind in Kind:
            scan, body = scan_of(data, cuts)
            one, other = call_of(kind, TARGET, members(scan, body)), call_to_convert(kind, TARGET, data)
            self.assertEqual(one is None, other is None)
            if one is not None and other is not None:
                self.assertEqual((one.model, one.n), (other.model, other.n))
                self.assertEqual(bytes(one.body(include_usage=usage)), bytes(other.body(include_usage=usage)))

    @given(objects)
    def test_json(self, text: str) -> None:
        """The members are those that `json` finds, whatever their names are spelled like."""
        scan, body = scan_of(text.encode(), [])
        found = members(scan, body)
        assert found is not None
        self.assertEqual({name: json.loads(bytes(value)) for name, value in found.items()}, json.loads(text))


class LargeTests(TestCase):
    """Texts that take many steps."""

    def test_long_members(self) -> None:
        """Long values are parts of the body, found wherever they are cut, with blanks around them."""
        long = json.dumps('x"\\é{[' * 20_000, ensure_ascii=False).encode()
        items = b"[" + b",".join([b'{"role":"user","content":["a", {}]}'] * 10_000) + b"]"
        data = b'{"model":"m", "input" : %b ,"messages":\n%b , "stream":false}  ' % (long, items)
        scan, body = in_steps(data)
        found = members(scan, body)
        assert found is not None
        self.assertEqual(plain(found), expected(data))
        self.assertIsInstance(found["input"], BodyPieces)
        call = call_of(Kind.CHAT, TARGET, found)
        assert call is not None
        sent = json.loads(bytes(call.body(include_usage=True)))
        usage = {"include_usage": True}
        self.assertEqual(sent, {**json.loads(data), "stream": True, "stream_options": usage})

    def test_no_member_is_copied(self) -> None:
        """The body that asks for a stream refers to the client's bytes."""
        scan, body = in_steps(b'{"model":"m","input":"%b"}' % (b"x" * 2**22))
        tracemalloc.start()
        try:
            call = call_of(Kind.RESPONSES, TARGET, members(scan, body))
            assert call is not None
            made = call.body(include_usage=True)
            self.assertLess(tracemalloc.get_traced_memory()[1], 2**18)
        finally:
            tracemalloc.stop()
        self.assertEqual(json.loads(bytes(made))["stream"], True)

    def test_blanks(self) -> None:
        """Blanks may be any number, before and after anything."""
        blank = b" " * (2 * STEP_BYTES)
        data = blank.join([b"", b"{", b'"a"', b":", b"[", b"1", b",", b"2", b"]", b"}", b""])
        scan, body = in_steps(data)
        self.assertEqual([name for name, _ in plain(members(scan, body)) or []], ["a"])

    def test_deep(self) -> None:
        """Arrays and objects may be nested as deep as the fast parser takes them."""
        for depth, valid in ((800, True), (3000, False)):
            data = b'{"a":' + b'[{"b":' * depth + b"1" + b"}]" * depth + b"}"
            data = data if depth == 3000 else b'{"a":' + b"[" * depth + b"1" + b"]" * depth + b"}"
            for cuts in ([], list(range(0, len(data), 7))):
                self.assertEqual(scan_of(data, cuts)[0].valid, valid)

    def test_refused(self) -> None:
        """Odd texts are not taken apart: endless numbers and names, too many members, no object at all."""
        long = b"1" * (2 * LONGEST_PLAIN)
        for data in (
            b'{"a":%b}' % long,
            b'{"%b":1}' % long,
            b"{%b}" % b",".join(b'"%d":1' % number for number in range(MOST_MEMBERS + 1)),
            b"[%b]" % b",".join([b'{"a":1}'] * 50_000),
            b'"%b"' % long,
            b'{"a":%b' % (b"[" * 100_000),
            b'{"a":%b' % (b"]" * 100_000),
            b'{"a":"%b' % long,
            b'{"a":1}{"b":"%b"}' % long,
        ):
            scan, body = in_steps(data)
            self.assertIsNone(members(scan, body), data[:20])

    def test_looked_at(self) -> None:
        """A call passes as it is if a member that the proxy reads is longer than any sensible one."""
        for name in (b"model", b"stream_options", b"audio", b"n", b"stream", b"background"):
            scan, body = in_steps(b'{"model":"m","%b":"%b"}' % (name, b"x" * 2 * LONGEST_PLAIN))
            found = members(scan, body)
            assert found is not None
            self.assertIsNone(call_of(Kind.CHAT, TARGET, found), name)

    def test_values_of_the_invalid(self) -> None:
        """What is no JSON is still counted, as it would be whole."""
        data = b'{"a":x' + b"[]," * 100_000
        self.assertTrue(in_steps(data, 150_000)[0].too_many)
        self.assertFalse(in_steps(data, 300_000)[0].too_many)


class PiecesTests(TestCase):
    """Bodies in pieces."""

    @given(st.lists(st.binary(max_size=5), max_size=6), st.integers(0, 30), st.integers(0, 30))
    def test_parts(self, pieces: list[bytes], start: int, end: int) -> None:
        """Any part is that of the whole."""
        body, whole = BodyPieces(), b"".join(pieces)
        for piece in pieces:
            body.append(piece)
        part = body.part(start, end)
        self.assertEqual((bytes(part), len(part)), (whole[start:end], len(whole[start:end])))
        self.assertEqual(
            (body.read(start, end), bytes(body), len(body)), (whole[start:end], whole, len(whole))
        )
        twice = BodyPieces()
        twice.extend(part)
        twice.extend(part)
        self.assertEqual(bytes(twice), whole[start:end] * 2)
