"""Real texts that exist on every machine: docstrings and definitions of the Python standard library.

Their lengths are distributed like those of documents: nearly log-normal, from one line to a long page.
"""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

# Tests and character tables are not prose, and the last two folders do not belong to the standard library.
_EXCLUDED_MODULES = frozenset(
    {"test", "tests", "idle_test", "encodings", "lib2to3", "turtledemo", "site-packages", "dist-packages"}
)
_MIN_CHARACTERS = 80
_MAX_CHARACTERS = 12_000


def standard_library_texts(max_texts: int) -> list[tuple[str, str]]:
    """Returns (source, text) of at most `max_texts` different texts of 80 to 12,000 characters.

    Docstrings are dedented, definitions are unchanged source text. If there are more texts, `max_texts` of them are taken at
    equal distances. The result is always the same for one Python version.
    """
    texts = _all_texts()
    if len(texts) <= max_texts:
        return texts
    return [texts[index * len(texts) // max_texts] for index in range(max_texts)]


@cache
def _all_texts() -> list[tuple[str, str]]:
    root = Path(sysconfig.get_path("stdlib"))
    sources: dict[str, str] = {}  # by text
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if _EXCLUDED_MODULES.isdisjoint(parts):
            for name, text in _texts_of_module(path):
                if _MIN_CHARACTERS <= len(text) <= _MAX_CHARACTERS:
                    sources.setdefault(text, f"{'/'.join(parts)}:{name}")
    return sorted((source, text) for text, source in sources.items())


def _texts_of_module(path: Path) -> Iterator[tuple[str, str]]:
    """Yields (name, text) of the docstrings and top-level definitions of a module; nothing if it is not valid Python 3."""
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
