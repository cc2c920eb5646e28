"""Tests of the OpenAI envelope, of the table of codes, and of the statuses of errors inside streams."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy import errors
from stream_proxy.aggregate import stream_errors
from stream_proxy.error_codes import ErrorCode

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "errors.md"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "type", "code", "status", "param", "x"]), inner, max_size=5
        )
    ),
    max_leaves=12,
)


class EnvelopeTests(SynchronousTestCase):
    def test_exactly_four_keys(self) -> None:
        """The body is OpenAI's error object; param is null where none was given."""
        body = json.loads(errors.upstream_error("gone").envelope())
        self.assertEqual(
            body,
            {"error": {"message": "gone", "type": "upstream_error", "param": None, "code": "upstream_error"}},
        )

    def test_type_as_code(self) -> None:
        """An upstream's error without a code has its type as the code."""
        self.assertEqual(errors.APIError(400, "m", "a_type").code, "a_type")

    def test_lone_surrogate(self) -> None:
        """A message with half of a surrogate pair still makes valid JSON."""
        error = errors.upstream_error("x\ud83d")
        self.assertEqual(json.loads(error.envelope())["error"]["message"], "x\ud83d")

    def test_redacted(self) -> None:
        """Every text of a redacted error is rewritten; the original and everything else stay as they are."""
        error = errors.APIError(
            429,
            "a key",
            "key_type",
            param="key",
            code="no_key",
            for_log="key",
            should_retry=False,
            retry_after=3,
        )
        redacted = error.redacted(lambda text: text.replace("key", "***"))
        self.assertEqual(
            vars(redacted),
            {
                "status": 429,
                "message": "a ***",
                "type": "***_type",
                "param": "***",
                "code": "no_***",
                "for_log": "***",
                "should_retry": False,
                "retry_after": 3,
            },
        )
        self.assertEqual((error.message, str(redacted)), ("a key", "a ***"))
        plain = errors.APIError(502, "m", "t", code=7).redacted(str.upper)
        self.assertEqual((plain.code, plain.param), (7, None))


class CodeTests(SynchronousTestCase):
    def test_constructors(self) -> None:
        """Every constructor gives the status and type of SPEC's table, and a code of its own."""
        for error, status, type, code in [
            (errors.upstream_error("m"), 502, "upstream_error", "upstream_error"),
            (errors.upstream_timeout("m"), 504, "upstream_timeout", "upstream_timeout"),
            (errors.upstream_unanswered(5), 504, "upstream_timeout", "upstream_timeout"),
            (errors.upstream_silent(5), 504, "upstream_timeout", "upstream_timeout"),
            (errors.handshake_unanswered("http://x", 5), 504, "upstream_timeout", "upstream_timeout"),
            (errors.handshake_unusable("http://x", "m"), 502, "upstream_error", "upstream_malformed"),
            (errors.compressed_data_cut(), 502, "upstream_error", "upstream_cut"),
            (errors.response_too_large(5), 502, "upstream_error", "response_too_large"),
            (errors.decoded_too_large(5), 502, "upstream_error", "decoded_too_large"),
            (errors.too_many_connections(5), 503, "server_error", "server_is_overloaded"),
            (errors.overloaded("http://x", 5, 5), 503, "server_error", "server_is_overloaded"),
            (errors.no_connection_free("http://x", 5, 5), 504, "upstream_timeout", "no_connection_free"),
            (errors.invalid_request("m"), 400, "invalid_request_error", "invalid_request_error"),
            (errors.invalid_target(), 400, "invalid_request_error", "invalid_target"),
            (errors.invalid_handshake("m"), 400, "invalid_request_error", "invalid_handshake"),
            (errors.not_http(), 400, "invalid_request_error", "invalid_http"),
            (errors.head_too_large(5), 431, "invalid_request_error", "request_head_too_large"),
            (errors.too_many_fields(5), 431, "invalid_request_error", "too_many_headers"),
            (errors.head_too_slow(5), 408, "invalid_request_error", "request_head_timeout"),
            (errors.body_too_slow(5), 408, "invalid_request_error", "request_body_timeout"),
            (errors.body_too_large(5), 413, "invalid_request_error", "request_too_large"),
            (errors.upload_stalled(5), 504, "upstream_timeout", "upload_stalled"),
            (errors.client_stalled(5), 502, "upstream_error", "client_stalled"),
            (errors.internal_error(), 500, "internal_error", "internal_error"),
        ]:
            self.assertEqual((error.status, error.type, error.code), (status, type, code))

    def test_status(self) -> None:
        """An upstream's error status stays and has its own type; any other one becomes a 502."""
        for status, expected, type in [
            (302, 502, "upstream_error"),
            (401, 401, "invalid_request_error"),
            (429, 429, "rate_limit_error"),
            (503, 503, "server_error"),
        ]:
            error = errors.status_error(status, "m")
            self.assertEqual((error.status, error.type, error.code), (expected, type, "upstream_status"))

    def test_only_too_large_forbids_a_retry(self) -> None:
        """Asking again for a response that is too large is useless, and the error names the setting."""
        error = errors.response_too_large(5)
        self.assertIs(error.should_retry, False)
        self.assertIn("maxResponseBytes", error.message)
        self.assertIsNone(errors.upstream_error("m").should_retry)

    def test_documentation(self) -> None:
        """The table in docs/errors.md has each code with its status, type and meaning, and no other."""
        rows = re.findall(
            r"^\| `(\w+)` \| (\d+) \| `(\w+)` \| (.*?) \| .+ \|$", DOCUMENT.read_text(), re.MULTILINE
        )
        self.assertEqual(rows, [(each.code, str(each.status), each.type, each.meaning) for each in ErrorCode])


