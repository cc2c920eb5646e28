"""Tests against smuggling: ambiguous messages are rejected, or sent on with one meaning.

h11 parses both sides. Each client ends with two plain requests, so that one too many or too few is noticed.
"""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.upstream.pool import UpstreamPool
from tests.support.loopback import LoopbackTestCase, reactor
from tests.support.memory_proxy import MemoryProxy
from tests.support.properties import examples
from tests.support.strict import Got, Response, StrictServer, read_responses
from tests.support.wire import Stream, read_request, read_response, respond, send_request

#: Placeholders for the body, its length, and that in hexadecimal digits; a request that must stay hidden.
_BODY, _LENGTH, _SIZE = b"<body>", b"<n>", b"<x>"
HIDDEN = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
SECOND = b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
CHUNKED = b"<x>\r\n<body>\r\n0\r\n\r\n"

PLAIN_BODY = b"abcde"
CHAT_BODY = b'{"model": "m", "messages": []}'
CHAT_LINE = b"POST /v1/chat/completions HTTP/1.1\r\nContent-Type: application/json"


def request(*fields: bytes, line: bytes = b"POST /v1/x HTTP/1.1", body: bytes = b"") -> bytes:
    """Return a request with these lines."""
    return b"\r\n".join([line, b"Host: x", *fields, b"", b""]) + body


def get(*fields: bytes) -> bytes:
    """Return a request without a body."""
    return request(*fields, line=b"GET /v1/x HTTP/1.1")


def filled(form: bytes, body: bytes) -> bytes:
    """Return the form with its body filled in."""
    for mark, text in ((_BODY, body), (_LENGTH, b"%d" % len(body)), (_SIZE, b"%x" % len(body))):
        form = form.replace(mark, text)
    return form


#: Framings of a body that are ambiguous, or that some servers read differently.
FAULTY_FRAMING = [
    *(
        request(fields, body=CHUNKED)
        for fields in (
            b"Transfer-Encoding : chunked",
            b"Transfer-Encoding: xchunked",
            b"Transfer-Encoding: chunked, identity",
            b"Transfer-Encoding: identity, chunked",
            b"Transfer-Encoding: chunked, chunked",
            b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding:\n chunked",
            b"Transfer-Encoding:\r\n chunked",
            b"Transfer-Encoding: chun\r\n ked",
            b"X: x\nTransfer-Encoding: chunked",
            b"X: x\rTransfer-Encoding: chunked",
            b"X: x\r\n Transfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: cow\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
            b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            b"Transfer-Encoding: identity",
            b"Transfer-Encoding: identity\r\nContent-Length: <n>",
            b"Transfer-Encoding:",
            b'Transfer-Encoding: "chunked"',
            b"Transfer-Encoding: chunked;q=1",
            b"Transfer-Encoding: chunked,",
            b"Transfer-Encoding: \x0bchunked",
            b"Transfer-Encoding: chunked\x00",
            b"Transfer-Encoding;: chunked",
            b"Transfer-Encoding\x00: chunked",
            b"Transfer-Encoding: chunked\r\nContent-Length: <n>",
            b"Content-Length: <n>\r\nTransfer-Encoding: chunked",
            b"Content-Length: 0\r\nTransfer-Encoding: chunked",
        )
    ),
    request(b"Content-Length: 6", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + HIDDEN),
    request(b"Transfer-Encoding: chunked", b"Content-Length: 4", body=b"23\r\n" + HIDDEN + b"\r\n0\r\n\r\n"),
    request(b"Transfer-Encoding: chunked", line=b"POST /v1/x HTTP/1.0", body=CHUNKED),
    *(
        request(b"Content-Length: " + value, body=_BODY)
        for value in (
            b"<n>, <n>",
            b"+<n>",
            b"0x<x>",
            b"-1",
            b"\xd9\xa1",
            b"1_0",
            b"<n>;",
            b"",
            b"<n> <n>",
            b"<n>.0",
            b"<n>\x00",
            b"<n>\x0b",
            b"9" * 19,
            b"9" * 5000,
            b"<n>\r\nContent-Length: <n>",
            b"<n>\r\nContent-Length: 0",
            b"<n>\r\ncontent-length: 1",
        )
    ),
    request(b"Content-Length : <n>", body=_BODY),
    request(b"Content-Length\t: <n>", body=_BODY),
    request(b"X: x\r\n Content-Length: <n>", body=_BODY),
    *(
        request(b"Transfer-Encoding: chunked", body=size + b"\r\n<body>\r\n0\r\n\r\n")
        for size in (
            b"<x> ",
            b" <x>",
            b"<x>\t",
            b"0x<x>",
            b"1_0",
            b"+<x>",
            b"-<x>",
            b"",
            b"<x>;a=b\nc",
            b"<x>;a\rb",
            b"<x>\n;a",
            b"<x> ;a=b",
            b"<x>;" + b"a" * 2000,
            b"0" * 2000 + b"<x>",
        )
    ),
    request(b"Transfer-Encoding: chunked", body=b"<x>\n<body>\n0\n\n"),
    request(b"Transfer-Encoding: chunked", body=b"<x>\r\n<body>X\r\n0\r\n\r\n"),
    request(b"Transfer-Encoding: chunked", body=b"<x>\r\n<body>0\r\n\r\n"),
    request(b"Transfer-Encoding: chunked", body=b"<x>\r\n<body>\r\n0\r\n" + HIDDEN),
    request(b"Transfer-Encoding: chunked", body=b"<x>\r\n<body>\r\n0\r\nX: y\n\n" + HIDDEN),
    request(b"Transfer-Encoding: chunked", body=b"<x>\r\n<body>\r\n0\r\n X: y\r\n\r\n"),
]

