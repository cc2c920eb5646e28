"""Which call repeats which."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from stream_proxy.http.headers import RawHeader
from stream_proxy.waiting.identity import Identifier, Identity, says_retry

_FIELDS: list[RawHeader] = [
    (b"Host", b"x"),
    (b"Authorization", b"Bearer a"),
    (b"OpenAI-Organization", b"org"),
    (b"Content-Type", b"application/json"),
]


def identity(
    *more: RawHeader,
    rule: str = "main",
    target: bytes = b"/v1/chat/completions",
    fields: list[RawHeader] | None = None,
    body: tuple[bytes, ...] = (b"{}",),
) -> Identity:
    """Return the identity of a call with `more` fields than the usual ones."""
    identifier = Identifier(rule, b"POST", target, [*(_FIELDS if fields is None else fields), *more])
    for piece in body:
        identifier.update(piece)
    return identifier.identity()


def again(count: int) -> RawHeader:
    """Return the field by which SDKs count their attempts."""
    return b"x-stainless-retry-count", b"%d" % count


class IdentityTests(TestCase):
    """A retry is the same call if it says so, and nothing differs but what has to."""

    def test_retry(self) -> None:
        """A higher count repeats a lower or a missing one, and nothing else does."""
        lost = identity(again(0))
        self.assertTrue(identity(again(1)).repeats(lost))
        self.assertTrue(identity(again(1)).repeats(identity()))
        self.assertTrue(identity(again(2)).repeats(identity(again(1))))
        for other in (identity(), identity(again(0))):
            self.assertFalse(other.repeats(lost))
        self.assertFalse(identity(again(1)).repeats(identity(again(1))))

    def test_name(self) -> None:
        """A call that the client named is repeated by one of that name, whatever its count."""
        named = (b"Idempotency-Key", b"k1")
        self.assertTrue(identity(named).repeats(identity(named)))
        self.assertFalse(identity((b"Idempotency-Key", b"k2")).repeats(identity(named)))

    def test_changing(self) -> None:
        """Fields of traces and hops do not count, nor do those of the connection."""
        for name in (
            b"traceparent",
            b"tracestate",
            b"X-Request-Id",
            b"X-Forwarded-For",
            b"Via",
            b"Keep-Alive",
        ):
            self.assertTrue(identity(again(1), (name, b"x")).repeats(identity()), name)

    def test_different(self) -> None:
        """Whatever else differs, it is another call."""
        other_key = [(b"Authorization", b"Bearer b") if f[0] == b"Authorization" else f for f in _FIELDS]
        for other in (
            identity(again(1), rule="other"),
            identity(again(1), target=b"/v1/chat/completions?x=1"),
            identity(again(1), fields=other_key),
            identity(again(1), (b"OpenAI-Project", b"p")),
            identity(again(1), (b"Accept", b"*/*")),
            identity(again(1), body=(b"{} ",)),
        ):
            self.assertFalse(other.repeats(identity()))

    def test_borders(self) -> None:
        """Names and values cannot be shifted into each other."""
        self.assertNotEqual(identity((b"a", b"bc")).digest, identity((b"ab", b"c")).digest)
        self.assertNotEqual(identity((b"a", b"b"), (b"c", b"d")).digest, identity((b"a", b"b2:c1:d")).digest)

    @given(st.binary(max_size=64), st.lists(st.integers(0, 64)))
    def test_pieces(self, body: bytes, cuts: list[int]) -> None:
        """The pieces in which a body comes do not matter."""
        edges = sorted({0, len(body), *(min(cut, len(body)) for cut in cuts)})
        pieces = tuple(body[start:end] for start, end in pairwise(edges))
        self.assertEqual(identity(body=pieces), identity(body=(body,)))

    def test_credentials(self) -> None:
        """A call without any credential has none; a key may stand in a field or in the query."""
        bare = [field for field in _FIELDS if field[0] != b"Authorization"]
        self.assertIsNone(identity(fields=bare).credential)
        for more in (
            (b"api-key", b"k"),
            (b"x-api-key", b"k"),
            (b"x-goog-api-key", b"k"),
            (b"Cookie", b"s=1"),
        ):
            self.assertIsNotNone(identity(more, fields=bare).credential, more)
        self.assertIsNotNone(identity(fields=bare, target=b"/v1/x?key=k").credential)
        self.assertIsNone(identity(fields=bare, target=b"/v1/x?monkey=k").credential)

    def test_says_retry(self) -> None:
        """Only a count above 0 or a name says that a call may have been asked before."""
        for fields, says in (
            ([again(0)], False),
            ([], False),
            ([again(1)], True),
            ([(b"Idempotency-Key", b"k")], True),
        ):
            self.assertIs(says_retry(fields), says)
