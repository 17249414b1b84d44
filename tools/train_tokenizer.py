"""Trains the tokenizer that ships with mmpack: byte-level BPE on the English text of any Python installation.

    python tools/train_tokenizer.py [--out FILE]

The corpus is the prose of the standard library: the language reference that `help()` shows, the docstrings of modules,
classes and functions, the comments, and the licence and readme files. Nothing is downloaded. Files are read in sorted order
and repeated lines are removed, so one Python version always gives the same tokenizer; another version gives a slightly
different one. The shipped file was made with Python 3.11.7 and tokenizers 0.23.3. It is not rebuilt on installation, because
its digest is part of the fingerprint of every token layout.

Every digit is a separate token, so 1024 is always four tokens. Each of the 256 bytes has an id, so every UTF-8 text
round-trips.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import inspect
import os
import platform
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY_SIZE = 8192
DEFAULT_OUT = Path(__file__).parents[1] / "mmpack" / "layout" / "data" / "tokenizer.json"
EXCLUDED_FOLDERS = frozenset(
    {"test", "tests", "idlelib", "lib2to3", "site-packages", "__pycache__", "encodings"}
)
"""Names of folders with generated tables, test data, and packages that differ between installations."""


def list_library_files(root: Path) -> list[Path]:
    """Lists the Python sources and plain texts under `root` in sorted order, without the excluded folders."""
    paths = []
    for suffix in ("*.py", "*.txt", "*.rst"):
        paths += [
            path for path in root.rglob(suffix) if not EXCLUDED_FOLDERS & set(path.relative_to(root).parts)
        ]
    return sorted(paths, key=lambda path: path.relative_to(root).as_posix())


def extract_prose(source: str) -> Iterator[str]:
    """Yields the docstrings of a Python source, then its comment lines, dedented."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text
    for line in source.splitlines():
        stripped = line.strip()
        if stripped.startswith("# "):
            yield stripped.removeprefix("# ")


def collect_lines(root: Path) -> list[str]:
    """Collects the distinct lines of all prose under `root`, in order of first occurrence, without code examples."""
    from pydoc_data.topics import topics

    texts = [inspect.cleandoc(topics[name]) for name in sorted(topics)]
    for path in list_library_files(root):
        content = path.read_text(encoding="utf-8", errors="replace")
        texts += extract_prose(content) if path.suffix == ".py" else [content]
    lines = dict.fromkeys(line.strip() for text in texts for line in text.splitlines())
    return [line for line in lines if any(c.isalpha() for c in line) and not line.startswith((">>>", "..."))]


def train_bpe(lines: list[str], size: int = VOCABULARY_SIZE) -> Tokenizer:
    """Trains a byte-level BPE tokenizer of at most `size` ids on `lines`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def main() -> None:
    """Trains the tokenizer and writes it to the file that is given by --out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="file for the tokenizer")
    out: Path = parser.parse_args().out
    lines = collect_lines(Path(sysconfig.get_path("stdlib")))
    content = train_bpe(lines).to_str(pretty=False).encode() + b"\n"
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, out)
    size = sum(len(line) + 1 for line in lines)
    print(f"{out}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")
    print(f"from {size} characters on {len(lines)} lines of Python {platform.python_version()}")


if __name__ == "__main__":
    main()