#: Framings of a body that are unusual but clear.
GOOD_FRAMING = [
    request(b"Transfer-Encoding: chunked", body=CHUNKED),
    request(b"Transfer-Encoding:\tchunked", body=CHUNKED),
    request(b"Transfer-Encoding:chunked", body=CHUNKED),
    request(b"transfer-encoding: CHUNKED", body=CHUNKED),
    request(b"Transfer-Encoding: chunked", body=b"000<x>\r\n<body>\r\n000\r\n\r\n"),
    request(b"Transfer-Encoding: chunked", body=b"<x>;a=b;c\r\n<body>\r\n0;d\r\n\r\n"),
    request(
        b"Transfer-Encoding: chunked", body=b"<x>\r\n<body>\r\n0\r\nContent-Length: 9\r\nHost: evil\r\n\r\n"
    ),
    request(b"Content-Length: <n> ", body=_BODY),
    request(b"Content-Length:<n>", body=_BODY),
    request(b"Content-Length: 00<n>", body=_BODY),
    *(
        request(field, framing, body=body)
        for field in (
            b"Connection: content-length",
            b"Connection: host, transfer-encoding, content-type",
            b"Connection: keep-alive\r\nKeep-Alive: timeout=5",
            b"Expect: 100-continue",
            b"Expect: 100-Continue, 200-ok",
            b"Upgrade: websocket\r\nConnection: upgrade",
            b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQ",
            b"TE: trailers, deflate",
            b"Content_Length: 0",
        )
        for framing, body in ((b"Content-Length: <n>", _BODY), (b"Transfer-Encoding: chunked", CHUNKED))
    ),
]

