"""Reference of the configuration, made from its types: ``python -m tests.service.configuration.reference``.

It writes the tables of ``docs/configuration.md``, each between two comments, and ``docs/config.schema.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import NODEFAULT, Struct, inspect

from stream_proxy.limits import Limits
from stream_proxy.service.configuration.request_headers import RequestHeaders
from stream_proxy.service.configuration.schema import schema
from stream_proxy.service.configuration.types import (
    Admin,
    CaptureConfig,
    Config,
    LogConfig,
    MetricsConfig,
    Rule,
)
from stream_proxy.service.configuration.values import bare
from stream_proxy.service.configuration.wording import either, plain_numbers
from stream_proxy.service.keys import UpstreamKeySource

DOCS = Path(__file__).parents[3] / "docs"
PAGE, SCHEMA = DOCS / "configuration.md", DOCS / "config.schema.json"

_TABLE = re.compile(r"(<!-- keys: (?P<name>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
#: Where the page, or another, says more about a key.
_MORE = {
    "admin": "[admin port](#admin-port)",
    "capture": "[capture](#capture)",
    "firstEventSeconds": "[upstreams that stall](waiting.md#upstreams-that-stall)",
    "keepAliveSeconds": "[bytes in time](waiting.md#bytes-in-time)",
    "log": "[log](#log)",
    "metrics": "[metrics](#metrics)",
    "resumeSeconds": "[picking up an answer](waiting.md#picking-up-an-answer)",
    "retries": "[retries](waiting.md#retries-before-the-first-byte)",
    "rules": "[rules](#rules)",
    "rules[].adapter": "[the adapter](adapter.md)",
    "rules[].clientKeys": "[keys](#keys)",
    "rules[].hosts": "[web pages](#web-pages)",
    "rules[].listen": "[where it listens](#where-it-listens)",
    "rules[].origins": "[web pages](#web-pages)",
    "rules[].proxy": "[proxies and certificates](#proxies-and-certificates)",
    "rules[].requestHeaders": "[request headers](#request-headers)",
    "rules[].upstreamKey": "[keys](#keys)",
    "stalledSeconds": "[upstreams that stall](waiting.md#upstreams-that-stall)",
    "webSocketPingSeconds": "[pings](websockets.md#pings)",
    "workers": "[more than one core](operating.md#more-than-one-core)",
}
_STRUCTS: dict[str, tuple[type[Struct], str]] = {
    "admin": (Admin, "admin."),
    "capture": (CaptureConfig, "capture."),
    "keys": (UpstreamKeySource, ""),
    "log": (LogConfig, "log."),
    "metrics": (MetricsConfig, "metrics."),
    "headers": (RequestHeaders, "rules[].requestHeaders."),
    "rules": (Rule, "rules[]."),
}
#: The names of all tables.
TABLES = (*_STRUCTS, "sizes", "times", "whole")


def page(text: str) -> str:
    """Return a page with its tables made anew."""
    return _TABLE.sub(lambda found: f"{found[1]}{_table(found['name'])}{found[3]}", text)


def schema_text() -> str:
    """Return the published schema."""
    return json.dumps(schema(), indent=2) + "\n"


def _table(name: str) -> str:
    limits, own = _limits(), {field.encode_name for field in _fields(Rule)}
    if name in _STRUCTS:
        struct, prefix = _STRUCTS[name]
        fields = [field for field in _fields(struct) if struct is not Rule or field.encode_name not in limits]
    elif name == "whole":
        prefix, fields = "", [field for field in _fields(Config) if field.encode_name not in limits]
    else:
        prefix = ""
        times = {"times": True, "sizes": False}[name]
        fields = [field for key, field in limits.items() if _is_time(key) == times]
    rows = [
        _row(field, prefix, star=not prefix and name != "keys" and field.encode_name in own)
        for field in fields
    ]
    return "".join(("| key | value | default | meaning |\n", "| --- | --- | --- | --- |\n", *rows))


def _fields(struct: type[Struct]) -> Iterable[inspect.Field]:
    kind = inspect.type_info(struct)
    assert isinstance(kind, inspect.StructType)
    return kind.fields


def _limits() -> dict[str, inspect.Field]:
    return {field.encode_name: field for field in _fields(Limits)}


def _is_time(key: str) -> bool:
    return key.endswith("Seconds") or key == "retries"


def _row(field: inspect.Field, prefix: str, *, star: bool) -> str:
    key = prefix + field.encode_name
    more = f": {_MORE[key]}" if key in _MORE else ""
    cells = (f"`{key}`{' *' if star else ''}", _kind(field.type), _default(field), _meaning(field) + more)
    return f"| {' | '.join(cells)} |\n"


def _meaning(field: inspect.Field) -> str:
    """Return what the type says of a key."""
    kinds = [field.type, *(field.type.types if isinstance(field.type, inspect.UnionType) else ())]
    for kind in kinds:
        if isinstance(kind, inspect.Metadata) and "description" in (kind.extra_json_schema or {}):
            return str((kind.extra_json_schema or {})["description"])
    raise AssertionError(f"{field.encode_name} has no description")


def _default(field: inspect.Field) -> str:
    if field.required:
        return "required"
    if field.default is NODEFAULT or field.default in (None, ()) or isinstance(field.default, Struct):
        return ""
    return f"`{msgspec.json.encode(plain_numbers(field.default)).decode()}`"


def _kind(kind: inspect.Type) -> str:
    """Return which values a type takes."""
    kind = bare(kind)
    match kind:
        case inspect.UnionType():
            return " or ".join(_kind(each) for each in kind.types if not isinstance(each, inspect.NoneType))
        case inspect.LiteralType():
            return either([f'`"{each}"`' for each in kind.values])
        case inspect.IntType() | inspect.FloatType():
            bounds = f" from {kind.ge} to {kind.le}" if kind.le is not None else ""
            return f"{'whole ' if isinstance(kind, inspect.IntType) else ''}number{bounds}"
        case inspect.StrType():
            return "text"
        case inspect.BoolType():
            return "`true` or `false`"
        case inspect.ListType() | inspect.VarTupleType():
            item = _kind(kind.item_type)
            return f"list of {item}s"
        case inspect.StructType() | inspect.DictType():
            return "object"
    raise AssertionError(f"no word for {kind}")


def main() -> None:
    """Write both files."""
    PAGE.write_text(page(PAGE.read_text()))
    SCHEMA.write_text(schema_text())


if __name__ == "__main__":
    main()
