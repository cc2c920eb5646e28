"""The floor plan holds: which package may import which, what is sans-I/O, and how large a room may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.support.measure import Measures, measure

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "stream_proxy"

#: Modules at the top that every package may import.
GROUND = {
    "environment",
    "error_codes",
    "errors",
    "lenient_json",
    "limits",
    "request_log",
    "json_bounds",
    "printable",
    "json_reader",
    "json_steps",
}
#: Which packages each may import, besides the ground and itself.
MAY_IMPORT: dict[str, set[str]] = {
    "__main__": {"service"},
    "environment": set(),
    "error_codes": set(),
    "errors": set(),
    "lenient_json": set(),
    "limits": set(),
    "request_log": set(),
    "printable": set(),
    "json_bounds": set(),
    "json_reader": set(),
    "json_steps": set(),
    "aggregate": set(),
    "http": set(),
    "transport": set(),
    "observe": {"http"},
    "waiting": {"http"},
    "downstream": {"http", "observe", "transport"},
    "upstream": {"http", "transport"},
    "websocket": {"downstream", "http", "transport", "upstream"},
    "flows": {"aggregate", "downstream", "http", "observe", "transport", "upstream", "waiting", "websocket"},
    "adapter": {"aggregate", "downstream", "flows", "http", "observe", "transport", "upstream"},
    "mock": {"http", "observe", "transport"},
    "service": {"adapter", "downstream", "flows", "http", "mock", "observe", "transport", "upstream"},
}
#: Packages and modules that do no I/O: they import neither Twisted nor what is built on it.
SANS_IO = {
    "adapter.chat_request",
    "adapter.chunks",
    "adapter.config",
    "adapter.dialect",
    "adapter.expressions",
    "adapter.helpers",
    "adapter.payloads",
    "adapter.reader",
    "adapter.reading",
    "adapter.service_error",
    "adapter.shapes",
    "adapter.template",
    "adapter.texts",
    "adapter.translation",
    "aggregate",
    "environment",
    "error_codes",
    "errors",
    "flows.conversion.aggregation",
    "flows.conversion.call",
    "flows.conversion.fallbacks",
    "flows.conversion.refusals",
    "flows.conversion.inspection",
    "http",
    "lenient_json",
    "limits",
    "json_bounds",
    "observe",
    "waiting",
    "printable",
    "json_reader",
    "json_steps",
    "upstream.egress",
    "upstream.http1",
    "websocket.frames",
    "websocket.handshake_rules",
    "websocket.response_head",
}
_IO = ("autobahn", "treq", "twisted", "txaio")

#: Modules a folder, besides ``__init__``.
MOST_MODULES = 16
#: Packages whose modules may be larger: both legs of the data path, written for speed.
LARGER = ("upstream",)
#: Uses of ``Any`` for each 1,000 lines.
MOST_ANY = 10


def modules() -> dict[str, Path]:
    """Every module of the package by its name below ``stream_proxy``; the package itself is ``""``."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(path: Path) -> list[str]:
    """Return all that a module imports, under TYPE_CHECKING and inside functions as well."""
    return list(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None, f"{path}: relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def inner(name: str, known: dict[str, Path]) -> str | None:
    """Return the module of ours that an imported `name` is, or is in."""
    if not name.startswith("stream_proxy."):
        return None
    parts = name.split(".")[1:]
    while parts and ".".join(parts) not in known:
        parts.pop()
    return ".".join(parts)


@cache
def measured() -> Measures:
    """Return the measures of the package."""
    return measure(PACKAGE)


class ArchitectureTests(TestCase):
    """Rules that no reader has to check."""

    def setUp(self) -> None:
        self.modules = modules()
        self.graph = {
            name: {found for each in imports(path) if (found := inner(each, self.modules))} - {name}
            for name, path in self.modules.items()
        }

    def test_arrows(self) -> None:
        """A package imports only what the table lets it import."""
        wrong = []
        for name, targets in self.graph.items():
            package = name.partition(".")[0]
            if not package:  # the public names lead everywhere
                continue
            allowed = MAY_IMPORT[package] | GROUND | {package}
            wrong += [f"{name} -> {each}" for each in targets if each.partition(".")[0] not in allowed]
        self.assertEqual(wrong, [])

    def test_no_circle(self) -> None:
        """No module leads back to itself, through whatever others."""
        done: set[str] = set()

        def visit(name: str, path: tuple[str, ...]) -> None:
            self.assertNotIn(name, path, " -> ".join((*path, name)))
            if name not in done:
                for each in sorted(self.graph[name]):
                    visit(each, (*path, name))
                done.add(name)

        for name in sorted(self.graph):
            if name:
                visit(name, ())

    def test_sans_io(self) -> None:
        """Nothing sans-I/O imports Twisted, or a module of ours that may."""
        wrong = []
        for name in self.modules:
            if not self._is_sans_io(name):
                continue
            wrong += [f"{name} -> {each}" for each in imports(self.modules[name]) if each.startswith(_IO)]
            wrong += [f"{name} -> {each}" for each in self.graph[name] if not self._is_sans_io(each)]
        self.assertEqual(wrong, [])

    def _is_sans_io(self, name: str) -> bool:
        return name in SANS_IO or any(name.startswith(f"{each}.") for each in SANS_IO)

    def test_tables(self) -> None:
        """The tables name what exists, and all of it."""
        self.assertEqual({name.partition(".")[0] for name in self.modules} - {""}, set(MAY_IMPORT))
        self.assertEqual(SANS_IO - set(self.modules), set())
        self.assertLessEqual(GROUND, set(self.modules))

    def test_rooms(self) -> None:
        """No folder has too many modules."""
        folders: dict[Path, int] = {}
        for path in self.modules.values():
            if path.name != "__init__.py":
                folders[path.parent] = folders.get(path.parent, 0) + 1
        self.assertEqual({str(each): count for each, count in folders.items() if count > MOST_MODULES}, {})

    def test_sizes(self) -> None:
        """No module, class or list of parameters is too large to be read at once."""
        beyond = measured().beyond()
        larger = tuple(str(PACKAGE / name) for name in LARGER)
        self.assertEqual([each for each in beyond if not each[2].startswith(larger)], [])

    def test_any(self) -> None:
        """Types say what they mean."""
        found = measured()
        self.assertLess(1000 * found.any_words / found.lines, MOST_ANY)
