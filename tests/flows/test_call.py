"""Which requests are converted, and what the converted request says."""

from __future__ import annotations

import json
from unittest import TestCase

from hypothesis import example, given
from hypothesis import strategies as st

from stream_proxy.flows.call import (
    Call,
    Kind,
    call_to_convert,
    convertible_kind,
    refuses_include_usage,
    refuses_stream,
)
from stream_proxy.http.target import origin_form

CHAT = b"/v1/chat/completions"
RESPONSES = b"/v1/responses"
JSON = [(b"Content-Type", b"application/json")]

strings = st.text(st.characters(codec=None), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | strings,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(strings, inner, max_size=3),
    max_leaves=8,
)


class TargetTests(TestCase):
    """Origin form of request targets."""

    def test_origin_form(self) -> None:
        """A path stays as it is, byte for byte."""
        for target in (b"/", b"//a//b", b"/a?", b"/a?b#c", b"/%00", b"/a;b|c[]"):
            self.assertEqual(origin_form(target), target)

    def test_absolute_form(self) -> None:
        """Of an absolute target the path and query count."""
        for target, expected in (
            (b"http://h/a?b", b"/a?b"),
            (b"HTTPS://u:p@h:1/a", b"/a"),
            (b"http://h", b"/"),
            (b"http://h?a/b", b"/?a/b"),
            (b"http://h//a", b"//a"),
        ):
            self.assertEqual(origin_form(target), expected)

    def test_refused(self) -> None:
        """Anything else leads nowhere."""
        for target in (
            b"",
            b"*",
            b"a",
            b".evil.example/v1",
            b"@evil.example",
            b":8080/v1",
            b"evil.example:443",
            b"ftp://h/a",
            b"http:/h/a",
            b"http:///a",
            b"http://",
            b"://h/a",
            b"/a b",
            b"/\x00",
            b"/\x7f",
            b"/\xc3\xa9",
            b"/a\r\n",
        ):
            self.assertIsNone(origin_form(target), target)

    @given(st.binary(max_size=30))
    def test_any_target(self, target: bytes) -> None:
        """Whatever goes on is a path of visible ASCII: it cannot change host, or end the request line."""
        got = origin_form(target)
        if got is not None:
            self.assertTrue(got.startswith(b"/"))
            self.assertTrue(all(0x21 <= byte <= 0x7E for byte in got))
            self.assertIn(got.lstrip(b"/"), target)


class KindTests(TestCase):
    """Requests that are worth a look at their body."""

    def test_paths(self) -> None:
        """The path counts, wherever it begins, without its query and trailing slashes."""
        for target, kind in (
            (CHAT, Kind.CHAT),
            (b"/chat/completions", Kind.CHAT),
            (b"/openai/deployments/x/chat/completions?api-version=1", Kind.CHAT),
            (b"/v1/chat/completions//?a=/b", Kind.CHAT),
            (RESPONSES, Kind.RESPONSES),
            (b"/api/v1/responses/", Kind.RESPONSES),
            (b"/v1/completions", None),
            (b"/v1/chat/completions/x", None),
            (b"/v1/responses/resp_1", None),
            (b"/v1/xresponses", None),
            (b"/v1/x?a=/chat/completions", None),
            (b"/v1/Chat/Completions", None),
            (b"/", None),
        ):
            self.assertEqual(convertible_kind(b"POST", target, JSON), kind, target)

    def test_methods(self) -> None:
        """Only POST, as it is spelt."""
        for method in (b"GET", b"PUT", b"post", b""):
            self.assertIsNone(convertible_kind(method, CHAT, JSON))

    def test_content_types(self) -> None:
        """``application/json`` in any case and with any parameters; nothing else."""
        for value, yes in (
            (b"application/json", True),
            (b"Application/JSON ; charset=utf-8", True),
            (b" application/json;", True),
            (b"application/json+x", False),
            (b"text/json", False),
            (b"multipart/form-data; boundary=application/json", False),
            (b"", False),
        ):
            got = convertible_kind(b"POST", CHAT, [(b"content-TYPE", value)])
            self.assertEqual(got is not None, yes, value)
        self.assertIsNone(convertible_kind(b"POST", CHAT, []))

    def test_content_encoding(self) -> None:
        """A compressed body is not looked at."""
        for value, yes in (
            (b"gzip", False),
            (b"br", False),
            (b"identity", True),
            (b" Identity ", True),
            (b"", True),
        ):
            got = convertible_kind(b"POST", CHAT, [*JSON, (b"Content-Encoding", value)])
            self.assertEqual(got is not None, yes, value)


