"""Header fields that a rule sets or removes in its requests."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from stream_proxy.environment import expand, has_reference, variable
from stream_proxy.http.access import HeaderChanges
from stream_proxy.http.headers import HOP_BY_HOP, RawHeader, is_field_name

#: Fields that the proxy writes itself.
_RESERVED = HOP_BY_HOP | {b"content-length", b"expect", b"host"}
#: Fields whose values are keys.
_CREDENTIALS = ("authorization", "api-key", "x-api-key", "x-goog-api-key", "cookie")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class RequestHeaders(Struct, frozen=True, rename="camel", kw_only=True):
    """The ``requestHeaders`` of a rule."""

    set: Annotated[
        dict[str, str],
        Meta(
            description="fields that stand in place of the client's; `${NAME}` in a value is an environment "
            "variable, and a key of yours"
        ),
    ] = msgspec.field(default_factory=dict)
    remove: Annotated[tuple[str, ...], Meta(description="names of fields that do not go upstream")] = ()

    @property
    def injects(self) -> bool:
        """Whether the upstream is sent a secret of the operator's."""
        return any(map(has_reference, self.set.values()))

    def read(self, environ: Mapping[str, str] | None = None) -> HeaderChanges:
        """Return the changes, with what the environment holds now.

        :raises ValueError: one of them cannot be made; the text begins with its key.
        """
        keys: list[bytes] = []
        fields: list[RawHeader] = []
        secret: list[RawHeader] = []
        for name, value in self.set.items():
            place = f"set.{name}"
            _check_name(place, name)
            if not _VALUE.fullmatch(value):
                raise ValueError(f"{place}: has characters that no header may hold")
            if name.lower() in _CREDENTIALS and not has_reference(value):
                raise ValueError(f"{place}: keys do not stand in the config; write ${{NAME}} for a variable")
            found = _expanded(place, value, os.environ if environ is None else environ, keys)
            (secret if has_reference(value) else fields).append((name.encode("ascii"), found))
        for index, name in enumerate(self.remove):
            _check_name(f"remove[{index}]", name)
        removed = frozenset(name.lower().encode("ascii") for name in self.remove)
        return HeaderChanges(tuple(fields), tuple(secret), removed, tuple(keys))

    def problems(self, upstream_key_field: str | None) -> Iterator[str]:
        """Yield what is wrong, each with its key.

        :param upstream_key_field: the field that holds the rule's ``upstreamKey``, if it has one.
        """
        for name, value in self.set.items():
            if name.lower() == upstream_key_field:
                yield f"set.{name}: upstreamKey stands in its place; leave one out"
            yield from _raised(RequestHeaders(set={name: value}))
        for index, name in enumerate(self.remove):
            try:
                _check_name(f"remove[{index}]", name)
            except ValueError as error:
                yield str(error)


def _raised(part: RequestHeaders) -> Iterator[str]:
    try:
        part.read()
    except ValueError as error:
        yield str(error)


def _check_name(place: str, name: str) -> None:
    if not is_field_name(name):
        raise ValueError(f"{place}: is no name of a header field")
    lower = name.lower().encode("ascii")
    if lower in _RESERVED or lower.startswith(b"sec-websocket-"):
        raise ValueError(f"{place}: is set by the proxy itself")


def _expanded(place: str, value: str, environ: Mapping[str, str], keys: list[bytes]) -> bytes:
    def key(name: str) -> str:
        found = variable(name, environ)
        if not _VALUE.fullmatch(found):
            raise ValueError(f"the environment's {name} has characters that no header may hold")
        keys.append(found.encode("latin-1"))
        return found

    try:
        return expand(value, key).strip(" \t").encode("latin-1")
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
