"""Real texts that are on every machine: docstrings and definitions of the Python standard library.

Their lengths are spread as those of documents are, near log-normal from a line to a long page.
"""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

# Tests and tables of characters are no prose, and the last two folders are not the library's own.
_EXCLUDED_MODULES = frozenset(
    {"test", "tests", "idle_test", "encodings", "lib2to3", "turtledemo", "site-packages", "dist-packages"}
)
_MIN_CHARACTERS = 80
_MAX_CHARACTERS = 12_000


def standard_library_texts(most: int) -> list[tuple[str, str]]:
    """(where, text) of up to `most` texts, 80 to 12,000 characters each, no text twice.

    Docstrings stand as they read, definitions as they are written. Of more than `most` every so many-th is taken; a
    Python version always gives the same.
    """
    texts = _library()
    if len(texts) <= most:
        return texts
    return [texts[number * len(texts) // most] for number in range(most)]


@cache
def _library() -> list[tuple[str, str]]:
    root = Path(sysconfig.get_path("stdlib"))
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if _EXCLUDED_MODULES.isdisjoint(parts):
            for name, text in _texts(path):
                if _MIN_CHARACTERS <= len(text) <= _MAX_CHARACTERS:
                    found.setdefault(text, f"{'/'.join(parts)}:{name}")
    return sorted((where, text) for text, where in found.items())


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of the docstrings and of the top-level definitions of one module; none if it is not Python 3."""
    try:
        source = path.read_text("utf-8")
        module = ast.parse(source)
    except (SyntaxError, UnicodeDecodeError):
        return
    for node in ast.walk(module):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield getattr(node, "name", "module"), docstring
    lines = source.splitlines()
    for node in module.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{node.name} (source)", "\n".join(lines[node.lineno - 1 : node.end_lineno])