#: Heads that are ambiguous.
FAULTY_HEADS = [
    *(
        get(field)
        for field in (
            b" X: y",
            b"\tX: y",
            b"X: a\r\n b",
            b"X: a\r\n \r\n b",
            b"X : y",
            b": y",
            b"no colon",
            b"X\x00: y",
            b"X\x01: y",
            b"X\xe9: y",
            b"X(: y",
            b"\x0bX: y",
            b"X: \x00",
            b"X: \x01",
            b"X: \x7f",
            b"X: a\x0bb",
            b"X: a\x0cb",
            b"X: a\rb",
            b"X: a\nb",
            b"X: y\r\r\nY: z",
            b"X: y\n\n" + HIDDEN,
            b"Host: y",
            b"Upgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 35\r\n\r\n" + HIDDEN,
        )
    ),
    b"GET /v1/x HTTP/1.1\r\n Host: x\r\n\r\n",
    *(
        request(line=line)
        for line in (
            b"GET  /v1/x HTTP/1.1",
            b"GET /v1/x  HTTP/1.1",
            b"GET\t/v1/x\tHTTP/1.1",
            b"GET\x0b/v1/x HTTP/1.1",
            b"GET /v1/x y HTTP/1.1",
            b"GET /v1/x HTTP/1.1 ",
            b" GET /v1/x HTTP/1.1",
            b"GET /v1/x HTTP/1.2",
            b"GET /v1/x HTTP/1.10",
            b"GET /v1/x HTTP/01.1",
            b"GET /v1/x HTTP/2.0",
            b"GET /v1/x http/1.1",
            b"GET /v1/x",
            b"PRI * HTTP/2.0",
            b"G(T /v1/x HTTP/1.1",
            b"\r\n\r\nGET /v1/x HTTP/1.1",
            b"\nGET /v1/x HTTP/1.1",
            b"GET /v1/x HTTP/1.1\n",
            b"GET /v1/x HTTP/1.1\rX: y",
            b"GET /\xc3\xa9 HTTP/1.1",
            b"GET /a\x00 HTTP/1.1",
            b"GET /a\rb HTTP/1.1",
        )
    ),
    b"GET /v1/x HTTP/1.1\rHost: x\r\rGET /smuggled HTTP/1.1\rHost: x\r\r",
    b"GET /v1/x HTTP/1.1\nHost: x\n\nGET /smuggled HTTP/1.1\nHost: x\n\n",
]

#: Heads that are unusual but clear, each with the request that the upstream reads.
GOOD_HEADS = [
    (b"\r\n" + get(), "GET /v1/x"),
    (get(b"X: \xff\xfe"), "GET /v1/x"),
    (get(b"X:"), "GET /v1/x"),
    (get(b"Transfer_Encoding: chunked"), "GET /v1/x"),
    (request(line=b"get /v1/x HTTP/1.1"), "get /v1/x"),
    (request(line=b"HEAD /v1/x HTTP/1.1"), "HEAD /v1/x"),
    (request(line=b"GET http://evil.example/v1/x HTTP/1.1"), "GET /v1/x"),
    (request(line=b"GET http://x@evil.example:1?y HTTP/1.1"), "GET /?y"),
    (request(line=b"GET //evil.example/v1/x HTTP/1.1"), "GET //evil.example/v1/x"),
    (
        request(b"Content-Length: 35", line=b"GET /v1/x HTTP/1.1", body=HIDDEN),
        "GET /v1/x " + HIDDEN.decode().rstrip(),
    ),
    (
        request(b"Content-Length: 35", line=b"HEAD /v1/x HTTP/1.1", body=HIDDEN),
        "HEAD /v1/x " + HIDDEN.decode().rstrip(),
    ),
    (request(b"Content-Length: 35", body=HIDDEN), "POST /v1/x " + HIDDEN.decode().rstrip()),
    (
        request(b"Transfer-Encoding: chunked", body=b"23\r\n" + HIDDEN + b"\r\n0\r\n\r\n"),
        "POST /v1/x " + HIDDEN.decode().rstrip(),
    ),
]

#: Requests that get a 400 but need not end the connection, since it is clear where they end.
FAULTY_TARGETS = [
    request(line=line)
    for line in (
        b"GET * HTTP/1.1",
        b"CONNECT evil.example:1 HTTP/1.1",
        b"GET evil.example/v1/x HTTP/1.1",
        b"GET /\x80 HTTP/1.1",
        b"GET ftp://x/ HTTP/1.1",
    )
]


