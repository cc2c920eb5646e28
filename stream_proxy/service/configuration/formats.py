"""Formats of config files, chosen by the ending of the name: JSON, TOML and YAML."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from typing import Any

from stream_proxy.errors import ConfigError
from stream_proxy.service.configuration.json_syntax import JSONMistake, parse_json, repeated_keys
from stream_proxy.service.configuration.wording import one_line

_TOML_PLACE = re.compile(r"(?s)(?P<problem>.*) \(at (?P<where>.*)\)")
#: YAML's own words for what goes wrong most often, and ours.
_YAML_WORDS = (
    (
        re.compile(r"found character '\\t' that cannot start any token"),
        "YAML is indented with blanks, not tabs",
    ),
    (re.compile(r"could not determine a constructor for the tag .*"), "tags have no meaning here"),
)


def parse(data: bytes, name: str) -> tuple[object, list[str]]:
    """Return what a config file says, in the values that JSON has, and mistakes in how it says that.

    :param name: ends with ``.toml``, ``.yaml`` or ``.yml`` if it is not JSON.
    :raises ConfigError: the file is not what its name says, in one line.
    """
    ending = name.rpartition(".")[2].lower()
    try:
        if ending == "toml":
            return _toml(data.decode("utf-8-sig")), []
        if ending in ("yaml", "yml"):
            return _yaml(data), []
        text = data.decode(json.detect_encoding(data), "surrogatepass")
        return parse_json(text), list(repeated_keys(text))
    except UnicodeDecodeError as error:
        problem = f"is no text in {error.encoding.upper()}: byte {error.start + 1} belongs to nothing"
        raise ConfigError(f"{name}: {problem}; save it as UTF-8") from None
    except (JSONMistake, ValueError) as error:
        raise ConfigError(f"{name}: {one_line(error)}") from None


def _toml(text: str) -> object:
    try:
        return _plain(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        found = _TOML_PLACE.fullmatch(str(error))
        if found is None:
            raise ValueError(f"is not valid TOML: {error}") from None
        problem = found["problem"]
        if problem == "Cannot overwrite a value":
            problem = "a key is set twice"
        raise ValueError(f"{found['where']}: {problem[:1].lower()}{problem[1:]}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def _yaml(data: bytes) -> object:
    try:
        import yaml
    except ModuleNotFoundError:
        raise ValueError(
            "YAML is read by PyYAML, which is not installed: pip install 'openai-stream-proxy[yaml]'; "
            "or write JSON or TOML"
        ) from None
    from stream_proxy.service.configuration.yaml_loader import ConfigLoader

    try:
        return _plain(yaml.load(data, ConfigLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        problem = error.problem or error.context or "is not valid YAML"
        for form, ours in _YAML_WORDS:
            problem = form.sub(ours, problem)
        raise ValueError(where + problem) from None
    except yaml.YAMLError as error:
        raise ValueError(f"is not valid YAML: {error}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def _plain(loaded: object) -> object:
    """Return a value as JSON would have it: dates as texts, keys as texts.

    :raises ValueError: it holds itself.
    """
    text: Callable[[Any], str] = str
    try:
        return json.loads(json.dumps(loaded, default=text))
    except ValueError:
        raise ValueError("holds a part that contains itself") from None
    except (TypeError, RecursionError):
        raise ValueError("holds something that has no place in a config") from None
