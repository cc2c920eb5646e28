"""Shape of a configuration: whether its values have the types of the keys, all mistakes at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec
from msgspec import Struct, inspect

from stream_proxy.service.configuration.values import bare, chosen, problem_of
from stream_proxy.service.configuration.wording import nearest

#: Objects with at most so many keys are shown whole to who used another key.
_FEW_KEYS = 5
#: Keys that begin so are the operator's own.
NOTES = ("$", "_")
_IN_A_RULE = "in a rule"


class Mistake(NamedTuple):
    """One mistake: the key that is wrong, as ``rules[0].listenPort``, and why."""

    key: str
    problem: str


class ShapeCheck:
    """A check of values against types.

    :param whole: the type of the whole; its parts are where a key that does not belong somewhere may belong.
    """

    def __init__(self, whole: type[Struct]) -> None:
        self._whole = inspect.type_info(whole)
        self.mistakes: list[Mistake] = []
        #: Paths of keys that have a mistake, or that a misspelled key stands for: nothing is known of them.
        self.unknown: set[str] = set()
        #: Where keys belong; of those that belong in several places, the rules come first.
        self._owners: dict[str, str] = {}
        sections = sorted(_sections(self._whole), key=lambda found: (found[1] != _IN_A_RULE, found[0]))
        for _, place, struct in sections:
            for name in _keys(struct):
                self._owners.setdefault(name, place)

    def read(self, value: object) -> dict[str, object]:
        """Return an object with those of its members that are right."""
        found = self._read(value, self._whole, "")
        return found if isinstance(found, dict) else {}

    def _wrong(self, key: str, problem: str) -> None:
        self.mistakes.append(Mistake(key, problem))
        self.unknown.add(key)

    def _read(self, value: object, kind: inspect.Type, key: str) -> object:
        """Return `value` without what is wrong in it, which is added to the mistakes."""
        kind = chosen(value, kind)
        match kind, value:
            case inspect.StructType(), dict():
                return self._struct(value, kind, key)
            case ((inspect.ListType() | inspect.VarTupleType()), list()):
                if len(value) < (kind.min_length or 0):
                    self._wrong(key, "must have at least one entry")
                return [self._read(each, kind.item_type, f"{key}[{n}]") for n, each in enumerate(value)]
            case inspect.DictType(), dict():
                return {
                    name: self._read(each, kind.value_type, f"{key}.{name}") for name, each in value.items()
                }
            case _:
                problem = problem_of(value, kind)
                if problem is not None:
                    self._wrong(key, problem)
                elif isinstance(value, float) and isinstance(kind, inspect.IntType):
                    return int(value)  # 1e6 is a whole number
                return value

    def _struct(self, value: Mapping[str, object], kind: inspect.StructType, key: str) -> dict[str, object]:
        fields = {field.encode_name: field for field in kind.fields}
        before = len(self.mistakes)
        read: dict[str, object] = {}
        for name, each in value.items():
            path = f"{key}.{name}" if key else name
            if name in fields:
                count = len(self.mistakes)
                found = self._read(each, fields[name].type, path)
                # Of rules and sections, what is right is still checked.
                if len(self.mistakes) == count or not key:
                    read[name] = found
            elif not name.startswith(NOTES):
                self._stray(name, path, fields.keys() - value.keys(), kind, key)
        for name, field in fields.items():
            path = f"{key}.{name}" if key else name
            if field.required and name not in value and path not in self.unknown:
                self._wrong(path, "is required")
        if len(self.mistakes) == before and kind.cls is not self._whole_class:
            self._build(read, kind.cls, key)
        return read

    @property
    def _whole_class(self) -> type:
        assert isinstance(self._whole, inspect.StructType)
        return self._whole.cls

    def _build(self, value: object, struct: type, key: str) -> None:
        """Find what only the struct itself knows to be wrong."""
        try:
            msgspec.convert(value, struct)
        except msgspec.ValidationError as error:
            self._wrong(key, str(error).partition(" - at `$")[0])
        except UnicodeEncodeError:
            self._wrong(key, "holds half of a surrogate pair, which is no text")

    def _stray(self, name: str, path: str, free: set[str], kind: inspect.StructType, key: str) -> None:
        """Add the mistake of a key that is none."""
        meant = nearest(name, free) or nearest(name, _keys(kind))
        problem = "unknown key"
        if meant is not None:
            problem += f"; did you mean {meant}?"
            self.unknown.add(f"{key}.{meant}" if key else meant)
        elif name in self._owners:
            problem += f" here; it belongs {self._owners[name]}"
        elif len(kind.fields) <= _FEW_KEYS:
            problem += f"; known here: {', '.join(_keys(kind))}"
        self._wrong(path, problem)


def _sections(
    kind: inspect.Type, depth: int = 1, place: str = "at the top level"
) -> Iterator[tuple[int, str, inspect.StructType]]:
    """Yield the objects in a type that have keys of their own: how deep, and where they are."""
    kind = bare(kind)
    if isinstance(kind, inspect.StructType):
        yield depth, place, kind
        for field in kind.fields:
            yield from _sections(field.type, depth + 1, f"in {field.encode_name}")
    elif isinstance(kind, inspect.UnionType):
        for each in kind.types:
            yield from _sections(each, depth, place)
    elif isinstance(kind, (inspect.ListType, inspect.VarTupleType)):
        yield from _sections(kind.item_type, depth + 1, _IN_A_RULE)


def _keys(kind: inspect.StructType) -> list[str]:
    return [field.encode_name for field in kind.fields]
