"""Tests of errors inside streams: where they are found, their statuses, and what of them travels."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.aggregate.stream_errors import (
    chat_stream_error,
    error_in,
    find_error,
    is_ping,
    names_error,
    response_error,
)
from tests.support.properties import examples

KEYS = st.sampled_from(
    [
        "error",
        "errors",
        "message",
        "detail",
        "details",
        "reason",
        "type",
        "code",
        "status",
        "status_code",
        "http_status_code",
        "param",
        "base_resp",
        "status_msg",
        "choices",
        "object",
        "x",
    ]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([429, 10**400, "503", "error", "rate_limit", "\ud83d"])
    | st.floats()
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)


def body(error: Any) -> Any:
    """Return the error object that the client gets."""
    return json.loads(error.envelope())["error"]


class StatusTests(SynchronousTestCase):
    """The one rule for statuses."""

    def status(self, error: object) -> int:
        return chat_stream_error(error).status

    def test_numbers(self) -> None:
        """A number or digit string from 400 to 599 is the status, under any of its names."""
        for error, status in [
            ({"code": 429}, 429),
            ({"code": 429.0}, 429),
            ({"code": "503"}, 503),
            ({"code": "503 Service Unavailable"}, 503),
            ({"status": 401}, 401),
            ({"status": "404"}, 404),
            ({"status_code": 400}, 400),
            ({"http_status_code": "429"}, 429),
            ({"statusCode": 413}, 413),
            ({"code": 400, "status": 500}, 400),
            ({"code": "rate_limit_exceeded", "status": 503}, 503),
            ({"code": 599, "type": "invalid_request_error"}, 599),
            ({"code": 399}, 502),
            ({"code": 600}, 502),
            ({"code": 1302}, 502),
            ({"code": "4000"}, 502),
            ({"code": True}, 502),
            ({"code": 10**400}, 502),
            ({"code": float("nan")}, 502),
            ({"code": "٤٠٠"}, 502),
        ]:
            self.assertEqual(self.status(error), status, error)

    def test_beside(self) -> None:
        """What the error object does not tell, the object around it may; the error object comes first."""
        for error, status in [
            ({"error": {"message": "m"}, "status_code": 429}, 429),
            ({"error": {"message": "m", "code": 400}, "status_code": 500}, 400),
            ({"error": "slow down", "code": 429}, 429),
            ({"error": "slow down", "code": "429"}, 429),
            ({"error": "m", "code": "insufficient_quota"}, 429),
            ({"error": "m", "type": "overloaded_error"}, 503),
            ({"error": "m", "error_type": "overloaded"}, 503),
            ({"error": {"error": {"message": "m"}, "http_status_code": 404}}, 404),
            ({"error": "rate_limit_exceeded"}, 429),
            ({"error": "Too Many Requests", "message": "m", "statusCode": 429}, 429),
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
            error = chat_stream_error({"code": code, "message": "m"})
            self.assertEqual((error.status, error.type, error.code), (status, type, code))
            own = chat_stream_error({"code": code, "type": "invalid_request_error"})
            self.assertEqual((own.status, own.type), (status, "invalid_request_error"))

    def test_words(self) -> None:
        """The words of type and code decide where no number does, in any spelling that providers use."""
        for name, status in [
            ("invalid_request_error", 400),
            ("BadRequestError", 400),
            ("exceed_context_size_error", 400),
            ("context_length_exceeded", 400),
            ("CONTEXT_LENGTH_EXCEEDED", 400),
            ("authentication_error", 401),
            ("invalid_api_key", 401),
            ("permission_error", 403),
            ("PermissionDenied", 403),
            ("not_found_error", 404),
            ("model-not-found", 404),
            ("rate_limit_error", 429),
            ("RateLimitError", 429),
            ("too_many_requests", 429),
            ("Throttling.RateQuota", 429),
            ("usage_limit_reached", 429),
            ("overloaded_error", 503),
            ("server_overloaded", 503),
            ("ServiceUnavailable", 503),
            ("timeout_error", 504),
            ("server_error", 500),
            ("api_error", 500),
            ("internal_server_error", 500),
            ("InternalServerError", 500),
            ("upstream_error", 502),
            ("weird", 502),
        ]:
            self.assertEqual(self.status({"type": name, "message": "m"}), status, name)
            self.assertEqual(self.status({"code": name, "message": "m"}), status, name)
            self.assertEqual(chat_stream_error({"type": name}).type, name)

    def test_telling_word(self) -> None:
        """Of several words the one counts that says most, wherever it is."""
        for type, code, status in [
            ("invalid_request_error", "model_not_found", 404),
            ("server_error", "context_length_exceeded", 400),
            ("overloaded_error", "context_length_exceeded", 503),
            ("api_error", "rate_limited", 429),
            ("upstream_error", "upstream_timeout", 504),
        ]:
            self.assertEqual(self.status({"type": type, "code": code, "message": "m"}), status)

    def test_sentences(self) -> None:
        """Messages do not decide: they may speak of anything."""
        for error in ("the server is overloaded", {"message": "rate limit"}, {"error": "internal failure"}):
            self.assertEqual(self.status(error), 502)

    def test_type_of_status(self) -> None:
        """An error without a type has that of its status."""
        for code, type in [(429, "rate_limit_error"), (404, "invalid_request_error"), (503, "server_error")]:
            self.assertEqual(chat_stream_error({"code": code}).type, type)
        self.assertEqual(chat_stream_error("m").type, "upstream_error")


class FieldTests(SynchronousTestCase):
    """What of an error travels."""

    def test_own_fields(self) -> None:
        """Message, type, param and code are the upstream's own."""
        error = chat_stream_error({"message": "m", "type": "t", "param": "p", "code": 7})
        self.assertEqual((error.message, error.type, error.param, error.code), ("m", "t", "p", 7))

    def test_further_fields(self) -> None:
        """Every other field of the error object follows the four; those of its envelope do not."""
        fields = {"metadata": {"raw": "x", "n": [1, None]}, "failed_generation": "<f>", "status_code": 400}
        error = chat_stream_error({"error": {"message": "m", **fields}, "user_id": "u", "id": "c"})
        self.assertEqual(
            body(error),
            {"message": "m", "type": "invalid_request_error", "param": None, "code": error.code, **fields},
        )
        flat = {"code": 500, "reason": "INTERNAL", "message": "m", "metadata": {}, "object": "error"}
        self.assertEqual(
            body(chat_stream_error(flat)),
            {
                "message": "m",
                "type": "server_error",
                "param": None,
                "code": 500,
                "reason": "INTERNAL",
                "metadata": {},
            },
        )

    def test_inexpressible_fields(self) -> None:
        """A field that no JSON can express is dropped, or null; the others stay."""
        deep: list[Any] = []
        for _ in range(500):
            deep = [deep]
        error = chat_stream_error(
            {"message": "m", "deep": deep, "long": 10**5000, "nan": float("nan"), "x": "\ud83d"}
        )
        found = body(error)
        self.assertEqual((found["nan"], found["x"]), (None, "\ud83d"))
        self.assertNotIn("deep", found)
        self.assertNotIn("long", found)

    def test_too_many_values(self) -> None:
        """Fields are passed on up to ten thousand values; a long text is one value."""
        for count, kept in ((9_999, True), (10_000, False)):
            found = body(chat_stream_error({"message": "m", "metadata": [0] * count}))
            self.assertEqual("metadata" in found, kept)
        many: dict[str, Any] = {str(number): 0 for number in range(20_000)}
        self.assertEqual(len(body(chat_stream_error({"message": "m", **many}))), 10_004)
        text = "x" * 100_000
        self.assertEqual(body(chat_stream_error({"message": "m", "failed": text}))["failed"], text)
        self.assertIn("no message", chat_stream_error({"message": [0] * 10_000}).message)

    def test_redacted(self) -> None:
        """Redacting reaches the texts in further fields, at any depth, and keys."""
        error = chat_stream_error({"message": "key", "metadata": {"key": ["a key", 1]}, "code": 429})
        found = body(error.redacted(lambda text: text.replace("key", "***")))
        self.assertEqual((found["message"], found["metadata"]), ("***", {"***": ["a ***", 1]}))
        self.assertEqual((body(error)["message"], error.redacted(str).status), ("key", 429))

    def test_messages(self) -> None:
        """The message is that of the error, under any of its names, else that beside it."""
        for error, message in [
            ("out of memory", "out of memory"),
            ({"error": "boom", "code": 5}, "boom"),
            ({"detail": "d"}, "d"),
            ({"details": "d"}, "d"),
            ({"reason": "r"}, "r"),
            ({"error": {"code": 5}, "message": "beside"}, "beside"),
            ({"error": {"message": ""}, "detail": "beside"}, "beside"),
            ({"error": "Bad Request", "message": "name the model", "statusCode": 400}, "name the model"),
            ({"base_resp": {"status_code": 1008, "status_msg": "no balance"}}, "no balance"),
            ({"errors": [{"message": "first"}, {"message": "second"}]}, "first"),
            ({"detail": {"message": "inner"}}, "inner"),
            ({"message": {"a": 1}}, '{"a": 1}'),
            ({"detail": [{"loc": ["body"]}]}, '[{"loc": ["body"]}]'),
            ([{"error": {"message": "in an array"}}], "in an array"),
        ]:
            self.assertEqual(chat_stream_error(error).message, message)

    def test_no_message(self) -> None:
        """Without a message a sentence names the type and the code."""
        self.assertIn("code c", chat_stream_error({"code": "c"}).message)
        nothings: list[Any] = [None, "", {}, [], True]
        for nothing in nothings:
            self.assertIn("no message", chat_stream_error(nothing).message)

    def test_code(self) -> None:
        """The code is the error's, else the one beside it, else its type."""
        self.assertEqual(chat_stream_error({"error": "boom", "code": 1302}).code, 1302)
        self.assertEqual(chat_stream_error({"error": {"message": "m", "code": "a"}, "code": "b"}).code, "a")
        self.assertEqual(chat_stream_error({"type": "t", "code": 2**64}).code, "t")

    @examples(300)
    @given(JSON)
    def test_never_raises(self, error: Any) -> None:
        """Whatever the upstream sends, there is an error with a valid envelope, or none."""
        for made in [
            chat_stream_error(error),
            error_in(error),
            response_error(error, event="error"),
            response_error(error, event="failed"),
        ]:
            if made is not None:
                found = body(made)
                self.assertEqual(list(found)[:4], ["message", "type", "param", "code"])
                self.assertTrue(400 <= made.status <= 599 and made.message and made.type)
                self.assertEqual(body(made.redacted(str)), found)
        if isinstance(error, dict):
            is_ping(error, "message")

    def test_never_raises_for_odd_types(self) -> None:
        """Values of the wrong type, where providers have words and numbers, are no words or numbers."""
        for odd in ([], {}, [1], {"a": 1}, True, 1.5, None):
            for key in ("type", "code", "status", "object", "error", "base_resp", "choices", "message"):
                value = {key: odd, "detail": "d"}
                chat_stream_error(value)
                error_in(value)
                is_ping(value, "message")


