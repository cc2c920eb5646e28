"""Formats of config files: JSON, TOML and YAML, and what is said of files that are none of these."""

from __future__ import annotations

import json
import sys
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from stream_proxy.errors import ConfigError
from stream_proxy.service.configuration.formats import parse
from stream_proxy.service.configuration.loading import parse_config

TOML = """
# The proxy for our tools.
workers = 2
[log]
format = "json"
[[rules]]
listenPort = 8080
upstreamUrl = "https://api.openai.com"
clientKeys = { environment = "PATH" }
"""
YAML = """
# The proxy for our tools.
workers: 2
log: {format: json}
rules:
  - listenPort: 8080
    upstreamUrl: https://api.openai.com
    clientKeys:
      environment: PATH
"""
JSON = json.dumps(
    {
        "workers": 2,
        "log": {"format": "json"},
        "rules": [
            {
                "listenPort": 8080,
                "upstreamUrl": "https://api.openai.com",
                "clientKeys": {"environment": "PATH"},
            }
        ],
    }
)
COMMA = "a comma stands before {}, which JSON does not allow; remove it"
COMMENT = 'JSON has no comments; a key that begins with "_" may hold one, as "_note"'


class FormatTestCase(SynchronousTestCase):
    """Reads files by their names."""

    def assert_error(self, name: str, text: str | bytes, expected: str) -> None:
        """Check the one line about a file."""
        with self.assertRaises(ConfigError) as caught:
            parse(text if isinstance(text, bytes) else text.encode(), name)
        self.assertEqual(str(caught.exception), f"{name}: {expected}")


class SameTests(FormatTestCase):
    """One configuration in every format."""

    def test_same(self) -> None:
        """A file means the same in each format, whatever the case of its ending."""
        wanted = parse_config(JSON.encode(), "config.json")
        for name, text in (
            ("c.toml", TOML),
            ("c.TOML", TOML),
            ("c.yaml", YAML),
            ("c.yml", YAML),
            ("c", JSON),
        ):
            self.assertEqual(parse_config(text.encode(), name), wanted)
        # YAML reads JSON as well.
        self.assertEqual(parse_config(JSON.encode(), "c.yaml"), wanted)

    def test_byte_order_mark(self) -> None:
        """A byte order mark in front is none of the text; JSON may be UTF-16 as well."""
        for name, text in (("c.toml", TOML), ("c.yaml", YAML), ("c.json", JSON)):
            self.assertEqual(parse(b"\xef\xbb\xbf" + text.encode(), name), parse(text.encode(), name))
        self.assertEqual(parse(JSON.encode("utf-16"), "c.json"), parse(JSON.encode(), "c.json"))


class JSONTests(FormatTestCase):
    """JSON that is none."""

    def test_mistakes(self) -> None:
        """Each plausible mistake has line, column, and what to do."""
        for text, line in (
            (
                '{\n  "a": 1,\n}',
                "line 2, column 9: a comma stands before }, which JSON does not allow; remove it",
            ),
            (
                '{"a": [1,\n 2 , ]}',
                "line 2, column 4: a comma stands before ], which JSON does not allow; remove it",
            ),
            ('{"a": 1 // one\n}', f"line 1, column 9: {COMMENT}"),
            ('{\n  # one\n  "a": 1}', f"line 2, column 3: {COMMENT}"),
            ('/* one */ {"a": 1}', f"line 1, column 1: {COMMENT}"),
            ('{"a": 1} // one', f"line 1, column 10: {COMMENT}"),
            ('{"a": 1\n "b": 2}', "line 2, column 2: a comma is missing before this"),
            ('{"a" 1}', "line 1, column 6: a colon is missing before this"),
            ("{'a': 1}", "line 1, column 2: JSON has texts in double quotes: \"…\", not '…'"),
            ("{a: 1}", 'line 1, column 2: keys stand in double quotes, as "rules"'),
            ('{"a": b}', 'line 1, column 7: texts stand in double quotes, as "text"'),
            ('{"a": True}', "line 1, column 7: must be true in JSON, not True"),
            ('{"a": None}', "line 1, column 7: must be null in JSON, not None"),
            ('{"a": yes}', "line 1, column 7: must be true in JSON, not yes"),
            ('{"a": "b}', 'line 1, column 7: the text that begins here has no " at its end'),
            (
                '{"a": "b\n"}',
                'line 1, column 9: a text may not go on in the next line; end it with ", or write \\n',
            ),
            (
                '{"a": "C:\\keys"}',
                "line 1, column 10: this backslash begins nothing that JSON knows; write two for one",
            ),
            ('{"a": [\n  {"b": 1},\n', "line 2, column 12: the file ends before the [ of line 1 is closed"),
            ('{"a": {"b": "]}"}', "line 1, column 18: the file ends before the { of line 1 is closed"),
            ('{"a": 1}}', "line 1, column 9: something stands after the end of the JSON object"),
            ('{"a": [1,,2]}', "line 1, column 10: is not valid JSON: expecting value"),
            (
                "# Ours\nrules:\n- listenPort: 1",
                "line 1, column 1: this looks like YAML, not JSON; the name of such a file ends with .yaml",
            ),
            (
                "# Ours\n[[rules]]\nlistenPort = 1",
                "line 1, column 1: this looks like TOML, not JSON; the name of such a file ends with .toml",
            ),
            ("[" * 100_000, "is not valid JSON: it is nested too deeply"),
            (b"\xff{}", "is no text in UTF-8: byte 1 belongs to nothing; save it as UTF-8"),
        ):
            self.assert_error("config.json", text, line)

    def test_long_number(self) -> None:
        """A number of too many digits is one line."""
        with self.assertRaises(ConfigError) as caught:
            parse(b"1" * 5000, "c")
        self.assertRegex(str(caught.exception), r"\Ac: is not valid JSON: [^\n]+\Z")

    def test_keys_that_stand_twice(self) -> None:
        """Each is named with its path and both lines; the rest of the file is checked as well."""
        rule = '{"listenPort": 1,\n "upstreamUrl": "http://h",\n "listenPort": "2"}'
        other = '{"listenPort": 3, "upstreamUrl": "http://h"}'
        text = f'{{"rules": [{other},\n{rule}],\n"workers": 1, "workers": 0}}'
        with self.assertRaises(ConfigError) as caught:
            parse_config(text.encode(), "c")
        self.assertEqual(
            str(caught.exception).split("\n"),
            [
                "c: rules[1].listenPort: is set twice, in line 2 and in line 4",
                "c: workers: is set twice, in line 5 and in line 5",
                "c: workers: must be a number from 1 to 64, not 0",
                'c: rules[1].listenPort: must be a number: 2, not "2"',
            ],
        )

    @given(
        st.recursive(
            st.sampled_from([1, "a", '"', "\\", "{", None]),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from('ab"\\{,:'), inner, max_size=3)
            ),
            max_leaves=8,
        )
    )
    def test_nothing_twice(self, value: object) -> None:
        """No key of a valid document counts as set twice unless it is."""
        self.assertEqual(parse(json.dumps(value).encode(), "c"), (value, []))
        text = f'{{"a": {json.dumps(value)}, "b": 1, "b": 2}}'
        self.assertEqual(parse(text.encode(), "c")[1], ["b: is set twice, in line 1 and in line 1"])

    @given(st.text(alphabet='{}[],:"ab1 \n/#\\', max_size=30))
    def test_anything(self, text: str) -> None:
        """Whatever stands in a file is JSON, or ends in one line."""
        try:
            parse(text.encode(), "c")
        except ConfigError as error:
            self.assertRegex(str(error), r"\Ac: [^\n]+\Z")


