"""Trains the tokenizer that ships with mmpack: byte-level BPE on the English text of any Python installation.

    python tools/train_tokenizer.py [--out FILE]

The corpus is the standard library's own prose: the language reference behind `help()`, the docstrings of its
modules, classes and functions, its comments, and its licence and read-me files. Nothing is downloaded. The
files are read in sorted order and repeated lines are dropped, so one Python version always gives one
tokenizer; another version gives a slightly different one. The shipped file was made by Python 3.11.7 with
tokenizers 0.23.3. It is not rebuilt on install: its digest is part of every layout's fingerprint.

Digits are split one by one, so that 1024 is always four tokens. All 256 bytes are ids, so any UTF-8 text
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
SKIPPED = frozenset({"test", "tests", "idlelib", "lib2to3", "site-packages", "__pycache__", "encodings"})
"""Folders of generated tables, test data, and packages that differ between installations."""


def library_files(root: Path) -> list[Path]:
    """The Python sources and plain texts under `root`, in sorted order, without the skipped folders."""
    found = []
    for suffix in ("*.py", "*.txt", "*.rst"):
        found += [path for path in root.rglob(suffix) if not SKIPPED & set(path.relative_to(root).parts)]
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def prose_of_source(source: str) -> Iterator[str]:
    """The docstrings of a Python source, and its comment lines, dedented."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text
    for line in source.splitlines():
        stripped = line.strip()
        if stripped.startswith("# "):
            yield stripped.removeprefix("# ")


def corpus(root: Path) -> list[str]:
    """The distinct lines of all prose under `root`, in the order they are met, without code examples."""
    from pydoc_data.topics import topics

    texts = [inspect.cleandoc(topics[name]) for name in sorted(topics)]
    for path in library_files(root):
        content = path.read_text(encoding="utf-8", errors="replace")
        texts += prose_of_source(content) if path.suffix == ".py" else [content]
    lines = dict.fromkeys(line.strip() for text in texts for line in text.splitlines())
    return [line for line in lines if any(c.isalpha() for c in line) and not line.startswith((">>>", "..."))]


def train(lines: list[str], size: int = VOCABULARY_SIZE) -> Tokenizer:
    """A byte-level BPE tokenizer of at most `size` ids, trained on `lines`."""
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="where to write the tokenizer")
    out: Path = parser.parse_args().out
    lines = corpus(Path(sysconfig.get_path("stdlib")))
    content = train(lines).to_str(pretty=False).encode() + b"\n"
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, out)
    size = sum(len(line) + 1 for line in lines)
    print(f"{out}: {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}")
    print(f"from {size} characters on {len(lines)} lines of Python {platform.python_version()}")


if __name__ == "__main__":
    main()