class PlaceTests(SynchronousTestCase):
    """Where errors are found."""

    def test_in_place_of_a_chunk(self) -> None:
        """An object without choices that reports something is an error, and so is an array of one."""
        for value, status in [
            ({"error": {"code": 429}}, 429),
            ({"error": {}}, 502),
            ({"error": "boom"}, 502),
            ({"code": 500, "reason": "INTERNAL", "message": "m"}, 500),
            ({"detail": "Not Found"}, 502),
            ({"details": ["x"]}, 502),
            ({"reason": "r", "status": 503}, 503),
            ({"status_code": 503}, 503),
            ({"object": "error", "code": 400}, 400),
            ({"type": "error", "code": "slow_down"}, 503),
            ({"base_resp": {"status_code": 1004, "status_msg": "login fail"}, "choices": None}, 502),
            ({"base_resp": {"status_code": 1004}, "choices": []}, 502),
            ({"code": 1113, "msg": "m", "success": False}, 502),
            ({"errors": [{"message": "m", "code": 401}]}, 401),
            ([{"error": {"code": 429}}], 429),
        ]:
            error = error_in(value)
            assert error is not None, value
            self.assertEqual(error.status, status, value)

    def test_groq(self) -> None:
        """Groq says in ``x_groq`` why a stream was stopped early; the chunk may have choices all the same."""
        chunk = {"choices": [{"index": 0, "delta": {}, "finish_reason": None}]}
        for error, message in (("over capacity", "over capacity"), ({"message": "m"}, "m")):
            self.assertEqual(
                body(error_in({**chunk, "x_groq": {"id": "r", "error": error}}))["message"], message
            )
        for groq in (None, "r", {"id": "r"}, {"id": "r", "error": None}, {"error": ""}):
            self.assertIsNone(error_in({**chunk, "x_groq": groq}))

    def test_no_error(self) -> None:
        """Chunks, pings, empty errors and news of success are none."""
        values: list[Any] = [
            None,
            5,
            "x",
            [],
            [{}, {}],
            {},
            {"error": None},
            {"error": ""},
            {"error": False},
            {"choices": [{"delta": {}}], "message": "m"},
            {"choices": [], "message": "m"},
            {"choices": [{"delta": {}}], "base_resp": {"status_code": 0}},
            {"base_resp": {"status_code": 0, "status_msg": "success"}, "usage": {"total_tokens": 1}},
            {"object": "chat.completion.chunk", "details": "d"},
            {"usage": {"total_tokens": 1}, "message": "m"},
            {"type": "ping", "message": "still here"},
            {"code": 200, "message": "success"},
            {"message": ""},
            {"message": {"role": "assistant", "content": "Ollama's own"}},
        ]
        for value in values:
            self.assertIsNone(error_in(value), value)

    def test_pings(self) -> None:
        """An object with none of a chunk's keys is a ping; one that reports an error is not."""
        for ping in ({"type": "ping"}, {}, {"heartbeat": 1}, {"type": "Ping", "id": "x", "created": 1}):
            self.assertTrue(is_ping(ping, "message"), ping)
        chunks: list[Any] = [{"id": "x"}, {"usage": {}}, {"choices": []}, {"message": "m"}, {"code": 500}]
        for chunk in chunks:
            self.assertFalse(is_ping(chunk, "message"), chunk)
        self.assertTrue(is_ping({"id": "x", "message": "working"}, "status"))
        self.assertFalse(is_ping({"message": "boom", "code": 500}, "status"))

    def test_names(self) -> None:
        """Events are errors by their names."""
        for name in ("error", "stream_error", "Error", "exception"):
            self.assertTrue(names_error(name))
        self.assertFalse(names_error("message"))

    def test_stray_lines(self) -> None:
        """Lines that are no fields may hold an error: labelled, bare, in an array, over several lines."""
        for stray, found in [
            (b'error: {"code":400}', b'{"code":400}'),
            (b'error:{"code":400}', b'{"code":400}'),
            (b'Error: {\n"code": 400\n}', b'{\n"code": 400\n}'),
            (b"error: out of memory", b"out of memory"),
            (b'{"error": {"message": "m"}}', b'{"error": {"message": "m"}}'),
            (b'{\n "error": "m"\n}\n', b'{\n "error": "m"\n}'),
            (b'[{"error": {"code": 500}}]', b'[{"error": {"code": 500}}]'),
            (b'{"detail": "d"}', b'{"detail": "d"}'),
            (b'a warning\nerror: {"code": 1}\nmore', b'{"code": 1}'),
            (b'a warning\n{"error": "m"}', b'{"error": "m"}'),
        ]:
            self.assertEqual(find_error(stray), found, stray)
        for stray in (
            b"",
            b"rubbish",
            b"[1]",
            b'{"a":1}',
            b'{"error":null}',
            b"error:",
            b"error: null",
            b"{",
        ):
            self.assertIsNone(find_error(stray), stray)


