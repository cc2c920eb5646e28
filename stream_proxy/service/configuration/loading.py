"""Config files: reading them, and the messages about one that cannot be used."""

from __future__ import annotations

import difflib
import json
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from stream_proxy.adapter.config import AdapterConfig
from stream_proxy.adapter.dialect import Dialect
from stream_proxy.errors import ConfigError
from stream_proxy.http.origin import Pages
from stream_proxy.http.url import parse_upstream_url
from stream_proxy.service.configuration.types import (
    Admin,
    CaptureConfig,
    Config,
    LogConfig,
    MetricsConfig,
    Rule,
)
from stream_proxy.service.keys import KeySource, UpstreamKeySource

#: Objects at the top level, besides rules.
_SECTIONS: dict[str, type[Struct]] = {
    "admin": Admin,
    "capture": CaptureConfig,
    "log": LogConfig,
    "metrics": MetricsConfig,
}

#: The form of msgspec's messages.
_MESSAGE = re.compile(
    r"(?s)(?P<text>Object missing required field `(?P<field>\w+)`|.*?)( - at `\$(?P<path>.*)`)?"
)
#: Messages that are replaced: a pattern for the key, one for msgspec's text, and the new text.
_REWORDED = (
    (r".*", r"Object missing required field .*", "is required"),
    # Most likely somebody wrote the key itself.
    (
        r"(.*\.)?(clientKeys|upstreamKey)",
        r"Expected .*",
        'keys do not stand in the config; use {"file": PATH} or {"environment": NAME}',
    ),
)


