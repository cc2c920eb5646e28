"""Bodies that replace those of converted calls, and errors that refuse parts of them."""

from __future__ import annotations

import json
from unittest import TestCase

from hypothesis import example, given
from hypothesis import strategies as st

from stream_proxy.flows.conversion.call import (
    Call,
    Kind,
    call_to_convert,
    refuses_include_usage,
    refuses_stream,
)

CHAT = b"/v1/chat/completions"


RESPONSES = b"/v1/responses"


JSON = [(b"Content-Type", b"application/json")]


strings = st.text(st.characters(codec=None), max_size=8)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | strings,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(strings, inner, max_size=3),
    max_leaves=8,
)


#: Names as clients may write them, and other spellings of them.
NAMES = ("model", "stream", "n", "background", "audio", "m\\u006fdel", "str\\u0065am", "\\u006E", "Model", "")
VALUES = ("true", "false", "null", "0", "2", '"m"', "[]", '{"stream":true}', "{}")
members = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=6)


class MemberTests(TestCase):
    """The members of a body by which it is decided whether to convert it."""

    @given(members, st.sampled_from(("", " ", "\n\t")))
    @example([("stream", "true"), ("model", '"m"'), ("str\\u0065am", "false")], "")
    @example([("stream", "false"), ("model", '"m"'), ("str\\u0065am", "true")], "")
    def test_as_json_reads_them(self, members: list[tuple[str, str]], blank: str) -> None:
        """Names may hold escapes, and of equal names the last counts, as for every reader of JSON."""
        inner = ",".join(f'{blank}"{name}"{blank}:{blank}{value}{blank}' for name, value in members)
        body = f"{{{inner}}}".encode()
        plain = json.loads(body)
        call = call_to_convert(Kind.RESPONSES, RESPONSES, body)
        converted = "model" in plain and (plain.get("stream") is None or plain["stream"] is False)
        self.assertEqual(call is not None, converted and plain.get("background") is not True)
        if call is not None:
            self.assertEqual(json.loads(bytes(call.body(include_usage=False))), {**plain, "stream": True})


