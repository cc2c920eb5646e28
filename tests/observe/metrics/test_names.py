"""Labels out of names that come from outside."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.observe.metrics.names import MOST_CHARACTERS, MOST_NAMES, OTHER, Names


class NamesTests(SynchronousTestCase):
    """Names are bounded in number, length and characters."""

    def test_first(self) -> None:
        """The first hundred names are labels; all others together are one."""
        names = Names()
        labels = [names.label(f"model-{number}") for number in range(MOST_NAMES + 50)]
        self.assertEqual(labels[:MOST_NAMES], [f"model-{number}" for number in range(MOST_NAMES)])
        self.assertEqual(set(labels[MOST_NAMES:]), {OTHER})
        self.assertEqual((names.label("model-3"), names.label("late")), ("model-3", OTHER))

    def test_characters(self) -> None:
        """Only printable characters are left, and no more than may be."""
        names = Names()
        long = "arn:aws:bedrock/" * 10
        self.assertEqual(names.label(long), long[:MOST_CHARACTERS])
        self.assertEqual(names.label("gpt\n5\x1b[31m\ud83d 模型"), "gpt5[31m 模型")
        self.assertEqual([names.label(each) for each in ("\n", "", None)], [OTHER, OTHER, OTHER])

    def test_long_names(self) -> None:
        """Long names that begin alike are one label, which stays known when there is no room for others."""
        names = Names(most=1)
        self.assertEqual({names.label("x" * (100 + number)) for number in range(50)}, {"x" * 64})
        self.assertEqual(names.label("y"), OTHER)

    def test_pinned(self) -> None:
        """Pinned names are the only ones, in whatever order calls come."""
        names = Names(["b", "a" * 100])
        self.assertEqual([names.label(each) for each in ("c", "b", "a" * 100)], [OTHER, "b", "a" * 64])
        self.assertEqual(Names([]).label("b"), OTHER)