class ChatStreamErrorTests(SynchronousTestCase):
    def status(self, error: object) -> int:
        return stream_errors.chat_stream_error(error).status

    def test_numeric_code_or_status(self) -> None:
        """A number or digit string from 400 to 599 is the status: code, then status, then the type counts."""
        for error, status in [
            ({"code": 429}, 429),
            ({"code": "503"}, 503),
            ({"status": 401}, 401),
            ({"status": "404"}, 404),
            ({"code": 400, "status": 500}, 400),
            ({"code": "rate_limit_exceeded", "status": 503}, 503),
            ({"code": 599, "type": "invalid_request_error"}, 599),
            ({"code": 399}, 502),
            ({"code": 600}, 502),
            ({"code": 1302}, 502),
            ({"code": True}, 502),
            ({"code": 10**400}, 502),
            ({"code": "٤٠٠"}, 502),
        ]:
            self.assertEqual(self.status(error), status, error)

    def test_named_code(self) -> None:
        """A code of the Responses table decides the status, and the type where none was given."""
        for code, status, type in [
            ("insufficient_quota", 429, "rate_limit_error"),
            ("rate_limit_exceeded", 429, "rate_limit_error"),
            ("usage_not_included", 429, "rate_limit_error"),
            ("server_is_overloaded", 503, "server_error"),
            ("slow_down", 503, "server_error"),
            ("server_error", 500, "server_error"),
            ("vector_store_timeout", 504, "server_error"),
        ]:
            error = stream_errors.chat_stream_error({"code": code, "message": "m"})
            self.assertEqual((error.status, error.type, error.code), (status, type, code))
            own = stream_errors.chat_stream_error({"code": code, "type": "invalid_request_error"})
            self.assertEqual((own.status, own.type), (status, "invalid_request_error"))

    def test_type(self) -> None:
        """The type decides where no code does, in any spelling that providers use."""
        for type, status in [
            ("invalid_request_error", 400),
            ("BadRequestError", 400),
            ("authentication_error", 401),
            ("permission_error", 403),
            ("permission_denied", 403),
            ("not_found_error", 404),
            ("rate_limit_error", 429),
            ("rate_limit_exceeded", 429),
            ("RateLimitError", 429),
            ("overloaded_error", 503),
            ("server_overloaded", 503),
            ("server_error", 500),
            ("api_error", 500),
            ("internal_server_error", 500),
            ("InternalServerError", 500),
            ("weird", 502),
        ]:
            error = stream_errors.chat_stream_error({"type": type, "code": "context_length_exceeded"})
            self.assertEqual((error.status, error.type), (status, type))

    def test_own_fields_survive(self) -> None:
        """Message, type, param and code are the upstream's own."""
        error = stream_errors.chat_stream_error({"message": "m", "type": "t", "param": "p", "code": 7})
        self.assertEqual((error.message, error.type, error.param, error.code), ("m", "t", "p", 7))

    def test_string(self) -> None:
        """An error that is a string becomes the message of a 502."""
        error = stream_errors.chat_stream_error("out of memory")
        self.assertEqual((error.status, error.message, error.type), (502, "out of memory", "upstream_error"))

    def test_no_message(self) -> None:
        """Without a message a sentence names the type and the code."""
        self.assertIn("code c", stream_errors.chat_stream_error({"code": "c"}).message)
        self.assertIn("no message", stream_errors.chat_stream_error(None).message)

    def test_wrapped(self) -> None:
        """An envelope inside an envelope is opened; an object in place of the message becomes its JSON."""
        self.assertEqual(self.status({"error": {"error": {"code": 429, "message": "m"}}}), 429)
        self.assertEqual(stream_errors.chat_stream_error({"message": {"a": 1}}).message, '{"a": 1}')

    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(JSON)
    def test_never_raises(self, error: Any) -> None:
        """Whatever the upstream sends, there is an error with a valid envelope."""
        for made in [
            stream_errors.chat_stream_error(error),
            stream_errors.response_error(error, event="error"),
            stream_errors.response_error(error, event="failed"),
        ]:
            if made is not None:
                body = json.loads(made.envelope())["error"]
                self.assertEqual(list(body), ["message", "type", "param", "code"])
                self.assertTrue(400 <= made.status <= 599 and made.message and made.type)