class TOMLTests(FormatTestCase):
    """TOML that is none."""

    def test_mistakes(self) -> None:
        """Each plausible mistake has line and column."""
        for text, line in (
            ("a = 1\nb = \n", "line 2, column 5: invalid value"),
            ("a = 1 2", "line 1, column 7: expected newline or end of document after a statement"),
            ("a = 1\na = 2\n", "line 2, column 6: a key is set twice"),
            ("a = " + "[" * 50_000, "is nested too deeply"),
            (b"a = '\xff'", "is no text in UTF-8: byte 6 belongs to nothing; save it as UTF-8"),
        ):
            self.assert_error("config.toml", text, line)

    def test_date(self) -> None:
        """A date is a text, as it is in JSON."""
        self.assertEqual(parse(b"a = 2026-01-01", "c.toml"), ({"a": "2026-01-01"}, []))


class YAMLTests(FormatTestCase):
    """YAML that is none, and its surprises."""

    def test_mistakes(self) -> None:
        """Each plausible mistake has line and column."""
        for text, line in (
            ("a: 1\na: 2", "line 2, column 1: a is set twice, first in line 1"),
            ("a:\n\t- 1", "line 2, column 1: YAML is indented with blanks, not tabs"),
            ("a: b: c", "line 1, column 5: mapping values are not allowed here"),
            ("a: !!python/name:os.system x", "line 1, column 4: tags have no meaning here"),
            ("a: &x [*x]", "holds a part that contains itself"),
            ("[" * 5000, "is nested too deeply"),
        ):
            self.assert_error("config.yaml", text, line)

    def test_not_text(self) -> None:
        """Bytes that are no text are one line."""
        for data in (b"a: \xff", b"a: \x00"):
            with self.assertRaises(ConfigError) as caught:
                parse(data, "c.yaml")
            self.assertRegex(str(caught.exception), r"\Ac\.yaml: is not valid YAML: [^\n]+\Z")

    def test_plain(self) -> None:
        """Dates and numbers as keys are texts; merged keys give way to a mapping's own."""
        text = "d: 2026-01-01T10:00:00Z\n8080: x\nb: &b {c: 1, d: 2}\ne: {<<: *b, c: 3}"
        wanted = {"d": "2026-01-01T10:00:00Z", "8080": "x", "b": {"c": 1, "d": 2}, "e": {"c": 3, "d": 2}}
        self.assertEqual(parse(text.encode(), "c.yaml"), (wanted, []))

    def test_without_the_library(self) -> None:
        """Without PyYAML the error says how to get it."""
        with mock.patch.dict(sys.modules, {"yaml": None}):
            self.assert_error(
                "config.yaml",
                "a: 1",
                "YAML is read by PyYAML, which is not installed: pip install 'openai-stream-proxy[yaml]'; "
                "or write JSON or TOML",
            )
