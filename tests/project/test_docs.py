"""Documentation: its links lead somewhere, and what it says of the code is true."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.test_architecture import MAY_IMPORT, modules

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
PAGES = [*ROOT.glob("*.md"), *DOCS.glob("*.md"), *(ROOT / "kits").glob("*.md"), *ROOT.glob(".github/**/*.md")]
README_LINES = 220
#: Libraries whose private names ``docs/twisted.md`` lists.
LIBRARIES = ("autobahn", "treq", "twisted", "txaio")


def prose(text: str) -> str:
    """Return a page without its fenced code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def slug(heading: str) -> str:
    """Return the anchor that GitHub and MyST give a heading."""
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page."""
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", prose(page.read_text()), re.M)}


def rows(text: str) -> Iterator[list[str]]:
    """Yield the cells of each row of the tables in `text`."""
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| ---"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


class LinkTests(TestCase):
    """Links between pages, and from pages to files."""

    def test_links(self) -> None:
        """Each relative link names a file that exists, and each anchor a heading."""
        wrong = []
        for page in PAGES:
            for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
                if re.match(r"[a-z]+:", target):
                    continue
                name, _, anchor = target.partition("#")
                file = (page.parent / name).resolve() if name else page
                if not file.is_file() or (anchor and anchor not in anchors(file)):
                    wrong.append(f"{page.relative_to(ROOT)}: {target}")
        self.assertEqual(wrong, [])

    def test_contents(self) -> None:
        """The README leads to every page, and is short."""
        text = (ROOT / "README.md").read_text()
        linked = {
            (ROOT / target.partition("#")[0]).resolve() for target in re.findall(r"\]\(([^)]+)\)", text)
        }
        built = {DOCS / "api.md"}
        pages = {*DOCS.glob("*.md"), *ROOT.glob("*.md")} - {ROOT / "README.md"} - built
        self.assertEqual(pages - linked, set())
        self.assertLessEqual(len(text.splitlines()), README_LINES)

    def test_paths(self) -> None:
        """Each source file that a page names in code exists."""
        wrong = []
        for page in PAGES:
            places = [ROOT, ROOT / "stream_proxy", page.parent]
            for name in re.findall(r"`([\w./]+\.py|[\w/]+/)`", prose(page.read_text())):
                if not name.startswith("/") and not any((place / name).exists() for place in places):
                    wrong.append(f"{page.relative_to(ROOT)}: {name}")
        self.assertEqual(wrong, [])

    def test_tests(self) -> None:
        """Each test module that a page names exists."""
        wrong = []
        for page in PAGES:
            for name in re.findall(r"\btests(?:\.\w+)+", page.read_text()):
                path = ROOT / name.replace(".", "/")
                if not (path.is_dir() or path.with_suffix(".py").is_file()):
                    wrong.append(f"{page.relative_to(ROOT)}: {name}")
        self.assertEqual(wrong, [])


class ArchitectureTests(TestCase):
    """``docs/architecture.md``."""

    def setUp(self) -> None:
        self.text = (DOCS / "architecture.md").read_text()

    def test_arrows(self) -> None:
        """The diagram has the arrows of the import table, without those that follow from others."""
        diagram = re.search(r"```mermaid\nflowchart TD\n(.*?)```", self.text, re.S)
        assert diagram is not None
        drawn = set(re.findall(r"^ *(\w+) --> (\w+)$", diagram[1], re.M))
        rooms = {room: targets for room, targets in MAY_IMPORT.items() if room != "__main__"}
        table = {(room, target) for room, targets in rooms.items() for target in targets}
        follows = {(room, far) for room, near in table for start, far in table if start == near}
        self.assertEqual(drawn, table - follows)

    def test_rooms(self) -> None:
        """The table of rooms has each package once."""
        packages = {room for room in MAY_IMPORT if (ROOT / "stream_proxy" / room).is_dir()}
        section = self.text.partition("## Rooms")[2].partition("\n## ")[0]
        self.assertEqual(
            sorted(cells[0].strip("`") for cells in rows(section) if "`" in cells[0]), sorted(packages)
        )

    def test_classes(self) -> None:
        """Each class that the page names is one of the package, or of Twisted."""
        known = set()
        for path in modules().values():
            known |= {
                node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)
            }
        named = set(re.findall(r"`([A-Z][a-z]\w*[A-Z]\w*|Call|Route|Attempt|Drain|Side|Session)`", self.text))
        participants = set(re.findall(r"participant \w+ as (\w+)", self.text))
        self.assertEqual((named | participants) - known, set())


class TroubleshootingTests(TestCase):
    """``docs/troubleshooting.md``."""

    def test_messages(self) -> None:
        """The messages of the proxy that the page explains are in its code."""
        text = (DOCS / "troubleshooting.md").read_text()
        sections = text.partition("## Responses of the proxy")[2].partition("## Symptoms")[0]
        said = " ".join(_texts())
        quoted = [piece for cells in rows(sections) for piece in re.findall(r"`([^`]+)`", cells[0])]
        ours = [piece for piece in quoted if "PID" not in piece and piece != "Address already in use"]
        self.assertGreater(len(ours), 20)
        self.assertEqual([piece for piece in ours if piece not in said], [])


class TwistedTests(TestCase):
    """``docs/twisted.md``."""

    def setUp(self) -> None:
        self.text = (DOCS / "twisted.md").read_text()
        self.named = set(re.findall(r"`(_[a-z]\w*)`", self.text, re.I)) | {
            name for name in re.findall(r"`(\w+)`", self.text) if name.startswith("_")
        }

    def test_listed_are_used(self) -> None:
        """Each private name on the page is in the code."""
        code = "\n".join(path.read_text() for path in modules().values())
        internals = {"_newclient", "_sslverify"}
        unused = {name for name in self.named - internals if not re.search(rf"\b{name}\b", code)}
        self.assertEqual(unused - {"_WrappingFactory"}, set())  # only left to the cycle collector

    def test_used_are_listed(self) -> None:
        """Each private name of Twisted or autobahn in the code is on the page."""
        self.assertEqual(_borrowed() - self.named, set())

    def test_tests(self) -> None:
        """Each test that the page names exists, and each test of a private name is on the page."""
        tests = set(re.findall(r"def (test_\w+)", (ROOT / "tests/project/test_twisted.py").read_text()))
        self.assertEqual(set(re.findall(r"`(test_\w+)`", self.text)), tests)


def _texts() -> Iterator[str]:
    """Yield every text in the package's code; a field of an f-string splits it."""
    for path in modules().values():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def _borrowed() -> set[str]:
    """Return the private names of other libraries that the package imports, overrides or reads."""
    found = set()
    own: set[str] = set()
    read: set[str] = set()
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.ImportFrom(module=str(module)) if module.startswith(LIBRARIES):
                    found |= {alias.name for alias in node.names if alias.name.startswith("_")}
                case ast.Attribute(attr=attr, ctx=ast.Store()):
                    own.add(attr)
                case ast.Attribute(attr=attr, value=value) if attr.startswith("_") and attr != "__class__":
                    if ast.unparse(value) not in ("hashlib", "super()"):
                        read.add(attr)
                case ast.FunctionDef(name=attr) | ast.AsyncFunctionDef(name=attr) | ast.Name(id=attr):
                    own.add(attr)
        found |= _overridden(f"stream_proxy.{name}" if name else "stream_proxy")
    return found | {each for each in read - own if not each.startswith("__")}


def _overridden(module: str) -> set[str]:
    """Return the private names of other libraries' classes that classes in `module` override."""
    found = set()
    for _, cls in inspect.getmembers(importlib.import_module(module), inspect.isclass):
        if cls.__module__ == module:
            bases = [base for base in cls.__mro__[1:] if base.__module__.startswith(LIBRARIES)]
            private = {name for name in vars(cls) if re.match(r"_[a-z]", name)}
            found |= {name for base in bases for name in private & set(vars(base))}
    return found
