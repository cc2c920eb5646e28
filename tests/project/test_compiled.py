"""Table of the modules that the compiled wheel compiles."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent.parent


class CompiledTests(SynchronousTestCase):
    """``[tool.openai-stream-proxy]`` in pyproject.toml."""

    def setUp(self) -> None:
        table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["openai-stream-proxy"]
        self.patterns: list[str] = table["compiled"]
        self.interpreted = {ROOT / name for name in table["interpreted"]}

    def test_exist(self) -> None:
        """Each entry names modules that exist, and each exception is one of these."""
        found = {pattern: set(ROOT.glob(pattern)) for pattern in self.patterns}
        self.assertEqual([pattern for pattern, paths in found.items() if not paths], [])
        self.assertLessEqual(self.interpreted, set[Path]().union(*found.values()))

    def test_classes(self) -> None:
        """No class of them is one that mypyc cannot compile: a Struct, or an implementer of an interface."""
        for path in {path for pattern in self.patterns for path in ROOT.glob(pattern)} - self.interpreted:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    used = (*node.bases, *node.decorator_list)
                    names = {ast.unparse(each).partition("(")[0].rpartition(".")[2] for each in used}
                    self.assertEqual(names & {"Struct", "implementer"}, set(), (path, node.name))
