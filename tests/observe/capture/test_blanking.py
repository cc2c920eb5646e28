"""Blanking of what a capture must not hold, wherever it stands and however it is cut."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from stream_proxy.observe.capture.bodies import ValueBlanker
from stream_proxy.observe.capture.members import MemberBlanker
from stream_proxy.observe.capture.secrets import (
    Secrets,
    blank_fields,
    blank_form,
    blank_target,
    blank_url,
    shown,
)

MARK = "MARKED-0815"


def fed(blanker: MemberBlanker | ValueBlanker, data: bytes, cuts: list[int]) -> bytes:
    """Return what comes out of a blanker if `data` is cut there."""
    out, at = b"", 0
    for cut in [*cuts, len(data)]:
        out += blanker.feed(data[at:cut])
        at = cut
    return out + blanker.end()


def cuttings(data: bytes) -> Iterator[list[int]]:
    """Yield ways to cut `data`: between any two bytes, at every byte, and some at random."""
    yield from ([cut] for cut in range(1, len(data)))
    yield list(range(1, len(data)))
    chance = random.Random(1)
    for _ in range(50):
        yield sorted(chance.sample(range(1, len(data)), min(6, len(data) - 1)))


class MemberTests(TestCase):
    """Strings under telling names go; the rest stays byte for byte."""

    def check(self, text: str, expected: str) -> None:
        data = text.encode()
        self.assertEqual(fed(MemberBlanker(), data, []).decode(), expected)
        for cuts in cuttings(data):
            self.assertEqual(fed(MemberBlanker(), data, cuts).decode(), expected, cuts)

    def test_strings(self) -> None:
        """A string is blanked, whatever it holds; numbers, null and other members stay."""
        self.check(
            '{"a": "x", "api_key" : "M\\"A\\\\RK\\\\", "max_tokens": 5, "token": null, "b": "}"}',
            '{"a": "x", "api_key" : "***", "max_tokens": 5, "token": null, "b": "}"}',
        )

    def test_tools(self) -> None:
        """An MCP tool keeps its names: its authorization and all strings of its headers are blanked."""
        tool = {"type": "mcp", "authorization": MARK, "headers": {"X-A": MARK, "n": 1, "l": [MARK, [MARK]]}}
        blanked = {
            "type": "mcp",
            "authorization": "***",
            "headers": {"X-A": "***", "n": 1, "l": ["***", ["***"]]},
        }
        self.check(json.dumps({"tools": [tool], "z": "k"}), json.dumps({"tools": [blanked], "z": "k"}))

    def test_client_secrets(self) -> None:
        """Both forms of the Realtime API's ephemeral keys are blanked; the session beside them is not."""
        session = {"model": "m", "instructions": "be kind", "id": "s"}
        self.check(
            json.dumps({"client_secret": {"value": MARK, "expires_at": 1}, "session": session}),
            json.dumps({"client_secret": {"value": "***", "expires_at": 1}, "session": session}),
        )
        self.check(
            json.dumps({"value": "ek_" + MARK, "session": session, "other": {"value": "kept"}}),
            json.dumps({"value": "***", "session": session, "other": {"value": "kept"}}),
        )

    def test_counts(self) -> None:
        """The usage of an answer stays, although its names speak of tokens."""
        text = '{"usage":{"prompt_tokens":3,"prompt_tokens_details":{"cached_tokens":0}},"text":"token"}'
        self.check(text, text)

    def test_json_in_json(self) -> None:
        """Arguments of tools are JSON in strings, which may hold JSON again."""

        def nested(secret: str) -> str:
            inner = json.dumps({"token": secret, "c": "k"})
            return json.dumps({"arguments": json.dumps({"in": inner, "headers": {"a": secret}}), "k": "k"})

        self.check(nested('M"\\K'), nested("***"))

    def test_events(self) -> None:
        """Events are given on whole as soon as they have come: nothing of them waits for the next one."""
        first = b'data: {"a":"b","session_id":"MARK"}\n\n'
        blanker = MemberBlanker()
        self.assertEqual(blanker.feed(first), first.replace(b"MARK", b"***"))
        self.assertEqual(blanker.feed(b'data: {"a'), b"data: {")
        self.assertEqual(blanker.feed(b'":"b"}\n\n'), b'"a":"b"}\n\n')

    def test_long(self) -> None:
        """A long secret is dropped as it comes, also between long runs of backslashes."""
        for fill in (b"x" * 10_000, b"\\\\" * 5000):
            for place in (
                b'{"key":"%b","a":1}',
                b'{"headers":{"n":"%b"},"a":1}',
                b'{"x":"{\\"headers\\":{\\"n\\":\\"%b\\"}}","a":1}',
            ):
                data = place % (fill + b"MARK")
                blanked = place % b"***"
                for step in (1, 7, 4096):
                    self.assertEqual(fed(MemberBlanker(), data, list(range(step, len(data), step))), blanked)

    def test_cheap(self) -> None:
        """A read takes no time that grows with its square, whatever it holds."""
        for start in (b"", b'{"key":"', b'{"headers":{', b'{"headers":{"a":"', b'{\\"headers\\":{', b'"'):
            for fill in (b"\\", b'"', b'\\"', b"{", b'"a",', b'\\"a\\",', b'"key":', b'"a":'):
                blanker = MemberBlanker()
                blanker.feed(start + fill * (131_072 // len(fill)))
                blanker.feed(fill * 100)
                blanker.end()

    def test_held(self) -> None:
        """What is held back is bounded, whatever comes."""
        blanker = MemberBlanker()
        for data in (
            b'"' * 5000,
            b"\\" * 5000,
            b'{"headers":{' * 100,
            b'"x' * 3000,
            b'"key":"',
            b"\\" * 9999,
        ):
            blanker.feed(data)
            self.assertLess(len(blanker._held), 2048)

    def test_blanks(self) -> None:
        """A string with many blanks behind it is no name: they are not held until a colon may come."""
        for start, blanked in (
            (b'{"headers":{"a"', b'{"headers":{"***"'),
            (b'"{\\"headers\\":{\\"a\\"', b'"{\\"headers\\":{\\"***\\"'),
        ):
            for step in (1, 7, 4096):
                data = start + b" " * 5000
                blanker = MemberBlanker()
                out = b"".join(blanker.feed(data[at : at + step]) for at in range(0, len(data), step))
                self.assertLess(len(blanker._held), 128)
                self.assertEqual(out + blanker.end(), blanked + b" " * 5000)

    @given(
        st.recursive(
            st.text(max_size=8) | st.integers() | st.none(),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(st.sampled_from(("a", "key", "headers", "session", 'q"', "value")), inner)
            ),
        ),
        st.integers(1, 9),
    )
    def test_any_json(self, value: object, step: int) -> None:
        """JSON stays JSON, and how it is cut changes nothing."""
        data = json.dumps(value).encode()
        whole = fed(MemberBlanker(), data, [])
        json.loads(whole)
        self.assertEqual(fed(MemberBlanker(), data, list(range(step, len(data), step))), whole)


class ValueTests(TestCase):
    """Known values go wherever they stand."""

    def test_forms(self) -> None:
        """A value is known in the spellings of headers, queries and JSON, and inside of other text."""
        secrets = Secrets([b"a/b=c+d"])
        text = b"x-a/b=c+d-y ?k=a%2Fb%3Dc%2Bd a%2fb%3dc%2bd a\\/b=c+d a/b=c\\u002Bd"
        self.assertEqual(secrets.blanked(text), b"x-***-y ?k=*** *** *** ***")

    def test_cuts(self) -> None:
        """A value is found across cuts, also one that begins like another."""
        secrets = Secrets([b"sk-abc", b"sk-abcdef", b"sk-xyz", b"\xffbin\x00ary", b"no"])
        data = b"sk-abcdef sk-abcd sk-ab \xffbin\x00ary sk-sk-xyz no sk-abc"
        blanked = b"*** ***d sk-ab *** sk-*** no ***"
        self.assertEqual(secrets.blanked(data), blanked)
        for cuts in cuttings(data):
            self.assertEqual(fed(ValueBlanker(secrets), data, cuts), blanked, cuts)

    def test_many(self) -> None:
        """Of thousands of keys each is found, and text is searched once."""
        keys = [b"key-%d-%d" % (number, number**3) for number in range(3000)]
        secrets = Secrets(keys)
        self.assertEqual(secrets.blanked(b" ".join(keys)), b" ".join([b"***"] * 3000))

    def test_held(self) -> None:
        """Text that is no part of a value is given on at once."""
        blanker = ValueBlanker(Secrets([b"sk-abcdef"]))
        self.assertEqual(blanker.feed(b"data: x\n\n"), b"data: x\n\n")
        self.assertEqual(blanker.feed(b"data: sk-ab"), b"data: ")
        self.assertEqual(blanker.feed(b"x"), b"sk-abx")


class HeadTests(TestCase):
    """Header fields and targets."""

    def test_fields(self) -> None:
        """Fields with telling names are blanked, and queries and key subprotocols in others."""
        fields = [
            (b"AUTHORIZATION", b"Bearer x"),
            (b"Set-Cookie", b"a=b; HttpOnly"),
            (b"X-My-Session", b"x"),
            (b"Sec-WebSocket-Protocol", b"realtime, openai-insecure-api-key.MARK, openai-beta.realtime-v1"),
            (b"Referer", b"http://x/?a=b&key=MARK#c"),
            (b"X-Note", b"it is KNOWN"),
            (b"KNOWN", b"name"),
            (b"X-Hub-Signature", b"M"),
            (b"Location", b"https://me:MARK@x/y@z"),
        ]
        self.assertEqual(
            blank_fields(fields, [Secrets([b"KNOWN"])]),
            [
                (b"AUTHORIZATION", b"***"),
                (b"Set-Cookie", b"***"),
                (b"X-My-Session", b"***"),
                (
                    b"Sec-WebSocket-Protocol",
                    b"realtime, openai-insecure-api-key.***, openai-beta.realtime-v1",
                ),
                (b"Referer", b"http://x/?a=b&key=***#c"),
                (b"X-Note", b"it is ***"),
                (b"***", b"name"),
                (b"X-Hub-Signature", b"***"),
                (b"Location", b"https://***@x/y@z"),
            ],
        )

    def test_urls(self) -> None:
        """Names in queries are told by what they decode to."""
        self.assertEqual(
            blank_url(b"/v1?api%2Dkey=M&b=1&X-Amz-Signature=M&k%65y=M&access_token=M&model=key"),
            b"/v1?api%2Dkey=***&b=1&X-Amz-Signature=***&k%65y=***&access_token=***&model=key",
        )
        self.assertEqual(
            blank_form(b"client_secret=M&grant=x&client_id=1"), b"client_secret=***&grant=x&client_id=1"
        )

    def test_targets(self) -> None:
        """A value that a target shows only when it is decoded is blanked, too: importers decode queries."""
        known = [Secrets([b"sk-known"])]
        self.assertEqual(
            blank_target(b"/v1/s%6B-known/x?a=b+c&note=%73k%2dknown&d=%zz", known),
            b"/v1/***/x?a=b+c&note=***&d=%zz",
        )
        self.assertEqual(blank_target(b"/v1/x?q=a+b&r=%41", known), b"/v1/x?q=a+b&r=%41")

    def test_shown(self) -> None:
        """What a request shows as a credential is known in everything that answers it."""
        fields = [
            (b"Authorization", b"Bearer MARKED-BEARER"),
            (b"Cookie", b"a=MARKED-COOKIE; b=short"),
            (b"Sec-WebSocket-Protocol", b"realtime, openai-insecure-api-key.MARKED-PROTOCOL"),
            (b"X-Api-Key", b"MARKED-FIELD"),
        ]
        known = shown(b"/v1?key=MARKED%2FQUERY&a=harmless-value", fields)
        text = b"MARKED-BEARER MARKED-COOKIE MARKED-PROTOCOL MARKED-FIELD MARKED/QUERY harmless-value short"
        self.assertEqual(known.blanked(text), b"*** *** *** *** *** harmless-value short")