class ResponseErrorTests(SynchronousTestCase):
    def test_codes(self) -> None:
        """The code decides the status; one that is not in the table means 400."""
        for code, status, type in [
            ("insufficient_quota", 429, "rate_limit_error"),
            ("rate_limit_exceeded", 429, "rate_limit_error"),
            ("usage_not_included", 429, "rate_limit_error"),
            ("server_is_overloaded", 503, "server_error"),
            ("slow_down", 503, "server_error"),
            ("server_error", 500, "server_error"),
            ("vector_store_timeout", 504, "server_error"),
            ("invalid_prompt", 400, "invalid_request_error"),
        ]:
            failed = stream_errors.response_error({"code": code, "message": "m"}, event="failed")
            flat = stream_errors.response_error(
                {"type": "error", "code": code, "message": "m"}, event="error"
            )
            nested = stream_errors.response_error(
                {"type": "error", "error": {"code": code, "message": "m"}}, event="error"
            )
            for error in (failed, flat, nested):
                assert error is not None
                self.assertEqual((error.status, error.type, error.message), (status, type, "m"))
                self.assertEqual(error.code, code)

    def test_no_code(self) -> None:
        """Without a code a failed Response is passed on as a 200, and an error event becomes a 502."""
        for fields in ({"message": "m"}, {"code": None}, {"code": ""}):
            self.assertIsNone(stream_errors.response_error(fields, event="failed"))
            error = stream_errors.response_error(fields, event="error")
            assert error is not None
            self.assertEqual((error.status, error.type), (502, "upstream_error"))
        self.assertIsNone(stream_errors.response_error(None, event="failed"))

    def test_type_inside_wins(self) -> None:
        """The error object's own type wins over the mapped one; that of the event never counts."""
        nested = {"type": "error", "error": {"type": "tokens", "code": "server_error", "param": "p"}}
        error = stream_errors.response_error(nested, event="error")
        assert error is not None
        self.assertEqual((error.status, error.type, error.param), (500, "tokens", "p"))
        flat = stream_errors.response_error({"type": "error", "message": "m"}, event="error")
        assert flat is not None
        self.assertEqual((flat.type, flat.code), ("upstream_error", "upstream_error"))
