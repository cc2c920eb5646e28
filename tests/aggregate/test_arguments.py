"""Tests of the arguments of tool calls: what fragments are read as."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.aggregate import arguments as module
from stream_proxy.aggregate.arguments import Arguments, is_object
from stream_proxy.aggregate.reading import argument_reader
from stream_proxy.aggregate.reading.argument_reader import ArgumentReader
from tests.support.properties import examples

OSLO = '{"city": "Oslo"}'
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 99) | st.text('a"\\{}[]:, é😀\n', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('a"{}', max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text('ab"\\{}', max_size=3), JSON, max_size=4)
BLANKS = st.sampled_from(["", " ", "\n", " \t\n"])


@st.composite
def argument_texts(draw: st.DrawFn) -> str:
    """Generate a JSON object as text, spelled in one of several ways."""
    spaced = draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " : ")]))
    text = json.dumps(draw(OBJECTS), ensure_ascii=draw(st.booleans()), separators=spaced)
    return draw(BLANKS) + text + draw(BLANKS)


@st.composite
def pieces(draw: st.DrawFn, text: str) -> list[str]:
    """Split `text` anywhere; some of the pieces may be empty."""
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def read(*fragments: str) -> str:
    """Return what `fragments` are read as, after asking between them whether they are complete."""
    arguments, asked = Arguments(), Arguments()
    for fragment in fragments:
        arguments.write(fragment)
        asked.write(fragment)
        _ = asked.complete
    reader = ArgumentReader()
    found = reader.read(arguments)
    assert isinstance(found, str)
    assert found == reader.read(asked) == reader.read(asked)
    return found


def complete(*fragments: str) -> bool:
    arguments = Arguments()
    arguments.extend([json.dumps(fragment)[1:-1].encode() for fragment in fragments])
    return arguments.complete


class ReadingTests(SynchronousTestCase):
    """What fragments are read as."""

    def test_json(self) -> None:
        """Fragments that are JSON when joined stay as they are, blanks and odd spellings included."""
        for whole in (
            OSLO,
            " {} ",
            '{ "a" :1.50}\n',
            "[1]",
            '"text"',
            "null",
            '{"a":NaN}',
            '{"a":"\ud83d"}',
            '{"a":{}}{}'[:-2],
            '{"a":"}{"}',
        ):
            self.assertEqual(read(whole), whole)
            self.assertEqual(read(*whole), whole)

    def test_empty_object_first(self) -> None:
        """An empty object gives way to a real one, in pieces or whole, complete or cut off."""
        for fragments in (
            ("{}", OSLO),
            ("{}", '{"ci', 'ty": "Oslo"}'),
            ("{}" + OSLO,),
            ("{}", "{", OSLO[1:]),
        ):
            self.assertEqual(read(*fragments), OSLO)
        self.assertEqual(read("{ }", "", " ", OSLO), OSLO)
        self.assertEqual(read("{}{", OSLO[1:]), OSLO)
        self.assertEqual(read("{}", '{"city": "Os'), '{"city": "Os')
        self.assertEqual(read("{}", "{}"), "{}")

    def test_empty_object_last(self) -> None:
        """An empty object after a real one says nothing."""
        self.assertEqual(read(OSLO, "{}"), OSLO)
        self.assertEqual(read(OSLO[:5], OSLO[5:], "{}"), OSLO)

    def test_said_again(self) -> None:
        """The whole may come again: at once, in pieces, after pieces, several times, with other blanks."""
        for fragments in (
            (OSLO, OSLO),
            (OSLO + OSLO,),
            (OSLO, OSLO, OSLO),
            (OSLO * 3,),
            (OSLO, OSLO[:4], OSLO[4:]),
            (OSLO[:4], OSLO[4:], OSLO),
            (OSLO[:4], OSLO[4:] + OSLO),
            (OSLO, OSLO[:4]),
        ):
            self.assertEqual(read(*fragments), OSLO)
        self.assertEqual(read(OSLO + "\n", OSLO).strip(), OSLO)

    def test_cumulative(self) -> None:
        """Fragments may each hold all before them."""
        parts = [OSLO[:end] for end in range(1, len(OSLO) + 1)]
        self.assertEqual(read(*parts), OSLO)
        self.assertEqual(read(*parts, OSLO), OSLO)
        self.assertEqual(read("{}", *parts), OSLO)
        self.assertEqual(read("", '{"a', '{"a', "", '{"a":1}'), '{"a":1}')

    def test_whole_after_a_beginning(self) -> None:
        """The whole may follow a beginning of it, in pieces itself or not, with pieces after it or not."""
        for fragments in (
            ("{", OSLO),
            ("{", '"ci', 'ty": "Os', OSLO),
            ('{"ci', 'ty": "', OSLO[:-2], '"', "}"),
            ('{"ci', 'ty": "Os', OSLO[:-4], OSLO),
        ):
            self.assertEqual(read(*fragments), OSLO)

    def test_closed_snapshots(self) -> None:
        """So may objects that grow, each of them complete."""
        self.assertEqual(read("{}", '{"a":""}', '{"a":"x"}', '{"a":"xy","b":[1]}', '{"a":"xy","b":[1,2]}'),
                         '{"a":"xy","b":[1,2]}')  # fmt: skip

    def test_nothing_continues(self) -> None:
        """What follows a complete object and opens none is not part of it."""
        self.assertEqual(read(OSLO, "}"), OSLO)
        self.assertEqual(read(OSLO, '"}'), OSLO)
        self.assertEqual(read("{}", "[" * 100_000), "{}")

    def test_broken(self) -> None:
        """Anything else is joined and never repaired."""
        for fragments in (
            ('{"a":',),
            ('{"a"', ':"x'),
            ("{a}", "{b}"),
            ("x", "y"),
            ("1 ", "1 "),
            ('{"a":1}', '{"b":2}'),
            ('{"a":1}', '{"b":'),
            ('{"a":1}{"b":2}',),
            ('{"a":1}}',),
            ("}", "{", "}"),
            ("[" * 100_000,),
            ('{"a":' * 100_000,),
            ('{"a":' * 900 + "1" + "}" * 900, '{"a":' * 900 + "2" + "}" * 900),
        ):
            self.assertEqual(read(*fragments)[:50], "".join(fragments)[:50])

    @examples(80)
    @given(st.data(), argument_texts())
    def test_any_split(self, data: st.DataObject, text: str) -> None:
        """Any split of arguments gives them back, and so does any split of the beginning of them."""
        fragments = data.draw(pieces(text))
        self.assertEqual(read(*fragments), text)
        self.assertTrue(complete(*fragments))
        for cut in range(len(text.rstrip())):
            self.assertFalse(complete(text[:cut]))
        start = text[: data.draw(st.integers(0, len(text)))]
        self.assertEqual(read(*data.draw(pieces(start))), start)

    @examples(100)
    @given(st.data(), argument_texts(), st.integers(2, 4))
    def test_any_repetition(self, data: st.DataObject, text: str, times: int) -> None:
        """Arguments said several times, each time split anywhere, are read once."""
        fragments = [piece for _ in range(times) for piece in data.draw(pieces(text))]
        self.assertEqual(json.loads(read(*fragments)), json.loads(text))

    @examples(100)
    @given(st.data(), argument_texts())
    def test_any_snapshots(self, data: st.DataObject, text: str) -> None:
        """Snapshots of the text so far, of any lengths, are read as the last of them."""
        ends = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
        self.assertEqual(json.loads(read(*(text[:end] for end in [*ends, len(text)]))), json.loads(text))

    @examples(80)
    @given(st.lists(st.text('{}"\\a:1, ', max_size=5), max_size=8))
    def test_rubbish(self, fragments: list[str]) -> None:
        """Rubbish is read as itself, or as an object, whole or cut off after an empty one."""
        found = read(*fragments)
        joined = "".join(fragments)
        self.assertTrue(found == joined or is_object(found) or found.startswith("{"), (fragments, found))


class CompletenessTests(SynchronousTestCase):
    """Whether what came last is a complete object."""

    def test_complete(self) -> None:
        """Braces count outside of strings only, and blanks around the object do not."""
        for fragments in (
            ("{}",),
            (" ", "{", "}", " "),
            ('{"a":"', "\\", '"}', '"}'),
            ('{"a":"\\\\', '"}'),
            ('{"a":{"b":"{"}', "}"),
            (OSLO, OSLO),
            (OSLO, "}"),
        ):
            self.assertTrue(complete(*fragments), fragments)
        unfinished: list[tuple[str, ...]] = [
            (),
            ("",),
            ("{",),
            ('{"a":"}',),
            ('{"a":"\\"}',),
            ("x",),
            ("[]",),
            ("{a}",),
            (OSLO, OSLO[:5]),
            ("{a}", OSLO),
        ]
        for each in unfinished:
            self.assertFalse(complete(*each), each)

    def test_said_again(self) -> None:
        """A repeat, a longer object and the first real one are the same arguments; another one is not."""
        arguments = Arguments()
        arguments.write("{}")
        self.assertTrue(arguments.complete and arguments.are_said_again(OSLO))
        arguments.write(OSLO)
        for text, same in (
            (OSLO, True),
            (OSLO + " ", True),
            ("{}", True),
            ('{"city":"Oslo","unit":"C"}', True),
            ('{"city":"Rome"}', False),
            ('{"city":', False),
            ('{"unit":"C"}', False),
        ):
            self.assertEqual(arguments.complete and arguments.are_said_again(text), same, text)

    def test_linear(self) -> None:
        """However often completeness is asked, and whatever is read, no text is parsed again and again."""
        parsed = 0
        parse = module.is_object

        def counting(text: str) -> bool:
            nonlocal parsed
            parsed += len(text)
            return parse(text)

        self.patch(module, "is_object", counting)
        for first, then in (
            ('{"a":[', '{"b":1},'),
            ('{"a":[', '{"b":1}'),
            ('{"a":"', "x}"),
            ("x", "{}"),
            (OSLO, OSLO),
            ("{}", "{"),
            ("}", "}"),
            ("{a", "}"),
        ):
            parsed = 0
            arguments = Arguments()
            for fragment in [first, *[then] * 4_000]:
                arguments.write(fragment)
                _ = arguments.complete
            size = len(arguments.getvalue())
            ArgumentReader().read(arguments)
            self.assertLessEqual(parsed, 9 * size + 100_000, (first, then))

    def test_bound(self) -> None:
        """What is read in one response is bounded; beyond that, fragments are just joined."""
        self.patch(argument_reader, "MOST_READ", 3 * len(OSLO))
        arguments = Arguments()
        arguments.extend([json.dumps(OSLO)[1:-1].encode()] * 2)
        reader = ArgumentReader()
        self.assertEqual([reader.read(arguments) for _ in range(2)], [OSLO, OSLO + OSLO])
        whole = Arguments()
        whole.write(OSLO + " " * 100)
        self.assertEqual(reader.read(whole), whole.getvalue())
