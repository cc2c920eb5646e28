"""Values of the configuration beside their types, and the words for a value of another type."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from msgspec import inspect

from stream_proxy.service.configuration.wording import either, nearest, shown
from stream_proxy.service.keys import KeySource

#: Units that numbers are often written with, of times and of sizes.
_SECONDS = {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}
_BYTES = {f"{prefix}{unit}": 1024**power for power, prefix in enumerate("bkmg") for unit in ("", "b", "ib")}
_WITH_UNIT = re.compile(r"(?P<number>[0-9]{1,9}(\.[0-9]{1,9})?)\s*(?P<unit>[a-z]*)")
#: Larger numbers cannot be sent to workers.
_LARGEST = 2**63 - 1
_NO_KEYS_HERE = 'keys do not stand in the config; use {"file": PATH} or {"environment": NAME}'


def bare(kind: inspect.Type) -> inspect.Type:
    """Return a type without the words about it."""
    return kind.type if isinstance(kind, inspect.Metadata) else kind


def _members(kind: inspect.Type) -> list[inspect.Type]:
    """Return the alternatives of a type: one, if it is no union."""
    kind = bare(kind)
    if not isinstance(kind, inspect.UnionType):
        return [kind]
    return [member for each in kind.types for member in _members(each)]


def chosen(value: object, kind: inspect.Type) -> inspect.Type:
    """Return the member of a union that fits the kind of `value`, else the union without null."""
    members = _members(kind)
    if value is None and any(isinstance(each, inspect.NoneType) for each in members):
        return inspect.NoneType()
    members = [each for each in members if not isinstance(each, inspect.NoneType)]
    for each in members:
        if _of_kind(value, each):
            return each
    return members[0] if len(members) == 1 else inspect.UnionType(tuple(members))


def _of_kind(value: object, kind: inspect.Type) -> bool:
    """Report whether a value has a type, leaving bounds aside."""
    match kind:
        case inspect.AnyType():
            return True
        case inspect.StructType() | inspect.DictType():
            return isinstance(value, dict)
        case inspect.ListType() | inspect.VarTupleType():
            return isinstance(value, list)
        case inspect.StrType():
            return isinstance(value, str)
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.IntType() | inspect.FloatType():
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case inspect.LiteralType():
            return not isinstance(value, bool) and value in kind.values
    return False


def problem_of(value: object, kind: inspect.Type) -> str | None:
    """Return what is wrong with a value that is neither object nor list, or should not be."""
    if not _of_kind(value, kind):
        return None if isinstance(kind, inspect.NoneType) else _wanted(value, kind)
    match kind:
        case inspect.IntType() | inspect.FloatType():
            assert isinstance(value, (int, float))
            return _out_of_bounds(value, kind)
        case inspect.StrType():
            assert isinstance(value, str)
            if len(value) < (kind.min_length or 0):
                return "must not be empty"
            if kind.max_length is not None and len(value) > kind.max_length:
                return f"must have at most {kind.max_length} characters, not {len(value)}"
    return None


def _out_of_bounds(value: float, kind: inspect.IntType | inspect.FloatType) -> str | None:
    if isinstance(kind, inspect.IntType) and value != value // 1:
        return f"must be a whole number, not {shown(value)}"
    if (isinstance(kind, inspect.IntType) or isinstance(value, int)) and abs(value) > _LARGEST:
        return "is too large a number"
    low = kind.ge if kind.ge is not None else kind.gt
    below = low is not None and (value < low if kind.ge is not None else value <= low)
    if not (below or math.isnan(value) or (kind.le is not None and value > kind.le)):
        return None
    if kind.le is not None:
        bounds = f"from {kind.ge} to {kind.le}"
    else:
        bounds = f"of at least {low:g}" if kind.ge is not None else f"above {low:g}"
    return f"must be a number {bounds}, not {shown(value)}"


def _wanted(value: object, kind: inspect.Type) -> str:
    """Return what should stand in place of a value of another type."""
    struct = next((each for each in _members(kind) if isinstance(each, inspect.StructType)), None)
    if struct is not None and issubclass(struct.cls, KeySource):
        return _NO_KEYS_HERE
    words = [word for each in _members(kind) for word in _words(each)]
    example = next(filter(None, (_example(value, each) for each in _members(kind))), None)
    meant = nearest(value, [word.strip('"') for word in words]) if isinstance(value, str) else None
    hint = f'; did you mean "{meant}"?' if meant is not None and f'"{meant}"' in words else ""
    return f"must be {either(words)}{f': {example}' if example else ''}, not {shown(value)}{hint}"


def _words(kind: inspect.Type) -> list[str]:
    match kind:
        case inspect.LiteralType():
            return [f'"{each}"' for each in kind.values]
        case inspect.IntType() | inspect.FloatType():
            return ["a number"]
        case inspect.StrType():
            return ["text in quotes"]
        case inspect.BoolType():
            return ["true or false"]
        case inspect.ListType() | inspect.VarTupleType():
            return ["a list"]
        case inspect.StructType() | inspect.DictType():
            return ["an object"]
    return ["something else"]


def _example(value: object, kind: inspect.Type) -> str | None:
    """Return how a value would be right that was probably meant well."""
    match kind, value:
        case ((inspect.IntType() | inspect.FloatType()), str()):
            return _number(value, _BYTES if isinstance(kind, inspect.IntType) else _SECONDS)
        case inspect.StrType(), bool() | int() | float():
            return f'"{shown(value)}"'
        case inspect.BoolType(), str() if value.strip().lower() in ("true", "false"):
            return value.strip().lower()
        case ((inspect.ListType() | inspect.VarTupleType()), _):
            if value is not None and _of_kind(value, bare(kind.item_type)):
                return "[{…}]" if isinstance(value, dict) else f"[{shown(value)}]"
        case inspect.StructType(), _:
            for field in kind.fields:
                kind_of_field = chosen(value, field.type)
                likely = field.required or isinstance(kind_of_field, inspect.LiteralType)
                if likely and _of_kind(value, kind_of_field):
                    return f'{{"{field.encode_name}": {shown(value)}}}'
            return "{…}"
    return None


def _number(text: str, units: Mapping[str, float]) -> str | None:
    """Return the number that a text holds, in seconds or bytes."""
    found = _WITH_UNIT.fullmatch(text.strip().lower())
    if found is None or (found["unit"] and found["unit"] not in units):
        return None
    return found["number"] if not found["unit"] else f"{float(found['number']) * units[found['unit']]:.12g}"
