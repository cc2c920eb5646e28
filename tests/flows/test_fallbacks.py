"""Memory of refusals, and idle timers."""

from __future__ import annotations

from unittest import TestCase

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from stream_proxy.flows.conversion.refusals import REMEMBER_SECONDS, Asker, RefusalMemory, Unsupported
from stream_proxy.http.headers import RawHeader

STREAM, USAGE = Unsupported.STREAM, Unsupported.INCLUDE_USAGE
#: The members of a plain call.
PLAIN = ("model", "messages")
MEMBERS = st.frozensets(st.sampled_from("abcdef"))


def asker(model: bytes = b'"a"', key: bytes = b"", members: tuple[str, ...] = PLAIN) -> Asker:
    """Return the asker of a call with this model, this key and these members."""
    headers: list[RawHeader] = [(b"Authorization", key)] if key else []
    return Asker(model, [(b"Content-Type", b"application/json"), *headers], members)


class MemoryTests(TestCase):
    """Refusals, remembered by model, by client, and by the members of the call."""

    def setUp(self) -> None:
        """Make a clock that only the test advances."""
        self.clock = Clock()
        self.lines: list[str] = []
        self.memory = RefusalMemory(self.clock.seconds, size=3, learned=self.lines.append)

    def test_by_refusal_and_model(self) -> None:
        """A refusal concerns one feature and one model."""
        self.memory.learn(STREAM, asker())
        self.assertTrue(self.memory.knows(STREAM, asker()))
        self.assertFalse(self.memory.knows(STREAM, asker(b'"b"')))
        self.assertFalse(self.memory.knows(USAGE, asker()))

    def test_by_client(self) -> None:
        """A refusal concerns those on whose behalf the call was made: a key, an organisation, a project."""
        for name in (b"Authorization", b"API-Key", b"x-api-key", b"OpenAI-Organization", b"openai-project"):
            self.memory.forget()
            self.memory.learn(STREAM, Asker(b"m", [(name, b"one")], PLAIN))
            self.assertTrue(self.memory.knows(STREAM, Asker(b"m", [(name.lower(), b"one")], PLAIN)))
            for other in ([], [(name, b"two")], [(name, b"one"), (name, b"one")]):
                self.assertFalse(self.memory.knows(STREAM, Asker(b"m", other, PLAIN)), name)
        self.memory.learn(STREAM, Asker(b"m", [(b"User-Agent", b"one")], PLAIN))
        self.assertTrue(self.memory.knows(STREAM, Asker(b"m", [(b"User-Agent", b"two")], PLAIN)))

    def test_by_members(self) -> None:
        """What a call with tools met says nothing of one without; a plain call's refusal holds for both."""
        tools = asker(members=(*PLAIN, "tools"))
        self.memory.learn(STREAM, tools)
        self.assertTrue(self.memory.knows(STREAM, asker(members=(*PLAIN, "tools", "seed"))))
        self.assertFalse(self.memory.knows(STREAM, asker()))
        self.memory.learn(STREAM, asker(members=(*PLAIN, "n")))
        self.assertTrue(self.memory.knows(STREAM, tools))
        self.assertFalse(self.memory.knows(STREAM, asker()))
        self.memory.learn(STREAM, asker())
        self.assertTrue(self.memory.knows(STREAM, asker()))
        self.assertTrue(self.memory.knows(STREAM, tools))

    def test_few_shapes(self) -> None:
        """Few sets of members are kept for a model and client, the latest ones."""
        shapes = [asker(members=(*PLAIN, str(number))) for number in range(9)]
        for shape in shapes:
            self.memory.learn(STREAM, shape)
        self.assertEqual([self.memory.knows(STREAM, shape) for shape in shapes], [False] + [True] * 8)

    @given(st.lists(MEMBERS, min_size=1, max_size=8), MEMBERS)
    def test_members(self, refused: list[frozenset[str]], call: frozenset[str]) -> None:
        """A refusal holds for the calls that have all the members of one that was refused."""
        memory = RefusalMemory(self.clock.seconds)
        for members in refused:
            memory.learn(STREAM, asker(members=tuple(members)))
        known = memory.knows(STREAM, asker(members=tuple(call)))
        self.assertEqual(known, any(members <= call for members in refused))

    def test_own_members(self) -> None:
        """The members that the proxy sets itself make no difference."""
        self.memory.learn(STREAM, asker(members=(*PLAIN, "stream", "stream_options")))
        self.assertTrue(self.memory.knows(STREAM, asker()))

    def test_odd(self) -> None:
        """A call with very many members, or very long names, teaches nothing, since those would be held."""
        for members in (tuple(map(str, range(65))), ("x" * 65,)):
            self.memory.learn(STREAM, asker(members=members))
            self.assertFalse(self.memory.knows(STREAM, asker(members=members)))
        for members in (tuple(map(str, range(64))), ("x" * 64,), ()):
            self.memory.forget()
            self.memory.learn(STREAM, asker(members=members))
            self.assertTrue(self.memory.knows(STREAM, asker(members=members)))

    def test_hour(self) -> None:
        """A refusal is remembered for an hour after its last occurrence."""
        self.memory.learn(STREAM, asker())
        self.clock.advance(REMEMBER_SECONDS - 1)
        self.assertTrue(self.memory.knows(STREAM, asker()))
        self.memory.learn(STREAM, asker())
        self.clock.advance(REMEMBER_SECONDS - 1)
        self.assertTrue(self.memory.knows(STREAM, asker()))
        self.clock.advance(1)
        self.assertFalse(self.memory.knows(STREAM, asker()))

    def test_members_after_an_hour(self) -> None:
        """Members of a refusal that is too old do not widen a new one."""
        self.memory.learn(STREAM, asker())
        self.clock.advance(REMEMBER_SECONDS)
        self.memory.learn(STREAM, asker(members=(*PLAIN, "tools")))
        self.assertFalse(self.memory.knows(STREAM, asker()))

    def test_knowing_does_not_prolong(self) -> None:
        """Looking a refusal up does not extend it."""
        self.memory.learn(STREAM, asker())
        for _ in range(2):
            self.clock.advance(REMEMBER_SECONDS / 2)
            known = self.memory.knows(STREAM, asker())
        self.assertFalse(known)

    def test_bound(self) -> None:
        """The least recently used refusal is forgotten first."""
        models = (b"a", b"b", b"c", b"d")
        for model in models[:3]:
            self.memory.learn(STREAM, asker(model))
        self.memory.knows(STREAM, asker(b"a"))
        self.memory.learn(STREAM, asker(b"d"))
        known = [model for model in models if self.memory.knows(STREAM, asker(model))]
        self.assertEqual(known, [b"a", b"c", b"d"])

    def test_forget(self) -> None:
        """Everything can be forgotten."""
        self.memory.learn(STREAM, asker())
        self.memory.forget()
        self.assertFalse(self.memory.knows(STREAM, asker()))

    def test_log(self) -> None:
        """A line says what is learned of a model, once an hour, whoever calls, with nothing raw in it."""
        self.memory.learn(STREAM, asker(b'"a\\n\x1b[31m\xff"', b"one"))
        self.memory.learn(STREAM, asker(b'"a\\n\x1b[31m\xff"', b"two"))
        (line,) = self.lines
        self.assertTrue(line.isascii() and line.isprintable(), line)
        self.assertIn("refuses streams", line)
        self.memory.learn(USAGE, asker(b'"a\\n\x1b[31m\xff"', b"one"))
        self.assertIn("refuses stream_options", self.lines[-1])
        self.clock.advance(REMEMBER_SECONDS)
        self.memory.learn(USAGE, asker(b'"a\\n\x1b[31m\xff"', b"two"))
        self.assertEqual(len(self.lines), 3)