class SmugglingTestCase(SynchronousTestCase):
    """Tests that play a client's bytes to a proxy in memory."""

    def played(self, data: bytes, pieces: int = 0) -> MemoryProxy:
        """Return a proxy that was sent `data`, `pieces` bytes at a time."""
        proxy = MemoryProxy()
        for start in range(0, len(data), pieces or len(data)):
            proxy.send(data[start : start + (pieces or len(data))])
        return proxy

    def check_upstream(self, proxy: MemoryProxy) -> list[str]:
        """Return the requests that the upstream read, after checking that they are clear HTTP."""
        self.assertEqual(proxy.bugs, [])
        self.assertEqual(proxy.errors, [])
        for got in proxy.requests:
            self.check_head(got)
        return [str(got) for got in proxy.requests]

    def check_head(self, got: Got) -> None:
        """Check that a request has the upstream's name, at most one framing, and no hop-by-hop field."""
        names = [name for name, _ in got.headers]
        self.assertEqual([value for name, value in got.headers if name == "host"], ["upstream.example"])
        self.assertLessEqual(sum(name in ("content-length", "transfer-encoding") for name in names), 1, names)
        own = {"connection", "keep-alive", "te", "upgrade", "expect", "trailer"}
        self.assertEqual(own & set(names), set())

    def refused(self, data: bytes, pieces: int = 0) -> None:
        """Check that `data` gets a 400 which ends the connection, and that nothing goes upstream."""
        proxy = self.played(data + SECOND + LAST, pieces)
        self.assertEqual(self.check_upstream(proxy), [], data)
        self.assertTrue(proxy.wire.ended, data)
        answers = read_responses(proxy.answered, closed=True)
        self.assertEqual([(answer.status, answer.complete) for answer in answers], [(400, True)], data)

    def passed(self, data: bytes, expected: str, pieces: int = 0) -> list[Got]:
        """Check that `data` is one request, and that it and the two after it get their responses."""
        proxy = self.played(data + SECOND + LAST, pieces)
        self.assertEqual(self.check_upstream(proxy), [expected, "GET /second", "GET /last"], data)
        self.assertTrue(proxy.wire.ended, data)
        methods = tuple(got.method for got in proxy.requests)
        answers = read_responses(proxy.answered, closed=True, methods=methods)
        self.assertEqual([(answer.status, answer.complete) for answer in answers], [(200, True)] * 3, data)
        for got, answer in zip(proxy.requests, answers, strict=True):
            if got.wants_events:
                self.assertEqual(json.loads(answer.body)["choices"][0]["message"]["content"], got.target)
            elif got.method != "HEAD":
                self.assertEqual(answer.body.decode("latin-1"), str(got))
        return proxy.requests


class FramingTests(SmugglingTestCase):
    """Ends of request bodies."""

    def test_doubtful(self) -> None:
        """An ambiguous framing of a relayed request gets a 400."""
        for form in FAULTY_FRAMING:
            self.refused(filled(form, PLAIN_BODY))

    def test_doubtful_call(self) -> None:
        """An ambiguous framing of a call to convert gets a 400 as well."""
        for form in FAULTY_FRAMING:
            self.refused(filled(form, CHAT_BODY).replace(b"POST /v1/x HTTP/1.1", CHAT_LINE, 1))

    def test_doubtful_in_pieces(self) -> None:
        """The result does not depend on how the bytes are split."""
        for form in FAULTY_FRAMING:
            self.refused(filled(form, PLAIN_BODY), 1)

    def test_clear(self) -> None:
        """A clear framing is replaced by the proxy's own, and the body stays as it is."""
        for form in GOOD_FRAMING:
            self.passed(filled(form, PLAIN_BODY), "POST /v1/x abcde")

    def test_clear_call(self) -> None:
        """The same holds for a converted call."""
        for form in GOOD_FRAMING:
            data = filled(form, CHAT_BODY).replace(b"POST /v1/x HTTP/1.1", CHAT_LINE, 1)
            body = CHAT_BODY.decode().replace(": ", ":").replace(", ", ",")[:-1]
            body += ',"stream":true,"stream_options":{"include_usage":true}}'
            proxy = self.played(data + SECOND + LAST)
            got = [text.replace(": ", ":").replace(", ", ",") for text in self.check_upstream(proxy)]
            self.assertEqual(got, ["POST /v1/chat/completions " + body, "GET /second", "GET /last"], data)

    def test_clear_in_pieces(self) -> None:
        """The result does not depend on how the bytes are split."""
        for form in GOOD_FRAMING:
            self.passed(filled(form, PLAIN_BODY), "POST /v1/x abcde", 1)

    def test_endless_chunk(self) -> None:
        """Everything behind the size of a huge chunk belongs to that chunk."""
        proxy = self.played(request(b"Transfer-Encoding: chunked", body=b"f" * 20 + b"\r\n") + SECOND)
        self.assertEqual((self.check_upstream(proxy), proxy.answered), ([], b""))
        proxy.leave()
        self.assertEqual(self.check_upstream(proxy), [])


