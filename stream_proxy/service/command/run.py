"""Command line of ``openai-stream-proxy``: ``twistd`` in the foreground, and what needs no ``twistd``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from twisted.application.service import ServiceMaker
from twisted.python import usage
from twisted.python.reflect import namedModule
from twisted.scripts import twistd

from stream_proxy.errors import ConfigError
from stream_proxy.service import tap
from stream_proxy.service.command.check import check_listening
from stream_proxy.service.command.sources import chosen
from stream_proxy.service.configuration.printing import every_key
from stream_proxy.service.configuration.schema import schema

_PROGRAM = "openai-stream-proxy"
#: Commands beside the proxy itself: the module of the plugin, and its name.
_OTHERS = {
    "adapter": ("stream_proxy.service.adapter_tap", "openai-stream-adapter"),
    "mock": ("stream_proxy.mock.tap", "openai-stream-mock"),
}


class Options(tap.Options):
    """Options of the command: those of the plugin, and some that serve nothing."""

    synopsis = "\n       ".join(
        (
            f"Usage: {_PROGRAM} [-c FILE]",
            f"{_PROGRAM} --upstream URL [--port N] [--host H]",
            f"{_PROGRAM} --demo [--port N]",
            f"{_PROGRAM} (adapter | mock) [options]",
        )
    )
    optFlags = [
        ["check", None, "Name all mistakes of the configuration; open no port. The status is 0 or 1."],
        ["schema", None, "Print the JSON Schema of the config file."],
        ["print-config", None, "Print all keys with their values, secrets blanked."],
    ]


def run(arguments: Sequence[str]) -> int:
    """Run the command, and return its exit status; a signal that ends the service ends the process."""
    name, *rest = arguments or ("",)
    if name in _OTHERS:
        return _serve(*_OTHERS[name], f"{_PROGRAM} {name}", rest)
    options = Options()
    if (status := _parse(options, _PROGRAM, arguments)) is not None:
        return status
    if options["schema"]:
        print(json.dumps(schema(), indent=2))
        return 0
    if options["check"] or options["print-config"]:
        return _inspect(options)
    return _serve("stream_proxy.service.tap", "openai-stream-proxy", _PROGRAM, arguments)


def _parse(options: usage.Options, program: str, arguments: Sequence[str]) -> int | None:
    """Parse arguments; return the exit status if they are wrong."""
    try:
        options.parseOptions(list(arguments))
    except usage.UsageError as error:
        print(f"{program}: {error}; see {program} --help", file=sys.stderr)
        return 2
    return None


def _inspect(options: Options) -> int:
    """Check the configuration, and print it if that is asked for."""
    try:
        if options["demo"]:
            raise ConfigError("--demo has no config that could be looked at")
        source = chosen(options, os.environ)
        check_listening(source.config, source.named)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    for warning in source.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if options["print-config"]:
        print(json.dumps(every_key(source.config), indent=2, ensure_ascii=False))
    else:
        rules = len(source.config.rules)
        print(f"{source.name}: {rules} rule{'s' if rules > 1 else ''}, no mistake")
    return 0


class _Twistd(twistd.ServerOptions):  # type: ignore[name-defined,misc]
    """Options of ``twistd`` that know one plugin, without a search for all."""

    def __init__(self, maker: ServiceMaker) -> None:
        super().__init__()
        self.loadedPlugins = {maker.tapname: maker}

    @property
    def subCommands(self) -> Iterator[tuple[str, None, object, str]]:
        for name, maker in self.loadedPlugins.items():
            yield name, None, maker.options, maker.description


def _serve(module: str, plugin: str, program: str, arguments: Sequence[str]) -> int:
    """Serve in the foreground until a signal comes."""
    own: Any = namedModule(module).Options()
    own.synopsis = f"Usage: {program} [options]"
    if (status := _parse(own, program, arguments)) is not None:
        return status
    options = _Twistd(ServiceMaker(plugin, module, "", plugin))
    options.parseOptions(["--nodaemon", "--pidfile=", plugin, *arguments])
    twistd.runApp(options)
    return 0
