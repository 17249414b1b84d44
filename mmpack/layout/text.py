"""Text to ids and back, through a `tokenizers` JSON file."""

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
"""The tokenizer that ships with the package: byte-level BPE, 8,192 ids, by `tools/train_tokenizer.py`."""

MAX_FILE_BYTES = 64 << 20
"""A larger tokenizer file is refused unread. The largest in use are near 40 MB."""

_MAX_IDS = 1 << 24
# The tokenizer keeps all encodings of one call at once; this bounds them to some 100 MB.
_BATCH_CHARACTERS = 1 << 20


class TextLayout(Settings, frozen=True, kw_only=True):
    """The `[layout.text]` table."""

    tokenizer: str = BUILTIN_TOKENIZER
    """`builtin`, or the path of a `tokenizers` JSON file. A relative path starts at the working directory."""


class Tokenizer:
    """A tokenizer file, loaded.

    What the file says about special tokens, truncation and padding is switched off: a text becomes its own
    ids and nothing else, and a text that spells a special token is still text.

    Args:
        source: `builtin`, or the path of a `tokenizers` JSON file.

    Raises:
        ConfigError: the file is missing, too large, or no tokenizer.
        MissingDependencyError: the package `tokenizers` is not installed.
    """

    def __init__(self, source: str = BUILTIN_TOKENIZER) -> None:
        self.source = source
        content = _read(source)
        self.digest = hashlib.sha256(content).hexdigest()
        """sha256 of the file's bytes, in hex."""
        self._backend = _parse(content, source)
        self.size = max(self._backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        """One more than the highest id."""
        if not 0 < self.size <= _MAX_IDS:
            raise ConfigError(f"the tokenizer has {self.size} ids, not 1 to {_MAX_IDS}", where=source)

    def encode(self, text: str) -> NDArray[np.int32]:
        """The ids of `text`: shape (n,), int32, each in [0, size).

        Raises:
            DataError: `text` holds half a surrogate pair, or breaks a tokenizer's pattern.
        """
        return np.array(self._encode_batch([text])[0].ids, dtype=np.int32)

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        """The text of `ids`. With the built-in, or any byte-level one, `decode(encode(text)) == text`."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=False)

    def count_batch(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokens of each text: shape (len(texts),), int64. `tokenizers` decides how many threads work on it.

        Raises:
            DataError: a text holds half a surrogate pair, or breaks a tokenizer's pattern.
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
        """One id to look at: its text, or the tokenizer's own spelling where it is part of a character."""
        text = self.decode([token_id])
        if text and "\ufffd" not in text:
            return text
        return self._backend.id_to_token(token_id) or f"<text {token_id}>"

    def _encode_batch(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        try:
            with _translate_panics(DataError, "text"):
                return self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        except (TypeError, UnicodeEncodeError):
            at = next(i for i, text in enumerate(texts) if not _is_unicode(text))
            raise DataError(
                f"text {at} of {len(texts)} is not valid Unicode: {texts[at][:40]!r}", where="text"
            ) from None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def _translate_panics(kind: type[MmpackError], where: str) -> Iterator[None]:
    """Turns a panic of the tokenizer's Rust code, as hostile files and patterns cause, into `kind`."""
    try:
        yield
    except BaseException as error:
        # pyo3's PanicException is no child of Exception and cannot be imported, but it has a name.
        if type(error).__name__ != "PanicException":
            raise
        raise kind(f"the tokenizer broke down ({error})", where=where) from None


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
            "texts need the package tokenizers", where="layout.text", hint="Run: pip install tokenizers"
        ) from None
    try:
        with _translate_panics(ConfigError, source):
            backend = tokenizers.Tokenizer.from_str(content.decode())
    except ConfigError:
        raise
    except Exception as error:  # the package raises bare Exception for any fault of the file
        raise ConfigError(f"not a tokenizer file ({error})", where=source) from None
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    return backend
