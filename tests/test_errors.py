"""Tests of the OpenAI envelope, and of the table of codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from stream_proxy import errors
from stream_proxy.error_codes import ErrorCode

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "errors.md"


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

    def test_too_large(self) -> None:
        """The error for a response that is too large names the setting."""
        self.assertIn("maxResponseBytes", errors.response_too_large(5).message)

    def test_should_retry(self) -> None:
        """SDKs are told not to repeat what would only fail again: what is wrong, or too large."""
        final = {each.code for each in ErrorCode if errors.proxy_error(each, "m").should_retry is False}
        sizes = {"response_too_large", "response_too_many_values", "event_too_large", "decoded_too_large"}
        self.assertEqual(final, sizes | {each.code for each in ErrorCode if each.status in (400, 413)})
        self.assertIsNone(errors.upstream_error("m").should_retry)

    def test_documentation(self) -> None:
        """The table in docs/errors.md has each code with its status, type and meaning, and no other."""
        rows = re.findall(
            r"^\| `(\w+)` \| (\d+) \| `(\w+)` \| (.*?) \| .+ \|$", DOCUMENT.read_text(), re.MULTILINE
        )
        self.assertEqual(rows, [(each.code, str(each.status), each.type, each.meaning) for each in ErrorCode])
