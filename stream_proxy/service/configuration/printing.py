"""Printed form of a configuration: all keys with their values, and no secret."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from stream_proxy.environment import has_reference
from stream_proxy.limits import Limits
from stream_proxy.service.configuration.types import Config, Rule
from stream_proxy.service.configuration.wording import plain_numbers

#: What stands in place of a secret.
BLANK = "***"
#: Names whose values are secrets.
_SECRET = re.compile(r"auth|cookie|token|secret|key|session|passw", re.IGNORECASE)


def every_key(config: Config) -> dict[str, Any]:
    """Return all keys of a configuration in the form of a config file, those of limits in each rule too."""
    whole: dict[str, Any] = msgspec.to_builtins(config)
    rules = [_rule(config, rule) for rule in config.rules]
    limits = {field.encode_name for field in msgspec.structs.fields(Limits)}
    sections = {key: value for key, value in whole.items() if key not in limits}
    own_limits = {key: value for key, value in whole.items() if key in limits}
    found: dict[str, Any] = plain_numbers({**sections, "rules": rules, **own_limits})
    return found


def _rule(config: Config, rule: Rule) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(rule)
    own = found.keys() & {field.encode_name for field in msgspec.structs.fields(Limits)}
    limits = msgspec.to_builtins(config.limits_of(rule))
    found.update({key: limits[key] for key in found if key in own})
    found["upstreamUrl"] = _url(found["upstreamUrl"])
    if found["proxy"] is not None:
        found["proxy"] = _url(found["proxy"])
    if found["requestHeaders"] is not None:
        found["requestHeaders"]["set"] = _blanked(found["requestHeaders"]["set"])
    if found["adapter"] is not None:
        adapter = found["adapter"]
        adapter["headers"] = _blanked(adapter["headers"])
        if "request" in adapter:
            adapter["request"] = _blanked(adapter["request"])
    return found


def _blanked(value: Any, name: str = "") -> Any:
    """Return a value with blanks for what stands under a secret's name, if it does not come from outside."""
    match value:
        case dict():
            # What stands anywhere under a secret's name is one.
            return {key: _blanked(each, name if _SECRET.search(name) else key) for key, each in value.items()}
        case list():
            return [_blanked(each, name) for each in value]
        case str() if _SECRET.search(name) and not (has_reference(value) or "{{" in value):
            return BLANK
    return value


def _url(url: str) -> str:
    """Return a URL without its password, and without the values of secrets in its query.

    A user without a password is a key, as some proxies take it.
    """
    password = re.sub(r"(://(?:[^/@:]*:)?)(?!\$\{)[^/@:]*@", rf"\1{BLANK}@", url)
    return re.sub(
        r"(?<=[?&])([^=&]*)=([^&#]*)",
        lambda found: f"{found[1]}={_blanked(found[2], found[1])}",
        password,
    )
