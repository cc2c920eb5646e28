"""What a configuration says of the capture, and the secrets that no capture may hold."""

from __future__ import annotations

from typing import TypedDict
from urllib.parse import unquote, urlsplit

from stream_proxy.adapter.dialect import Dialect
from stream_proxy.errors import ConfigError
from stream_proxy.observe.capture.capture import MEGABYTES
from stream_proxy.service.configuration.types import Config, Rule


class CaptureOptions(TypedDict):
    """Arguments of a :class:`~stream_proxy.observe.capture.capture.Capture`."""

    always: bool
    megabytes: float
    bodies: bool
    secrets: list[bytes]


def capture_options(config: Config) -> CaptureOptions:
    """Return the options of the capture of one process, which has its share of the memory.

    :raises ConfigError: a key cannot be read.
    """
    given = config.capture
    megabytes = MEGABYTES if given is None else given.megabytes
    return CaptureOptions(
        # Without an admin port nobody could see it.
        always=given is not None and config.admin is not None,
        megabytes=megabytes / config.workers,
        bodies=given is None or given.bodies,
        secrets=[] if config.admin is None else known_secrets(config),
    )


def known_secrets(config: Config) -> list[bytes]:
    """Return every key that a configuration names.

    :raises ConfigError: a key cannot be read.
    """
    sources = [rule.client_keys for rule in config.rules] + [rule.upstream_key for rule in config.rules]
    sources.append(config.admin.key if config.admin is not None else None)
    try:
        found = [key for source in sources if source is not None for key in source.read()]
        found += [
            key for rule in config.rules if rule.request_headers for key in rule.request_headers.read().keys
        ]
        return found + [text.encode() for rule in config.rules for text in _texts(rule)]
    except ValueError as error:  # the configuration was valid, but files may have changed since
        raise ConfigError(f"a key cannot be read any more: {error}") from None


def _texts(rule: Rule) -> list[str]:
    texts = [] if rule.adapter is None else Dialect(rule.upstream_url, rule.adapter).secrets
    password = urlsplit(rule.proxy or "").password
    return [*texts, *([] if password is None else {password, unquote(password)})]