class ResponseErrorTests(SynchronousTestCase):
    """The rule's end in Responses streams."""

    def test_codes(self) -> None:
        """The code decides the status; one that nobody knows means 400."""
        for code, status, type in [
            ("insufficient_quota", 429, "rate_limit_error"),
            ("rate_limit_exceeded", 429, "rate_limit_error"),
            ("usage_not_included", 429, "rate_limit_error"),
            ("server_is_overloaded", 503, "server_error"),
            ("slow_down", 503, "server_error"),
            ("server_error", 500, "server_error"),
            ("vector_store_timeout", 504, "server_error"),
            ("invalid_prompt", 400, "invalid_request_error"),
            ("weird", 400, "invalid_request_error"),
            (1302, 400, "invalid_request_error"),
            (503, 503, "server_error"),
            ("429", 429, "rate_limit_error"),
        ]:
            failed = response_error({"code": code, "message": "m"}, event="failed")
            flat = response_error({"type": "error", "code": code, "message": "m"}, event="error")
            nested = response_error({"type": "error", "error": {"code": code, "message": "m"}}, event="error")
            for error in (failed, flat, nested):
                assert error is not None
                self.assertEqual((error.status, error.type, error.message), (status, type, "m"))
                self.assertEqual(error.code, code)

    def test_type_alone(self) -> None:
        """Without a code a telling type decides, in both events."""
        for type, status in [
            ("rate_limit_error", 429),
            ("overloaded_error", 503),
            ("usage_limit_reached", 429),
        ]:
            failed = response_error({"type": type, "message": "m"}, event="failed")
            nested = response_error({"type": "error", "error": {"type": type, "message": "m"}}, event="error")
            for error in (failed, nested):
                assert error is not None
                self.assertEqual((error.status, error.type), (status, type))

    def test_nothing_tells(self) -> None:
        """Without anything that tells, a failed Response is a 200, and an error event a 502."""
        for fields in ({"message": "m"}, {"code": None}, {"code": ""}, {"type": "weird", "message": "m"}):
            self.assertIsNone(response_error(fields, event="failed"))
            error = response_error(fields, event="error")
            assert error is not None
            self.assertEqual(error.status, 502)
        nones: list[Any] = [None, "boom", []]
        for none in nones:
            self.assertIsNone(response_error(none, event="failed"))

    def test_status_beside(self) -> None:
        """A status beside the error counts, in the event or around the failed Response."""
        for key in ("status", "status_code", "http_status_code"):
            nested = {"type": "error", "error": {"message": "m", "plan_type": "plus"}, key: 429}
            error = response_error(nested, event="error")
            assert error is not None
            self.assertEqual((error.status, body(error)["plan_type"]), (429, "plus"))
            failed = response_error({"message": "m"}, event="failed", beside={key: 503})
            assert failed is not None
            self.assertEqual(failed.status, 503)

    def test_type_inside_wins(self) -> None:
        """The error object's own type wins over the mapped one; that of the event never counts."""
        nested = {"type": "error", "error": {"type": "tokens", "code": "server_error", "param": "p"}}
        error = response_error(nested, event="error")
        assert error is not None
        self.assertEqual((error.status, error.type, error.param), (500, "tokens", "p"))
        flat = response_error({"type": "error", "message": "m", "sequence_number": 3}, event="error")
        assert flat is not None
        self.assertEqual((flat.type, flat.code), ("upstream_error", "upstream_error"))
        self.assertNotIn("sequence_number", body(flat))
