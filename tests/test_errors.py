"""The OpenAI envelope and the status tables."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy import errors
from stream_proxy.aggregate import stream_errors

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
        """The body is OpenAI's error object; code repeats type and param is null where none was given."""
        body = json.loads(errors.upstream_error("gone").envelope())
        self.assertEqual(
            body,
            {"error": {"message": "gone", "type": "upstream_error", "param": None, "code": "upstream_error"}},
        )

    def test_lone_surrogate(self) -> None:
        """A message with half of a surrogate pair still makes valid JSON."""
        error = errors.upstream_error("x\ud83d")
        self.assertEqual(json.loads(error.envelope())["error"]["message"], "x\ud83d")

    def test_constructors(self) -> None:
        """Every error of ours has the status and type of SPEC's table."""
        for error, status, type in [
            (errors.upstream_error("m"), 502, "upstream_error"),
            (errors.upstream_timeout("m"), 504, "upstream_timeout"),
            (errors.invalid_request("m"), 400, "invalid_request_error"),
            (errors.invalid_request("m", 413), 413, "invalid_request_error"),
            (errors.internal_error(), 500, "internal_error"),
            (errors.response_too_large(5), 502, "upstream_error"),
        ]:
            self.assertEqual((error.status, error.type), (status, type))

    def test_only_too_large_forbids_a_retry(self) -> None:
        """Asking again for an answer that is too large is useless, and the error says which setting it is."""
        error = errors.response_too_large(5)
        self.assertIs(error.should_retry, False)
        self.assertIn("maxResponseBytes", error.message)
        self.assertIsNone(errors.upstream_error("m").should_retry)


class ChatStreamErrorTests(SynchronousTestCase):
    def status(self, error: object) -> int:
        return stream_errors.chat_stream_error(error).status

    def test_numeric_code_or_status(self) -> None:
        """A number or digit string of 400 to 599 is the status, code before status, both before the type."""
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
        """A code of the Responses table has that table's status, before the type; its type is a stand-in."""
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
        """An error that is a string is the message of a 502."""
        error = stream_errors.chat_stream_error("out of memory")
        self.assertEqual((error.status, error.message, error.type), (502, "out of memory", "upstream_error"))

    def test_no_message(self) -> None:
        """Without a message there is a sentence that names what is known."""
        self.assertIn("code c", stream_errors.chat_stream_error({"code": "c"}).message)
        self.assertIn("no message", stream_errors.chat_stream_error(None).message)

    def test_wrapped(self) -> None:
        """An envelope inside an envelope is opened, an object as the message becomes its JSON."""
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
        """The code decides; one that is not in the table is a 400."""
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
        """Without a code a failed Response is an answer, an error event is a 502."""
        for fields in ({"message": "m"}, {"code": None}, {"code": ""}):
            self.assertIsNone(stream_errors.response_error(fields, event="failed"))
            error = stream_errors.response_error(fields, event="error")
            assert error is not None
            self.assertEqual((error.status, error.type), (502, "upstream_error"))
        self.assertIsNone(stream_errors.response_error(None, event="failed"))

    def test_type_inside_wins(self) -> None:
        """The error object's own type wins over the mapped one, the event's never counts."""
        nested = {"type": "error", "error": {"type": "tokens", "code": "server_error", "param": "p"}}
        error = stream_errors.response_error(nested, event="error")
        assert error is not None
        self.assertEqual((error.status, error.type, error.param), (500, "tokens", "p"))
        flat = stream_errors.response_error({"type": "error", "message": "m"}, event="error")
        assert flat is not None
        self.assertEqual((flat.type, flat.code), ("upstream_error", "upstream_error"))
