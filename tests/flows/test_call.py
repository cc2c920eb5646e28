"""Requests to convert: their targets, heads and bodies."""

from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st

from stream_proxy.flows.conversion.call import Kind, call_to_convert, convertible_kind
from stream_proxy.http.target import origin_form

CHAT = b"/v1/chat/completions"


RESPONSES = b"/v1/responses"


JSON = [(b"Content-Type", b"application/json")]


class TargetTests(TestCase):
    """Origin forms of request targets."""

    def test_origin_form(self) -> None:
        """A path is kept byte for byte."""
        for target in (b"/", b"//a//b", b"/a?", b"/a?b#c", b"/%00", b"/a;b|c[]"):
            self.assertEqual(origin_form(target), target)

    def test_absolute_form(self) -> None:
        """Only the path and query of an absolute target are kept."""
        for target, expected in (
            (b"http://h/a?b", b"/a?b"),
            (b"HTTPS://u:p@h:1/a", b"/a"),
            (b"http://h", b"/"),
            (b"http://h?a/b", b"/?a/b"),
            (b"http://h//a", b"//a"),
        ):
            self.assertEqual(origin_form(target), expected)

    def test_refused(self) -> None:
        """No other target is accepted."""
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
        """An accepted target is a path of visible ASCII: it cannot change the host or the request line."""
        got = origin_form(target)
        if got is not None:
            self.assertTrue(got.startswith(b"/"))
            self.assertTrue(all(0x21 <= byte <= 0x7E for byte in got))
            self.assertIn(got.lstrip(b"/"), target)


class KindTests(TestCase):
    """Requests whose body has to be inspected."""

    def test_paths(self) -> None:
        """The end of the path counts, without its query and trailing slashes."""
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
        """Only POST counts, in upper case."""
        for method in (b"GET", b"PUT", b"post", b""):
            self.assertIsNone(convertible_kind(method, CHAT, JSON))

    def test_content_types(self) -> None:
        """``application/json`` counts in any case and with any parameters; nothing else does."""
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
        """A compressed body is not inspected."""
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
    """Bodies that ask for an ordinary response."""

    def test_stream(self) -> None:
        """A call is converted if ``stream`` is absent, false or null."""
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
        """A call needs a model: in the body, or in an Azure-style path."""
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
        """The model's name is bounded where it is remembered."""
        call = call_to_convert(Kind.CHAT, CHAT, b'{"model":"' + b"m" * 5000 + b'"}')
        assert call is not None
        self.assertEqual(len(call.model), 256)

    def test_no_object(self) -> None:
        """A body that is not a JSON object is not converted."""
        for body in (b"", b"[]", b"null", b'"model"', b'{"model":', b"\xff", b"{'model': 1}", b"[" * 100_000):
            self.assertIsNone(call_to_convert(Kind.CHAT, CHAT, body))

    def test_background(self) -> None:
        """A background Response cannot be streamed with the same result; chat has no such mode."""
        for flag, yes in ((b"true", False), (b" true ", False), (b"false", True), (b"null", True)):
            body = b'{"model":"m","background":' + flag + b"}"
            self.assertEqual(call_to_convert(Kind.RESPONSES, RESPONSES, body) is not None, yes)
            self.assertIsNotNone(call_to_convert(Kind.CHAT, CHAT, body))

    def test_audio(self) -> None:
        """Audio of any format is converted, and its refusals are remembered apart from those of texts."""
        for audio, apart in (
            (b'{"voice":"x","format":"pcm16"}', True),
            (b'{"voice":"x","format":"wav"}', True),
            (b'{"voice":"x"}', True),
            (b"{}", True),
            (b"null", False),
            (b'"wav"', False),
        ):
            body = b'{"model":"m","audio":' + audio + b"}"
            call = call_to_convert(Kind.CHAT, CHAT, body)
            assert call is not None
            self.assertEqual(call.model != b'"m"', apart, audio)

    def test_n(self) -> None:
        """``n`` is the number of choices that completes the response; an invalid ``n`` is ignored."""
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
