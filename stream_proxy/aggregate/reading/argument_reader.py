"""Readers of the arguments of tool calls, which find what their fragments were meant to be."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import msgspec

from stream_proxy.aggregate.arguments import MOST_READ, Arguments, is_object, without_empty_object

_any_value = msgspec.json.Decoder(msgspec.Raw).decode


class ArgumentReader:
    """A reader of all the arguments in one response, whose work is bounded."""

    def __init__(self) -> None:
        self._left = MOST_READ
        self._read: dict[int, str | Arguments] = {}  # by their identities, until returned

    def read(self, arguments: Arguments) -> str | Arguments:
        """Return the fragments, joined, or if that is no JSON the first reading that is an object.

        Arguments that are too long to be joined are returned as they are.
        """
        found = self._read.pop(id(arguments), None)
        if found is None:
            for _ in self.steps(arguments):
                pass
            found = self._read.pop(id(arguments))
        return found

    def steps(self, arguments: Arguments) -> Iterator[None]:
        """Yield after each step of the work that `read` is, but for the last one."""
        joined = yield from arguments.joined()
        found: str | Arguments
        if joined is None:
            found = "" if (yield from arguments.are_blank()) else arguments
        elif len(joined) <= self._left and not _is_json(joined):
            found = yield from self._search(arguments, joined)
        else:
            found = joined
        self._read[id(arguments)] = found

    def _search(self, arguments: Arguments, joined: str) -> Generator[None, None, str]:
        """Return, by steps, the first reading that is an object."""
        self._left -= len(joined)
        yield
        for steps in arguments.readings(joined):
            reading = yield from steps
            if reading is not None and is_object(reading):
                return reading
            yield
        return without_empty_object(joined) or joined


class Unread(ArgumentReader):
    """A reader that leaves arguments as they are."""

    def read(self, arguments: Arguments) -> str | Arguments:
        return arguments


class Outline(ArgumentReader):
    """A reader that leaves out texts, and what arguments say, for who looks at the values around them."""

    def read(self, arguments: Arguments) -> str | Arguments:
        return ""


def _is_json(text: str) -> bool:
    try:
        _any_value(text)
        return True
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return is_object(text)
