"""JSON of config files: where it is wrong, and what was probably meant."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

#: What a JSON text consists of, besides blanks. A string that does not end reaches to the end of its line.
_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"?|[{}\[\]:,]|[^\s{}\[\]:,"]+')
_COMMENT = re.compile(r"//|/\*|#")
#: Words of other languages, and what JSON says.
_WORDS = {
    "True": "true",
    "False": "false",
    "None": "null",
    "yes": "true",
    "no": "false",
    "on": "true",
    "off": "false",
}
_TOML = re.compile(r"\s*(#.*\s+)*(\[\[?[\w.]+\]\]?\s*$|[\w.-]+\s*=)", re.MULTILINE)
_YAML = re.compile(r"\s*(#.*\s+)*(---|[\w$-]+:(\s|$))", re.MULTILINE)


class JSONMistake(Exception):
    """A text that is no JSON; the message begins with line and column."""


def parse_json(text: str) -> object:
    """Return what a JSON text says; of keys that stand twice in an object, the last.

    :raises JSONMistake: it is no JSON.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise JSONMistake(_explained(text, error)) from None
    except RecursionError:
        raise JSONMistake("is not valid JSON: it is nested too deeply") from None
    except ValueError as error:  # a number of too many digits
        raise JSONMistake(f"is not valid JSON: {error}") from None


def repeated_keys(text: str) -> Iterator[str]:
    """Yield a line for each key that an object has twice, with its path.

    :param text: valid JSON.
    """
    # For each open bracket: the keys so far of an object, else None, and its own path.
    open_brackets: list[tuple[dict[str, int] | None, str]] = []
    path, counts, string = "", [0], None
    for token in _TOKEN.finditer(text):
        match token[0]:
            case "{" | "[" as bracket:
                open_brackets.append(({} if bracket == "{" else None, path))
                counts.append(0)
                path = path if bracket == "{" else f"{path}[0]"
            case "}" | "]":
                path = open_brackets.pop()[1]
                counts.pop()
            case ",":
                keys, outer = open_brackets[-1]
                counts[-1] += 1
                path = outer if keys is not None else f"{outer}[{counts[-1]}]"
            case ":":
                keys, outer = open_brackets[-1]
                assert keys is not None and string is not None  # as the text is valid
                name: str = json.loads(string[0])
                path = f"{outer}.{name}" if outer else name
                if name in keys:
                    first, again = _line(text, keys[name]), _line(text, string.start())
                    yield f"{path}: is set twice, in line {first} and in line {again}"
                keys[name] = string.start()
            case _:
                string = token


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


def _where(text: str, place: int) -> str:
    return f"line {_line(text, place)}, column {place - text.rfind(chr(10), 0, place)}"


def _explained(text: str, error: json.JSONDecodeError) -> str:
    place, problem = _problem(text, error)
    return f"{_where(text, place)}: {problem}"


def _problem(text: str, error: json.JSONDecodeError) -> tuple[int, str]:
    """Return where an error is, and what it is."""
    place = len(text) - len(text[error.pos :].lstrip())
    rest, before = text[place:], text[:place].rstrip()
    comma = len(before) - 1 if before.endswith(",") else error.pos
    bracket = rest if before.endswith(",") else rest[1:].lstrip()
    if text[comma : comma + 1] == "," and bracket[:1] in ("}", "]"):
        return comma, f"a comma stands before {bracket[0]}, which JSON does not allow; remove it"
    if not before and (other := _other_format(text)):
        return place, other
    if _COMMENT.match(rest):
        return place, 'JSON has no comments; a key that begins with "_" may hold one, as "_note"'
    if not rest:
        return len(before), f"the file ends before {_unclosed(text)}"
    return _detail(text, error, place)


def _detail(text: str, error: json.JSONDecodeError, place: int) -> tuple[int, str]:
    word = re.match(r"[A-Za-z]+", text[place:])
    if error.msg.startswith("Unterminated string"):
        return error.pos, 'the text that begins here has no " at its end'
    if error.msg.startswith("Invalid control character"):
        return error.pos, 'a text may not go on in the next line; end it with ", or write \\n'
    if error.msg.startswith("Invalid \\"):
        return error.pos, "this backslash begins nothing that JSON knows; write two for one"
    if text[place] == "'":
        return place, "JSON has texts in double quotes: \"…\", not '…'"
    if error.msg.startswith("Expecting property name") and text[place] not in '{}[]:,"':
        return place, 'keys stand in double quotes, as "rules"'
    if word is not None and word[0] in _WORDS:
        return place, f"must be {_WORDS[word[0]]} in JSON, not {word[0]}"
    if word is not None and error.msg.startswith("Expecting value"):
        return place, 'texts stand in double quotes, as "text"'
    if error.msg.startswith("Expecting ',' delimiter"):
        return place, "a comma is missing before this"
    if error.msg.startswith("Expecting ':' delimiter"):
        return place, "a colon is missing before this"
    if error.msg.startswith("Extra data"):
        return place, "something stands after the end of the JSON object"
    return place, f"is not valid JSON: {error.msg[:1].lower()}{error.msg[1:]}"


def _other_format(text: str) -> str | None:
    for name, form, ending in (("TOML", _TOML, ".toml"), ("YAML", _YAML, ".yaml")):
        if form.match(text):
            return f"this looks like {name}, not JSON; the name of such a file ends with {ending}"
    return None


def _unclosed(text: str) -> str:
    """Return what is open at the end of a text."""
    opened: list[tuple[str, int]] = []
    for token in _TOKEN.finditer(text):
        if token[0] in ("{", "["):
            opened.append((token[0], token.start()))
        elif token[0] in ("}", "]") and opened:
            opened.pop()
    if not opened:
        return "it says anything"
    bracket, place = opened[-1]
    return f"the {bracket} of line {_line(text, place)} is closed"