def load_config(path: Path) -> tuple[Config, list[str]]:
    """Read and check a configuration file.

    :return: the configuration, and a warning for each unknown key and each key file that everyone can read.
    :raises ConfigError: it cannot be used.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: the config file does not exist") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a directory, not a config file") from None
    except OSError as error:
        raise ConfigError(f"{path}: the config file cannot be read: {error.strerror}") from None
    return parse_config(data, str(path))


def parse_config(data: bytes, name: str) -> tuple[Config, list[str]]:
    """Check the content of a configuration file called `name`; see :func:`load_config`."""
    if not data.strip():
        raise ConfigError(f"{name}: the config file is empty; it must hold a JSON object with rules")
    try:
        loaded: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name}: is not valid JSON: {_one_line(error)}") from None
    if not isinstance(loaded, dict):
        raise ConfigError(f"{name}: must hold a JSON object with rules, not {_json_type(loaded)}")
    try:
        config = msgspec.convert(loaded, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{name}: {_field_message(str(error))}") from None
    except UnicodeEncodeError:
        raise ConfigError(f"{name}: a key holds half of a surrogate pair, which is no text") from None
    ports: dict[int, str] = {}
    names: dict[str, str] = {}
    for index, rule in enumerate(config.rules):
        section = f"rules[{index}]"
        try:
            _check_rule(rule)
            if not isinstance(rule.listen_port, UnsetType):
                _claim(ports, rule.listen_port, section)
            if rule.name is not None:
                _claim_name(names, rule.name, section)
        except ValueError as error:
            raise ConfigError(f"{name}: {section}.{_one_line(error)}") from None
    if config.admin is not None:
        try:
            _check_admin(config.admin, captures=config.capture is not None)
            _claim(ports, config.admin.listen_port, "admin")
        except ValueError as error:
            raise ConfigError(f"{name}: admin.{_one_line(error)}") from None
    return config, [f"{name}: {warning}" for warning in [*_unknown_keys(loaded), *_exposed(config)]]


def _claim(ports: dict[int, str], port: int, section: str) -> None:
    first = ports.setdefault(port, section)
    if first != section:
        raise ValueError(f"listenPort: port {port} is already used by {first}")


def _claim_name(names: dict[str, str], name: str, section: str) -> None:
    if not name.isprintable():
        raise ValueError("name: must hold printable characters alone")
    first = names.setdefault(name, section)
    if first != section:
        raise ValueError(f"name: {name} is already the name of {first}")


def _check_admin(admin: Admin, *, captures: bool) -> None:
    _check_address(admin.listen_address)
    Pages(admin.hosts)
    if admin.key is not None:
        try:
            admin.key.read()
        except ValueError as error:
            raise ValueError(f"key: {error}") from None
    elif captures:
        raise ValueError("key: is required where there is a capture: it shows what other users sent")
    elif not ip_address(admin.listen_address).is_loopback:
        raise ValueError("key: is required where other machines can connect; or leave listenAddress out")


def _check_address(address: str) -> None:
    try:
        ip_address(address)
    except ValueError:
        raise ValueError("listenAddress: must be an IPv4 or IPv6 address, such as 127.0.0.1") from None


def _check_rule(rule: Rule) -> None:
    if rule.listen is None and rule.listen_port is UNSET:
        raise ValueError("listenPort: is required")
    if rule.listen is not None and (rule.listen_port is not UNSET or rule.listen_address is not None):
        raise ValueError("listen: stands in place of listenPort and listenAddress; leave these out")
    if rule.listen_address is not None:
        _check_address(rule.listen_address)
    for key, source in _key_sources(rule):
        try:
            source.read()
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
    Pages(rule.hosts, rule.origins)
    if rule.adapter is not None:
        url = Dialect(rule.upstream_url, rule.adapter).url
        if rule.upstream_key is not None:
            _check_one_key(rule.upstream_key, rule.adapter)
    else:
        try:
            url = parse_upstream_url(rule.upstream_url)
        except ValueError as error:
            raise ValueError(f"upstreamUrl: {error}") from None
    rule.route.check(url)


def _check_one_key(source: UpstreamKeySource, adapter: AdapterConfig) -> None:
    if adapter.forward_authorization:
        raise ValueError("adapter.forwardAuthorization: upstreamKey stands in its place; leave one out")
    field = (source.header or "Authorization").lower()
    for name in adapter.headers:
        if name.lower() == field:
            raise ValueError(f"adapter.headers.{name}: upstreamKey stands in its place; leave one out")


def _key_sources(rule: Rule) -> list[tuple[str, KeySource]]:
    sources = (("clientKeys", rule.client_keys), ("upstreamKey", rule.upstream_key))
    return [(key, source) for key, source in sources if source is not None]


def _exposed(config: Config) -> list[str]:
    sources = [
        (f"rules[{index}].{key}", source)
        for index, rule in enumerate(config.rules)
        for key, source in _key_sources(rule)
    ]
    if config.admin is not None and config.admin.key is not None:
        sources.append(("admin.key", config.admin.key))
    return [
        f"{key}: everyone on this machine can read {source.file}" for key, source in sources if source.exposed
    ]


def _unknown_keys(loaded: dict[str, Any]) -> list[str]:
    warnings = _unknown(loaded, Config, "")
    for key, struct in _SECTIONS.items():
        if isinstance(loaded.get(key), dict):
            warnings += _unknown(loaded[key], struct, f"{key}.")
    for index, rule in enumerate(loaded["rules"]):
        warnings += _unknown(rule, Rule, f"rules[{index}].")
        if isinstance(rule.get("adapter"), dict):
            warnings += _unknown(rule["adapter"], AdapterConfig, f"rules[{index}].adapter.")
    return warnings


def _unknown(given: dict[str, Any], struct: type[Struct], prefix: str) -> list[str]:
    known = [field.encode_name for field in msgspec.structs.fields(struct)]
    warnings = []
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            warnings.append(f"{prefix}{_one_line(key)}: unknown key, ignored{hint}")
    return warnings


def _field_message(message: str) -> str:
    """Reword a message of msgspec's, with the key first: ``rules[0].listenPort: expected int, got str``."""
    found = _MESSAGE.fullmatch(message)
    assert found is not None  # the pattern fits every text
    key = ".".join(filter(None, ((found["path"] or "").lstrip("."), found["field"])))
    for keys, texts, ours in _REWORDED:
        if re.fullmatch(keys, key) and re.fullmatch(texts, found["text"]):
            return f"{key}: {ours}"
    text = found["text"].replace("`", "").replace(" | null", "")
    text = text[:1].lower() + text[1:]
    return f"{key}: {text}" if key else text


def _json_type(value: object) -> str:
    if value is None:
        return "null"
    names = ((list, "an array"), (str, "a string"), (bool, "a boolean"))
    return next((name for kind, name in names if isinstance(value, kind)), "a number")


def _one_line(text: object) -> str:
    # A key may contain half a surrogate pair, which cannot be written to a log.
    return " ".join(str(text).encode("utf-8", "backslashreplace").decode().split())