class CallTests(TestCase):
    """Bodies that ask for an ordinary answer."""

    def test_stream(self) -> None:
        """``stream`` absent, false or null is converted, anything else is not."""
        for flag, yes in (
            (b"", True),
            (b',"stream":false', True),
            (b',"stream": null ', True),
            (b',"stream":true', False),
            (b',"stream":"false"', False),
            (b',"stream":0', False),
            (b',"stream":false,"stream":true', False),
            (b',"str\\u0065am":true', False),
        ):
            for kind, target in ((Kind.CHAT, CHAT), (Kind.RESPONSES, RESPONSES)):
                got = call_to_convert(kind, target, b'{"model":"m"' + flag + b"}")
                self.assertEqual(got is not None, yes, flag)

    def test_model(self) -> None:
        """A model is needed: in the body, or in a path as Azure's."""
        azure = b"/openai/deployments/gpt%204/chat/completions?a=/deployments/evil/"
        self.assertIsNone(call_to_convert(Kind.CHAT, CHAT, b"{}"))
        self.assertIsNone(call_to_convert(Kind.CHAT, CHAT + b"?/deployments/x/", b"{}"))
        call = call_to_convert(Kind.CHAT, azure, b"{}")
        assert call is not None
        self.assertEqual(call.model, b"gpt%204")
        call = call_to_convert(Kind.CHAT, azure, b'{"model": "m" }')
        assert call is not None
        self.assertEqual(call.model, b'"m"')

    def test_long_model(self) -> None:
        """What is remembered of a model is bounded."""
        call = call_to_convert(Kind.CHAT, CHAT, b'{"model":"' + b"m" * 5000 + b'"}')
        assert call is not None
        self.assertEqual(len(call.model), 256)

    def test_no_object(self) -> None:
        """What is no JSON object is none of ours."""
        for body in (b"", b"[]", b"null", b'"model"', b'{"model":', b"\xff", b"{'model': 1}", b"[" * 100_000):
            self.assertIsNone(call_to_convert(Kind.CHAT, CHAT, body))

    def test_background(self) -> None:
        """Responses in the background cannot be streamed with the same result; chat has no such thing."""
        for flag, yes in ((b"true", False), (b" true ", False), (b"false", True), (b"null", True)):
            body = b'{"model":"m","background":' + flag + b"}"
            self.assertEqual(call_to_convert(Kind.RESPONSES, RESPONSES, body) is not None, yes)
            self.assertIsNotNone(call_to_convert(Kind.CHAT, CHAT, body))

    def test_audio(self) -> None:
        """Audio output streams as pcm16 alone."""
        for audio, yes in (
            (b'{"voice":"x","format":"pcm16"}', True),
            (b'{"voice":"x","format":"wav"}', False),
            (b'{"voice":"x"}', False),
            (b"{}", False),
            (b"null", True),
            (b'"wav"', True),
        ):
            body = b'{"model":"m","audio":' + audio + b"}"
            self.assertEqual(call_to_convert(Kind.CHAT, CHAT, body) is not None, yes, audio)

    def test_n(self) -> None:
        """``n`` says how many choices make the answer complete; what is no such number does not count."""
        for n, expected in (
            (b"3", 3),
            (b"1", 1),
            (b"0", 1),
            (b"-2", 1),
            (b"true", 1),
            (b'"3"', 1),
            (b"null", 1),
            (b"2.5", 1),
        ):
            call = call_to_convert(Kind.CHAT, CHAT, b'{"model":"m","n":' + n + b"}")
            assert call is not None
            self.assertEqual(call.n, expected, n)


