"""Config files: reading them, and all that is wrong with one."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from stream_proxy.errors import ConfigError
from stream_proxy.service.configuration.checks import check_admin, check_rules, exposed
from stream_proxy.service.configuration.formats import parse
from stream_proxy.service.configuration.shape import Mistake, ShapeCheck
from stream_proxy.service.configuration.types import Admin, Config, Rule
from stream_proxy.service.configuration.wording import one_line, shown

_Struct = TypeVar("_Struct", Rule, Admin)
_RULE = re.compile(r"rules\[(\d+)\]")


def load_config(path: Path) -> tuple[Config, list[str]]:
    """Read and check a configuration file.

    :return: the configuration, and a warning for each key file that everyone can read.
    :raises ConfigError: it cannot be used; with a line for each mistake.
    """
    try:
        with open(path, "rb", opener=_open) as file:
            os.set_blocking(file.fileno(), True)
            data = file.read()
    except FileNotFoundError:
        raise ConfigError(f"{path}: the config file does not exist") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a directory, not a config file") from None
    except OSError as error:
        raise ConfigError(f"{path}: the config file cannot be read: {error.strerror}") from None
    return parse_config(data, str(path))


def _open(path: str, flags: int) -> int:
    """Open a file without waiting for the writer of a named pipe, which would hold up a reload for good."""
    return os.open(path, flags | os.O_NONBLOCK)


def parse_config(data: bytes, name: str) -> tuple[Config, list[str]]:
    """Check the content of a configuration file called `name`; see :func:`load_config`."""
    if not data.strip():
        raise ConfigError(f"{name}: the config file is empty; it must hold an object with rules")
    loaded, repeated = parse(data, name)
    if not isinstance(loaded, dict):
        raise ConfigError(f"{name}: must hold an object with rules, not {shown(loaded)}")
    config = check_config(loaded, lambda key: f"{name}: {key}", [f"{name}: {line}" for line in repeated])
    return config, [f"{name}: {warning}" for warning in exposed(config.rules, config.admin)]


def check_config(
    loaded: Mapping[str, object], named: Callable[[str], str], known: Sequence[str] = ()
) -> Config:
    """Return the configuration that a mapping describes.

    :param named: returns the name that errors give to a key.
    :param known: the lines of mistakes that have been found already.
    :raises ConfigError: with a line for each mistake.
    """
    shape = ShapeCheck(Config)
    read = shape.read(loaded)
    mistakes = [*shape.mistakes, *_beyond(read, shape.unknown)]
    if not mistakes and not known:
        return msgspec.convert(read, Config)
    lines = (one_line(f"{named(key)}: {problem}") for key, problem in sorted(mistakes, key=_order))
    raise ConfigError("\n".join([*known, *lines]))


def _beyond(read: Mapping[str, object], unknown: set[str]) -> list[Mistake]:
    """Return the mistakes beyond the types, in what is known of a configuration."""
    taken: dict[int, str] = {}
    rules = read.get("rules")
    known = [
        (f"rules[{index}]", _built(each, Rule, {"upstreamUrl": ""}), _below(f"rules[{index}]", unknown))
        for index, each in enumerate(rules if isinstance(rules, list) else ())
    ]
    mistakes = [*check_rules([(place, rule, keys) for place, rule, keys in known if rule is not None], taken)]
    admin = _built(read.get("admin"), Admin, {"listenPort": 1})
    captures = read.get("capture") is not None
    if admin is not None:
        mistakes += check_admin(admin, _below("admin", unknown), captures, taken)
    elif captures and "admin" not in unknown:
        mistakes.append(Mistake("capture", "needs an admin port, where it is looked at"))
    return mistakes


def _built(value: object, struct: type[_Struct], instead: dict[str, object]) -> _Struct | None:
    """Return a struct of what is known of it; `instead` stands for required keys of which nothing is."""
    return msgspec.convert({**instead, **value}, struct) if isinstance(value, dict) else None


def _below(place: str, unknown: set[str]) -> set[str]:
    """Return the keys directly below `place` with something in them of which nothing is known."""
    start = f"{place}."
    return {re.split(r"[.\[]", key.removeprefix(start))[0] for key in unknown if key.startswith(start)}


def _order(mistake: Mistake) -> tuple[int, int]:
    """Return where a mistake is told: those of the top level first, then those of each rule."""
    found = _RULE.match(mistake.key)
    return (0, 0) if found is None else (1, int(found[1]))