class HeadTests(SmugglingTestCase):
    """Heads of requests."""

    def test_doubtful(self) -> None:
        """An ambiguous head gets a 400."""
        for form in FAULTY_HEADS:
            self.refused(form)

    def test_doubtful_in_pieces(self) -> None:
        """The result does not depend on how the bytes are split."""
        for form in FAULTY_HEADS:
            self.refused(form, 1)

    def test_clear(self) -> None:
        """A clear head passes, in one piece or in many."""
        for form, expected in GOOD_HEADS:
            self.passed(form, expected)
            self.passed(form, expected, 1)

    def test_targets(self) -> None:
        """A target without a path gets a 400, and the bytes behind it are the next request."""
        for form in FAULTY_TARGETS:
            proxy = self.played(form + SECOND + LAST)
            self.assertEqual(self.check_upstream(proxy), ["GET /second", "GET /last"], form)
            answers = read_responses(proxy.answered, closed=True)
            self.assertEqual([answer.status for answer in answers], [400, 200, 200], form)

    def test_old(self) -> None:
        """An HTTP/1.0 request is the last on its connection."""
        proxy = self.played(request(line=b"GET /v1/x HTTP/1.0") + HIDDEN)
        self.assertEqual(self.check_upstream(proxy), ["GET /v1/x"])
        self.assertTrue(proxy.wire.ended)

    def test_refused_later(self) -> None:
        """An ambiguous request after a good one is rejected after the response to the good one."""
        for form in FAULTY_HEADS:
            if form.startswith((b"\r\n", b"\n")):
                continue
            proxy = self.played(SECOND + form + LAST)
            self.assertEqual(self.check_upstream(proxy), ["GET /second"], form)
            answers = read_responses(proxy.answered, closed=proxy.wire.ended)
            self.assertEqual([answer.status for answer in answers], [200, 400], form)


def answer(*fields: bytes, line: bytes = b"HTTP/1.1 200 OK", body: bytes = b"") -> bytes:
    """Return a response with these lines."""
    return b"\r\n".join([line, *fields, b"", b""]) + body


EVIL = answer(b"Content-Length: 4", body=b"evil")
CHUNKED_ANSWER = b"5\r\nabcde\r\n0\r\n\r\n"

