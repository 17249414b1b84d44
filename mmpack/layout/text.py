"""`[layout.text]`: text to ids and back, by a `tokenizers` JSON file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import ConfigError, DataError, MissingDependencyError, MmpackError
from mmpack.settings import Settings

if TYPE_CHECKING:
    import tokenizers

BUILTIN_TOKENIZER = "builtin"
"""Name of the tokenizer of the package: byte-level BPE, 8,192 ids, trained by `tools/train_tokenizer.py`."""

MAX_FILE_BYTES = 64 << 20
"""Largest tokenizer file that is read. The largest files in use have about 40 MB."""

_MAX_IDS = 1 << 24
# The tokenizer keeps all encodings of one call in memory; this limit bounds them to about 100 MB.
_BATCH_CHARACTERS = 1 << 20


class TextLayout(Settings, frozen=True, kw_only=True):
    """The `[layout.text]` table."""

    tokenizer: str = BUILTIN_TOKENIZER
    """`builtin`, or the path of a `tokenizers` JSON file. Relative paths start at the working directory."""


class Tokenizer:
    """A loaded tokenizer file.

    Special tokens, truncation and padding of the file are switched off: the ids of a text represent the text only, and
    a text that contains the name of a special token is still text.

    Args:
        source: `builtin`, or the path of a `tokenizers` JSON file.

    Raises:
        ConfigError: the file is missing, too large, or not a tokenizer.
        MissingDependencyError: the package `tokenizers` is not installed.
    """

    def __init__(self, source: str = BUILTIN_TOKENIZER) -> None:
        self.source = source
        content = _read(source)
        self.digest = hashlib.sha256(content).hexdigest()
        """Hexadecimal sha256 of the bytes of the file."""
        self._backend = _parse(content, source)
        self.size = max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        """Largest id plus one."""
        if not 0 < self.size <= _MAX_IDS:
            raise ConfigError(f"the tokenizer has {self.size} ids, not 1 to {_MAX_IDS}", where=source)

    def encode(self, text: str) -> NDArray[np.int32]:
        """Returns the ids of `text`: int32 (n,), each in [0, size).

        Raises:
            DataError: `text` contains half a surrogate pair, or the tokenizer fails on it.
        """
        return np.array(self._encode_batch([text])[0].ids, dtype=np.int32)

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        """Returns the text of `ids`. For byte-level tokenizers, as the built-in one, `decode(encode(text)) == text`."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=False)

    def count_batch(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Returns the number of tokens of each text: int64 (len(texts),). `tokenizers` chooses the number of threads.

        Raises:
            DataError: a text contains half a surrogate pair, or the tokenizer fails on it.
        """
        counts = np.zeros(len(texts), dtype=np.int64)
        start = 0
        while start < len(texts):
            stop, characters = start, 0
            while stop < len(texts) and (stop == start or characters + len(texts[stop]) <= _BATCH_CHARACTERS):
                characters += len(texts[stop])
                stop += 1
            counts[start:stop] = [len(encoding) for encoding in self._encode_batch(texts[start:stop])]
            start = stop
        return counts

    def token_text(self, token_id: int) -> str:
        """Returns the text of one id, or the spelling of the tokenizer if the id is only a part of a character."""
        text = self.decode([token_id])
        if text and "\ufffd" not in text:
            return text
        return self._backend.id_to_token(token_id) or f"<text {token_id}>"

    def _encode_batch(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        try:
            with _translate_panics(DataError, "text"):
                return self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        except (TypeError, UnicodeEncodeError):
            index = next(i for i, text in enumerate(texts) if not _is_unicode(text))
            raise DataError(
                f"text {index} of {len(texts)} is not valid Unicode: {texts[index][:40]!r}", where="text"
            ) from None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def _translate_panics(type_: type[MmpackError], where: str) -> Iterator[None]:
    """Turns a panic of the Rust code of the tokenizer, caused by malformed files and patterns, into a `type_` error."""
    try:
        yield
    except BaseException as error:
        # The PanicException of pyo3 is not a subclass of Exception and cannot be imported, so its name is compared.
        if type(error).__name__ != "PanicException":
            raise
        raise type_(f"the tokenizer failed ({error})", where=where) from None


def _read(source: str) -> bytes:
    if source == BUILTIN_TOKENIZER:
        return files("mmpack.layout").joinpath("data", "tokenizer.json").read_bytes()
    try:
        with Path(source).open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"the tokenizer cannot be read ({error.strerror})",
            where=source,
            hint=f"Set layout.text.tokenizer to '{BUILTIN_TOKENIZER}' or to a tokenizer.json.",
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"larger than {MAX_FILE_BYTES} bytes, so not a tokenizer file", where=source)
    return content


def _parse(content: bytes, source: str) -> tokenizers.Tokenizer:
    try:
        import tokenizers
    except ImportError:
        raise MissingDependencyError(
            "text needs the package tokenizers", where="layout.text", hint="Run: pip install tokenizers"
        ) from None
    try:
        with _translate_panics(ConfigError, source):
            backend = tokenizers.Tokenizer.from_str(content.decode())
    except ConfigError:
        raise
    except Exception as error:  # the package raises a plain Exception for every error in the file
        raise ConfigError(f"not a tokenizer file ({error})", where=source) from None
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    return backend
