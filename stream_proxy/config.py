"""``config.json``: what it may say, and what is said about it when it is wrong."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

IncludeUsage = Literal["auto", "always", "never"]
Seconds = Annotated[float, Meta(gt=0)]
Bytes = Annotated[int, Meta(ge=1)]


class ConfigError(Exception):
    """The configuration cannot be used; the text is one line that names file, field and problem."""


class Limits(Struct, frozen=True, rename="camel", kw_only=True):
    """Times (seconds) and sizes (bytes) that hold for every rule."""

    timeout_seconds: Seconds = 600.0
    client_idle_seconds: Seconds = 650.0
    connect_seconds: Seconds = 10.0
    max_request_bytes: Bytes = 100 * 2**20
    max_response_bytes: Bytes = 256 * 2**20


class Rule(Struct, frozen=True, rename="camel", kw_only=True):
    """One listening port and the upstream behind it."""

    listen_port: Annotated[int, Meta(ge=1, le=65535)]
    upstream_url: str
    include_usage: IncludeUsage = "auto"


class Config(Limits, frozen=True, rename="camel", kw_only=True):
    """A whole configuration."""

    rules: Annotated[list[Rule], Meta(min_length=1)]
    shutdown_grace_seconds: Annotated[float, Meta(ge=0)] = 25.0
    workers: Annotated[int, Meta(ge=1, le=64)] = 1


@dataclass(frozen=True)
class UpstreamURL:
    """An upstream's base URL, taken apart.

    ``host`` is without brackets, ``prefix`` the path without its last slash.
    """

    scheme: str
    host: str
    port: int
    prefix: bytes

    @property
    def netloc(self) -> bytes:
        """The host, and the port where it is not the scheme's own (RFC 9110 section 4.2.3)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return (host if self.port == default else f"{host}:{self.port}").encode("ascii")

    @property
    def origin(self) -> str:
        """Scheme, host and port: what errors and the log name."""
        return f"{self.scheme}://{self.netloc.decode('ascii')}"


_PATH = re.compile(r"(/[\x21-\x22\x24-\x3e\x40-\x7e]*)?")


def parse_upstream_url(url: str) -> UpstreamURL:
    """Take a base URL apart.

    :raises ValueError: with a sentence about what is wrong with it.
    """
    url = url.strip()
    if re.search(r"[\x00-\x20\x7f]", url):  # urlsplit would drop line ends, and so change the host
        raise ValueError("must not hold blanks or control characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"is not a valid URL: {error}") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("must start with http:// or https://")
    if not parts.hostname:
        raise ValueError("names no host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or password; clients send their own Authorization")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise ValueError("must not have a query or a fragment")
    if not _PATH.fullmatch(parts.path):
        raise ValueError("has a path with characters that must be percent-encoded")
    try:
        host = parts.hostname if ":" in parts.hostname else parts.hostname.encode("idna").decode("ascii")
    except UnicodeError:
        raise ValueError("names a host that is no valid host name") from None
    if not re.fullmatch(r"[0-9A-Za-z._:%-]+", host):
        raise ValueError("names a host that is no valid host name")
    if port == 0:
        raise ValueError("has the port 0")
    default = 443 if parts.scheme == "https" else 80
    return UpstreamURL(parts.scheme, host, port or default, parts.path.rstrip("/").encode("ascii"))


def load_config(path: Path) -> tuple[Config, list[str]]:
    """Read and check a configuration file.

    :return: the configuration, and a warning for each key that means nothing.
    :raises ConfigError: if it cannot be used.
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
    """The same for the bytes of a file called `name`."""
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
    ports: dict[int, int] = {}
    for index, rule in enumerate(config.rules):
        try:
            parse_upstream_url(rule.upstream_url)
        except ValueError as error:
            raise ConfigError(f"{name}: rules[{index}].upstreamUrl: {error}") from None
        first = ports.setdefault(rule.listen_port, index)
        if first != index:
            taken = f"port {rule.listen_port} is already used by rules[{first}]"
            raise ConfigError(f"{name}: rules[{index}].listenPort: {taken}")
    return config, [f"{name}: {warning}" for warning in _unknown_keys(loaded)]


def _unknown_keys(loaded: dict[str, Any]) -> list[str]:
    warnings = _unknown(loaded, Config, "")
    for index, rule in enumerate(loaded["rules"]):
        warnings += _unknown(rule, Rule, f"rules[{index}].")
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
    """msgspec's message with the place first: ``rules[0].listenPort: expected int, got str``."""
    what, _, place = message.partition(" - at `")
    where = place.rstrip("`").removeprefix("$").lstrip(".")
    missing = re.fullmatch(r"Object missing required field `(\w+)`", what)
    if missing:
        where = f"{where}.{missing[1]}" if where else missing[1]
        what = "is required"
    what = what.replace("`", "")
    what = what[:1].lower() + what[1:]
    return f"{where}: {what}" if where else what


def _json_type(value: object) -> str:
    if value is None:
        return "null"
    names = ((list, "an array"), (str, "a string"), (bool, "a boolean"))
    return next((name for kind, name in names if isinstance(value, kind)), "a number")


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