#: Responses that are ambiguous.
FAULTY_ANSWERS = [
    *(
        answer(b"Content-Length: " + value, body=b"abcde")
        for value in (
            b"",
            b"-5",
            b"+5",
            b"0x5",
            b"5 5",
            b"5, 6",
            b"5,",
            b"5\r\nContent-Length: 6",
            b"5\r\n X: y",
            b"5\x00",
            b"\x0b5",
            b"9" * 19,
            b"9" * 5000,
        )
    ),
    *(
        answer(b"Transfer-Encoding: " + value, body=CHUNKED_ANSWER)
        for value in (
            b"",
            b"identity",
            b"gzip",
            b"gzip, chunked",
            b"chunked, chunked",
            b"\x0bchunked",
            b"chunked\r\nTransfer-Encoding: chunked",
            b"chunked\r\nTransfer-Encoding: gzip",
            b"identity\r\nTransfer-Encoding: chunked",
        )
    ),
    *(
        answer(field, b"Content-Length: 5", body=b"abcde")
        for field in (
            b"X: a\x00b",
            b"X: a\x0bb",
            b"X: a\rContent-Length: 4",
            b"X\x00: a",
            b"X : a",
            b": a",
            b" X: a",
            b"no colon",
            b"Transfer-Encoding : chunked",
        )
    ),
    *(
        answer(b"Content-Length: 5", line=line, body=b"abcde")
        for line in (
            b"HTTP/1.1 99 X",
            b"HTTP/1.1 000 X",
            b"HTTP/1.1 1000 X",
            b"HTTP/1.1 -200 X",
            b"HTTP/1.1 +200 X",
            b"HTTP/1.1 2_0 X",
            b"HTTP/1.1  200 X",
            b"HTTP/1.1\t200 X",
            b"HTTP/2.0 200 X",
            b"HTTP/0.9 200 X",
            b"HTTP/+1.1 200 X",
            b"http/1.1 200 X",
            b"FOO/1.1 200 X",
            b"ICY 200 OK",
            b"HTTP/1.1 200 O\rSet-Cookie: a=b",
            b"HTTP/1.1 200 O\x00K",
            b"HTTP/1.1 200 OK\r\r",
            b"\r\nHTTP/1.1 200 OK",
            b"HTTP/1.1 101 Switching Protocols",
        )
    ),
    b"HTTP/1.1 200 OK\rContent-Length: 5\r\rabcde\n",
    b"<html>evil</html>\n",
]

#: Responses that are clear, but whose sender may believe that more bytes belong to them.
ENDING_ANSWERS = [
    (answer(b"Content-Length: 5", body=b"abcde") + EVIL, b"abcde"),
    (answer(b"Transfer-Encoding: chunked", body=CHUNKED_ANSWER) + EVIL, b"abcde"),
    (answer(b"Transfer-Encoding: chunked", b"Content-Length: 3", body=CHUNKED_ANSWER), b"abcde"),
    (answer(b"Content-Length: 500", b"Transfer-Encoding: chunked", body=CHUNKED_ANSWER), b"abcde"),
    (
        answer(
            b"Transfer-Encoding: chunked",
            b"Connection: keep-alive",
            line=b"HTTP/1.0 200 OK",
            body=CHUNKED_ANSWER,
        ),
        b"abcde",
    ),
    (answer(b"Content-Length: 44", line=b"HTTP/1.1 204 No Content") + EVIL, b""),
    (answer(b"Content-Length: 44", line=b"HTTP/1.1 204 No Content"), b""),
    (answer(b"Transfer-Encoding: chunked", line=b"HTTP/1.1 204 No Content"), b""),
    (answer(line=b"HTTP/1.1 304 Not Modified") + EVIL, b""),
    (answer(b"Content-Length: 5", b"Connection: x, CLOSE", body=b"abcde"), b"abcde"),
]


