"""Measures of the code: ``python -m tests.support.measure [--worst] [FOLDER ...]``.

Lines of code leave out blanks, comments and docstrings, so that two checkouts can be compared.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_NOT_CODE = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
_Function = ast.FunctionDef | ast.AsyncFunctionDef

#: The largest sizes of what a reader has to hold in mind at once.
BOUNDS = {"lines a module": 300, "lines a class": 200, "attributes a class": 12, "parameters a function": 6}


@dataclass
class Measures:
    """Counts over some modules; ``sizes`` has a count and a place for everything that has a bound."""

    modules: int = 0
    lines: int = 0
    code: int = 0
    comments: int = 0
    docstrings: int = 0
    functions: int = 0
    any_words: int = 0
    sizes: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: {name: [] for name in BOUNDS})

    def beyond(self) -> Iterator[tuple[str, int, str]]:
        """Yield what is beyond a bound: its name, the count and the place, the largest first."""
        for name, most in BOUNDS.items():
            for count, place in sorted(self.sizes[name], reverse=True):
                if count > most:
                    yield name, count, place


def measure(*folders: str | Path) -> Measures:
    """Measure all modules below `folders`."""
    found = Measures()
    for folder in folders:
        for path in sorted(Path(folder).rglob("*.py")):
            _add(found, path)
    return found


def _add(found: Measures, path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    docstrings = set(_docstring_lines(tree))
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            found.comments += 1
        elif token.type not in _NOT_CODE:
            code |= set(range(token.start[0], token.end[0] + 1))
    lines = len(text.splitlines())
    found.modules += 1
    found.lines += lines
    found.code += len(code - docstrings)
    found.docstrings += len(docstrings)
    found.sizes["lines a module"].append((lines, str(path)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "Any":
            found.any_words += 1
        elif isinstance(node, ast.ClassDef):
            place = f"{path}:{node.name}"
            found.sizes["lines a class"].append(((node.end_lineno or 0) - node.lineno + 1, place))
            found.sizes["attributes a class"].append((len(set(_attributes(node))), place))
        elif isinstance(node, _Function):
            found.functions += 1
            found.sizes["parameters a function"].append((_parameters(node), f"{path}:{node.name}"))


def _docstring_lines(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | _Function) and ast.get_docstring(node) is not None:
            yield from range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)


def _attributes(node: ast.ClassDef) -> Iterator[str]:
    """Yield the attributes that a class sets on its instances."""
    for each in ast.walk(node):
        if (
            isinstance(each, ast.Attribute)
            and isinstance(each.ctx, ast.Store)
            and isinstance(each.value, ast.Name)
            and each.value.id == "self"
        ):
            yield each.attr


def _parameters(node: _Function) -> int:
    """Count parameters besides ``self``, without the keyword-only ones of public functions."""
    names = [each.arg for each in (*node.args.posonlyargs, *node.args.args)]
    count = len(names) - (names[:1] in (["self"], ["cls"]))
    public = not node.name.startswith("_") or node.name == "__init__"
    return count if public else count + len(node.args.kwonlyargs)


def main(arguments: list[str]) -> None:
    """Print what is counted."""
    folders = [each for each in arguments if not each.startswith("-")] or ["stream_proxy"]
    found = measure(*folders)
    print(
        f"{found.modules} modules, {found.lines} lines: {found.code} of code, {found.comments} comments, "
        f"{found.docstrings} in docstrings"
    )
    share = 1000 * found.any_words / found.lines
    print(f"{found.functions} functions; Any {found.any_words}, {share:.1f} for 1,000 lines")
    if "--worst" in arguments:
        for name, count, place in found.beyond():
            print(f"{count} {name}, over {BOUNDS[name]}: {place}")


if __name__ == "__main__":
    main(sys.argv[1:])