class BodyTests(TestCase):
    """The body that asks for a stream."""

    def body(self, kind: Kind, body: bytes, usage: bool = True) -> bytes:
        call = call_to_convert(kind, CHAT, body)
        assert call is not None, body
        return call.body(include_usage=usage)

    def test_verbatim(self) -> None:
        """Key order, number spelling, escapes, lone surrogates and inner blanks stay."""
        members = (
            b'"model":"m","temperature":1.00,"top_p":1E-1,"seed":123456789012345678901234567890,'
            b'"messages":[ {"role" : "user","content":"\\ud83d \\u00e9\\/"} ],"a":{"b":1,"b":2},"\\u0078":-0'
        )
        got = self.body(Kind.RESPONSES, b"{" + members + b"}")
        self.assertEqual(got, b"{" + members.replace(b'"\\u0078"', b'"x"') + b',"stream":true}')

    def test_not_ours_to_spell(self) -> None:
        """A call with a value that no JSON can spell is not touched."""
        for value in (b"NaN", b"[-Infinity]"):
            body = b'{"model":"m","temperature":' + value + b"}"
            self.assertIsNone(call_to_convert(Kind.CHAT, CHAT, body))
            # Not even if what it would become stands elsewhere in it.
            body = b'{"model":"m","temperature":' + value + b',"seed":null,"stop":[null]}'
            self.assertIsNone(call_to_convert(Kind.CHAT, CHAT, body))

    def test_chat(self) -> None:
        """A chat call also asks for its usage; a Responses call does not know that option."""
        self.assertEqual(
            self.body(Kind.CHAT, b'{"model":"m"}'),
            b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}',
        )
        self.assertEqual(self.body(Kind.CHAT, b'{"model":"m"}', False), b'{"model":"m","stream":true}')
        self.assertEqual(self.body(Kind.RESPONSES, b'{"model":"m"}'), b'{"model":"m","stream":true}')

    def test_in_place(self) -> None:
        """``stream`` and ``stream_options`` stay where the client put them."""
        got = self.body(Kind.CHAT, b'{"stream":false,"stream_options":null,"model":"m"}')
        self.assertEqual(got, b'{"stream":true,"stream_options":{"include_usage":true},"model":"m"}')

    def test_stream_options(self) -> None:
        """The client's other options stay, its ``include_usage`` is ours to say."""
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
        """Of a key that came twice the last value counts, as for every JSON parser that upstreams use."""
        got = self.body(Kind.RESPONSES, b'{"a":1,"model":"m","a":2}')
        self.assertEqual(json.loads(got), {"a": 2, "model": "m", "stream": True})

    def test_surrogate_key(self) -> None:
        """A key with a lone surrogate stays, too."""
        self.assertIn(b'"a\\ud83d":1.0', self.body(Kind.CHAT, b'{"model":"m","a\\ud83d" : 1.0}'))

    @given(st.dictionaries(strings, json_values, max_size=5), st.booleans())
    @example({"\ud83d": ["\udc00\ud83d", 1e300]}, True)
    def test_any_members(self, members: dict[str, object], usage: bool) -> None:
        """Every member but those two is there with the bytes that the client wrote."""
        fields = {**members, "model": "m", "stream": False}
        fields.pop("stream_options", None)
        fields.pop("audio", None)
        parts = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in fields.items()]
        call = call_to_convert(Kind.CHAT, CHAT, ("{" + ", ".join(parts) + "}").encode())
        assert call is not None
        got = call.body(include_usage=usage)
        for key, value in fields.items():
            if key != "stream":
                self.assertIn(b":" + json.dumps(value).encode(), got)
        expected = {**fields, "stream": True}
        if usage:
            expected["stream_options"] = {"include_usage": True}
        self.assertEqual(list(json.loads(got).items()), list(expected.items()))

    def test_call_is_not_changed(self) -> None:
        """Asking twice, with and without usage, gives two bodies from the same call."""
        call = call_to_convert(Kind.CHAT, CHAT, b'{"model":"m","stream_options":{"a":1}}')
        assert isinstance(call, Call)
        first = call.body(include_usage=True)
        call.body(include_usage=False)
        self.assertEqual(call.body(include_usage=True), first)


class RefusalTests(TestCase):
    """Errors that say what an upstream does not take."""

    def test_include_usage(self) -> None:
        """A 400 or 422 that names the option, in whatever form."""
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
        """A 400 whose ``param`` is ``stream``, inside an ``error`` or not."""
        for status, body, yes in (
            (400, b'{"error": {"param": "stream", "code": "unsupported_value"}}', True),
            (400, b'{"param": "stream"}', True),
            (400, b'{"error": {"param": "stream_options"}}', False),
            (400, b'{"error": "stream"}', False),
            (400, b'{"error": {"param": null}}', False),
            (400, b"stream", False),
            (400, b"[" * 100_000, False),
            (422, b'{"error": {"param": "stream"}}', False),
        ):
            self.assertEqual(refuses_stream(status, body), yes, body[:60])