class AnswerTests(SmugglingTestCase):
    """Bytes that an upstream hides in or after a response never answer another request."""

    def answers(self, first: bytes, method: bytes = b"GET") -> tuple[MemoryProxy, list[Response]]:
        """Return the responses for a client whose first request is answered with `first`."""
        proxy = MemoryProxy(first)
        proxy.send(get().replace(b"GET", method) + SECOND + LAST)
        self.assertEqual(proxy.bugs, [])
        self.assertTrue(proxy.wire.ended, first)
        self.assertNotIn(b"evil", proxy.answered)
        return proxy, read_responses(proxy.answered, closed=True, methods=(method.decode(),))

    def check_others(self, proxy: MemoryProxy, answers: list[Response]) -> None:
        """Check that the other requests got their responses over another connection."""
        self.assertEqual([answer.body for answer in answers[1:]], [b"GET /second", b"GET /last"])
        self.assertEqual(len(proxy.endpoint.links), 2)
        self.assertTrue(proxy.endpoint.links[0].wire.ended)

    def test_doubtful(self) -> None:
        """An ambiguous response makes a 502."""
        for first in FAULTY_ANSWERS:
            proxy, answers = self.answers(first)
            self.assertEqual(answers[0].status, 502, first)
            self.assertIn(b"invalid HTTP response", answers[0].body, first)
            self.check_others(proxy, answers)

    def test_doubtful_without_a_body(self) -> None:
        """An ambiguous length makes a 502 even where there is no body."""
        for method, line in ((b"HEAD", b"HTTP/1.1 200 OK"), (b"GET", b"HTTP/1.1 304 Not Modified")):
            for length in (b"x", b"-1", b"5, 6", b"5\r\nContent-Length: 6"):
                proxy, answers = self.answers(answer(b"Content-Length: " + length, line=line), method)
                self.assertEqual(answers[0].status, 502, length)
                self.check_others(proxy, answers)

    def test_not_reused(self) -> None:
        """A response that more may follow is relayed, and its connection is not reused."""
        for first, body in ENDING_ANSWERS:
            proxy, answers = self.answers(first)
            self.assertEqual((answers[0].body, answers[0].complete), (body, True), first)
            self.check_others(proxy, answers)
        proxy, answers = self.answers(answer(b"Content-Length: 44") + EVIL, b"HEAD")
        self.assertEqual(answers[0].status, 200)
        self.check_others(proxy, answers)

    def test_trailers(self) -> None:
        """A response whose trailers are another response is broken off, and its connection is not reused."""
        first = answer(b"Transfer-Encoding: chunked", body=b"5\r\nabcde\r\n0\r\n" + EVIL)
        proxy = MemoryProxy(first)
        proxy.send(get() + SECOND)
        [broken] = read_responses(proxy.answered, closed=True)
        self.assertEqual((broken.body, broken.complete), (b"abcde", False))
        self.assertEqual((len(proxy.endpoint.links), proxy.endpoint.links[0].wire.ended), (1, True))
        self.assertEqual(proxy.bugs, [])

    def test_reused(self) -> None:
        """After a clear response, however unusual, the connection is reused."""
        for first in (
            answer(b"Content-Length: 5, 5", body=b"abcde"),
            answer(b"Content-Length: 5\r\nContent-Length: 05", body=b"abcde"),
            answer(b"X: y\r\n z", b"Content-Length: 5", line=b"HTTP/1.1 999 \xe9", body=b"abcde"),
            answer(b"transfer-encoding:CHUNKED", line=b"HTTP/1.1 200", body=b"5;a=b\r\nabcde\r\n0\r\n\r\n"),
            b"HTTP/1.1 200 OK\nContent-Length: 5\n\nabcde",
            answer(line=b"HTTP/1.1 103 Early Hints") + answer(b"Content-Length: 5", body=b"abcde"),
        ):
            proxy, answers = self.answers(first)
            self.assertEqual(answers[0].body, b"abcde", first)
            self.assertEqual(len(proxy.endpoint.links), 1, first)


class RawTests(LoopbackTestCase):
    """Smuggling over real sockets."""

    async def play(self, port: int, data: bytes) -> bytes:
        """Return everything that is sent in response to `data`."""
        client = await self.client(port)
        client.write(data)
        return await client.rest()

    async def test_forms(self) -> None:
        """Nothing ambiguous goes upstream, and clear requests are answered in order."""
        servers: list[StrictServer] = []

        async def script(stream: Stream) -> None:
            server = StrictServer()
            servers.append(server)
            while not server.closing:
                stream.write(server.feed(await stream.some()))
            stream.close()

        upstream = await self.upstream(script)
        port = await self.proxy(upstream.url)
        for form in [*FAULTY_FRAMING, *FAULTY_HEADS]:
            data = filled(form, PLAIN_BODY)
            answers = read_responses(await self.play(port, data + SECOND + LAST), closed=True)
            self.assertEqual([answer.status for answer in answers], [400], data)
            self.assertEqual([str(got) for server in servers for got in server.requests], [], data)
        for form in GOOD_FRAMING:
            data = filled(form, PLAIN_BODY)
            answers = read_responses(await self.play(port, data + SECOND + LAST), closed=True)
            self.assertEqual(
                [answer.body for answer in answers], [b"POST /v1/x abcde", b"GET /second", b"GET /last"], data
            )
        self.assertEqual([server.error for server in servers if server.error], [])