class BodyTests(TestCase):
    """Bodies that ask for a stream."""

    def body(self, kind: Kind, body: bytes, usage: bool = True) -> bytes:
        call = call_to_convert(kind, CHAT, body)
        assert call is not None, body
        return bytes(call.body(include_usage=usage))

    def test_verbatim(self) -> None:
        """Key order, number spelling, escapes, lone surrogates and inner whitespace are kept."""
        members = (
            b'"model":"m","temperature":1.00,"top_p":1E-1,"seed":123456789012345678901234567890,'
            b'"messages":[ {"role" : "user","content":"\\ud83d \\u00e9\\/"} ],"a":{"b":1,"b":2},"\\u0078":-0'
        )
        got = self.body(Kind.RESPONSES, b"{" + members + b"}")
        self.assertEqual(got, b"{" + members.replace(b'"\\u0078"', b'"x"') + b',"stream":true}')

    def test_not_ours_to_spell(self) -> None:
        """A call with a value that JSON cannot represent is left alone."""
        for value in (b"NaN", b"[-Infinity]"):
            body = b'{"model":"m","temperature":' + value + b"}"
            self.assertIsNone(call_to_convert(Kind.CHAT, CHAT, body))
            # This holds even if the replacement for the value occurs elsewhere in the body.
            body = b'{"model":"m","temperature":' + value + b',"seed":null,"stop":[null]}'
            self.assertIsNone(call_to_convert(Kind.CHAT, CHAT, body))

    def test_chat(self) -> None:
        """A chat call also asks for usage; Responses calls do not have that option."""
        self.assertEqual(
            self.body(Kind.CHAT, b'{"model":"m"}'),
            b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}',
        )
        self.assertEqual(self.body(Kind.CHAT, b'{"model":"m"}', False), b'{"model":"m","stream":true}')
        self.assertEqual(self.body(Kind.RESPONSES, b'{"model":"m"}'), b'{"model":"m","stream":true}')

    def test_in_place(self) -> None:
        """``stream`` and ``stream_options`` keep the positions that the client gave them."""
        got = self.body(Kind.CHAT, b'{"stream":false,"stream_options":null,"model":"m"}')
        self.assertEqual(got, b'{"stream":true,"stream_options":{"include_usage":true},"model":"m"}')

    def test_stream_options(self) -> None:
        """The client's other stream options are kept; ``include_usage`` is set by the proxy."""
        for options, usage, expected in (
            (b'{"a":1.0,"include_usage":false}', True, b'{"a":1.0,"include_usage":true}'),
            (b'{"include_usage":true,"a":1.0}', False, b'{"a":1.0}'),
            (b'{"include_usage":true}', False, None),
            (b"{}", False, None),
            (b"null", False, None),
            (b'"x"', True, b'{"include_usage":true}'),
        ):
            got = json.loads(
                self.body(Kind.CHAT, b'{"model":"m","stream_options":' + options + b"}", usage),
                parse_float=str,
            )
            wanted = None if expected is None else json.loads(expected, parse_float=str)
            self.assertEqual(got.get("stream_options"), wanted, options)

    def test_duplicates(self) -> None:
        """The last value of a repeated key counts, as in every JSON parser that upstreams use."""
        got = self.body(Kind.RESPONSES, b'{"a":1,"model":"m","a":2}')
        self.assertEqual(json.loads(got), {"a": 2, "model": "m", "stream": True})

    def test_surrogate_key(self) -> None:
        """A key with a lone surrogate is kept too."""
        self.assertIn(b'"a\\ud83d":1.0', self.body(Kind.CHAT, b'{"model":"m","a\\ud83d" : 1.0}'))

    @given(st.dictionaries(strings, json_values, max_size=5), st.booleans())
    @example({"\ud83d": ["\udc00\ud83d", 1e300]}, True)
    def test_any_members(self, members: dict[str, object], usage: bool) -> None:
        """Every member except those two keeps the bytes that the client wrote."""
        fields = {**members, "model": "m", "stream": False}
        fields.pop("stream_options", None)
        fields.pop("audio", None)
        parts = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in fields.items()]
        call = call_to_convert(Kind.CHAT, CHAT, ("{" + ", ".join(parts) + "}").encode())
        assert call is not None
        got = bytes(call.body(include_usage=usage))
        for key, value in fields.items():
            if key != "stream":
                self.assertIn(b":" + json.dumps(value).encode(), got)
        expected = {**fields, "stream": True}
        if usage:
            expected["stream_options"] = {"include_usage": True}
        self.assertEqual(list(json.loads(got).items()), list(expected.items()))

    def test_call_is_not_changed(self) -> None:
        """One call yields both bodies, with and without usage, and does not change."""
        call = call_to_convert(Kind.CHAT, CHAT, b'{"model":"m","stream_options":{"a":1}}')
        assert isinstance(call, Call)
        first = call.body(include_usage=True)
        call.body(include_usage=False)
        self.assertEqual(call.body(include_usage=True), first)


class RefusalTests(TestCase):
    """Errors that state what an upstream does not support."""

    def test_include_usage(self) -> None:
        """A 400 or 422 that names the option is recognized in any form."""
        for status, body, yes in (
            (400, b'{"error": {"param": "stream_options"}}', True),
            (422, b'[{"loc": ["body", "stream_options", "include_usage"]}]', True),
            (400, b"unknown field include_usage", True),
            (400, b'{"error": {"message": "no"}}', False),
            (500, b"stream_options", False),
            (404, b"stream_options", False),
        ):
            self.assertEqual(refuses_include_usage(status, body), yes, body)

    def test_stream(self) -> None:
        """A 400 whose ``param`` is ``stream`` is recognized, or an ``audio.format`` not to be streamed."""
        for status, body, yes in (
            (400, b'{"error": {"param": "stream", "code": "unsupported_value"}}', True),
            (400, b'{"param": "stream"}', True),
            (400, b'{"error": {"param": "stream_options"}}', False),
            (400, b'{"error": "stream"}', False),
            (400, b'{"error": {"param": null}}', False),
            (400, b"stream", False),
            (400, b"[" * 100_000, False),
            (422, b'{"error": {"param": "stream"}}', False),
            (400, b'{"error": {"param": "audio.format", "message": "Only pcm16 with Stream=true"}}', True),
            (400, b'{"error": {"param": "audio.format", "message": "Unknown format"}}', False),
            (400, b'{"error": {"param": "audio.voice", "message": "No stream"}}', False),
        ):
            self.assertEqual(refuses_stream(status, body), yes, body[:60])