class PooledTests(LoopbackTestCase):
    """Idle upstream connections."""

    async def test_unread(self) -> None:
        """A connection with unread bytes is not reused: they would be the next response."""

        async def script(stream: Stream) -> None:
            while True:
                got = await read_request(stream)
                respond(stream, 200, got.target.encode())

        upstream = await self.upstream(script)
        pool = UpstreamPool(reactor)
        self.addCleanup(pool.drop_idle)
        client = await self.client(await self.proxy(upstream.url, pool=pool))
        send_request(client, "GET", "/first")
        self.assertEqual((await read_response(client)).body, b"/first")
        [ours] = pool.idle(("http", "127.0.0.1", upstream.port))
        self.assertTrue(ours.usable)
        upstream.connections[0].transport.getHandle().send(EVIL)  # before the reactor can look
        self.assertFalse(ours.usable)
        send_request(client, "GET", "/second")
        self.assertEqual((await read_response(client)).body, b"/second")


_VALID = [
    b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 35\r\nX-A: b\r\n\r\n" + HIDDEN,
    b"POST /v1/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n\r\n"
    b"23\r\n" + HIDDEN + b"\r\n0\r\n\r\n",
    b"GET /v1/x HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
]
_INSERTS = [
    b"\r",
    b"\n",
    b"\r\n",
    b"\x00",
    b"\t",
    b" ",
    b"\r\n ",
    b":",
    b",",
    b"\x0b",
    b"0",
    b";",
    b"1",
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Return a strategy for valid requests that were tampered with."""
    data = draw(st.sampled_from(_VALID))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 4)):
            case 0 | 1:
                data = data[:place] + draw(st.sampled_from(_INSERTS)) + data[place:]
            case 2:
                lines = data.split(b"\r\n")
                line = draw(st.integers(0, len(lines) - 1))
                data = b"\r\n".join([*lines[:line], lines[line], *lines[line:]])
            case 3:
                data = data[:place] + data[place : place + 8].swapcase() + data[place + 8 :]
            case 4:
                data = data[:place] + data[place + 1 :]
    return data


class MutationTests(SmugglingTestCase):
    """Requests that were tampered with."""

    def check(self, data: bytes, pieces: int) -> None:
        """Check that the upstream reads clear HTTP, and only requests that a strict parser finds."""
        proxy = self.played(data + SECOND + LAST, pieces)
        if not proxy.wire.ended:
            proxy.leave()
        sent = self.check_upstream(proxy)
        methods = tuple(got.method for got in proxy.requests)
        read = read_responses(proxy.answered, closed=True, methods=methods)
        answers = [answer for answer in read if answer.complete]
        self.assertLessEqual(sum(answer.status == 200 for answer in answers), len(sent))
        strict = StrictServer()
        strict.feed(data.removeprefix(b"\r\n") + SECOND + LAST)
        if strict.error is not None and ("Host" in strict.error or "no request line" in strict.error):
            return  # the proxy does not need a host, and takes a blank line between requests
        allowed = [str(got) for got in strict.requests if got.target.startswith("/")]  # others get a 400
        self.assertEqual(sent, allowed[: len(sent)], data)

    @examples(150)
    @example(_VALID[0], 7)
    @given(mutated(), st.integers(1, 64))
    def test_one_meaning(self, data: bytes, pieces: int) -> None:
        """A tampered request is rejected, or has the one meaning that a strict parser finds."""
        self.check(data, pieces)
