"""The vocabulary: ids of all tokens of a row, in contiguous ranges of a fixed order.

1. `text`: 0 and up, the ids of the tokenizer, unchanged.
2. `special`: `<|pad|>` to `<|cls|>`, cameras, numeric streams, time tokens.
3. `patch`, `value`, `action_value`: the placeholder tokens, one range each, because their modalities differ.
4. `audio`: codebook 0, codebook 1, and so on.
5. `bins:NAME`: the bins of each discrete numeric stream, in the order of the layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmpack.errors import ConfigError, DataError
from mmpack.layout.audio import AudioLayout
from mmpack.layout.numeric import NumericLayout
from mmpack.layout.segments import Modality
from mmpack.layout.special_tokens import ACTION_VALUE, PATCH, VALUE, list_special_tokens
from mmpack.layout.text import Tokenizer
from mmpack.layout.time_tokens import TimeLayout
from mmpack.settings import suggest

_MAX_SIZE = 2**31 - 1  # the ids of a row are int32


@dataclass(frozen=True, slots=True)
class IdRange:
    """A range of ids start, ..., stop - 1 of one modality."""

    name: str
    """`text`, `special`, `patch`, `value`, `action_value`, `audio`, or `bins:NAME` of a discrete stream."""
    modality: Modality
    start: int
    stop: int


class Vocabulary:
    """The ids of all tokens of a layout, and their names.

    Raises:
        ConfigError: two tokens have one name, a name is not valid for a token, or there are more ids than int32 holds.
    """

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        cameras: Sequence[str],
        numeric: Sequence[NumericLayout],
        time: TimeLayout,
        audio: AudioLayout,
    ) -> None:
        self._tokenizer = tokenizer
        self._codebooks, self._codebook_size = audio.codebooks, audio.codebook_size
        times = time.token_names()
        specials = list_special_tokens(cameras, [stream.name for stream in numeric], times)
        sizes = [
            ("text", Modality.TEXT, tokenizer.size),
            ("special", Modality.SPECIAL, len(specials)),
            ("patch", Modality.VISION, 1),
            ("value", Modality.NUMERIC, 1),
            ("action_value", Modality.ACTION, 1),
            ("audio", Modality.AUDIO, audio.codebooks * audio.codebook_size),
        ]
        for stream in numeric:
            if stream.mode == "discrete":
                modality = Modality.ACTION if stream.role == "action" else Modality.NUMERIC
                sizes.append((f"bins:{stream.name}", modality, stream.bins))
        ranges = []
        start = 0
        for name, modality, size in sizes:
            ranges.append(IdRange(name, modality, start, start + size))
            start += size
        if start > _MAX_SIZE:
            raise ConfigError(f"{start} ids are more than int32 holds", where="layout")
        self.ranges: tuple[IdRange, ...] = tuple(ranges)
        """All ranges, by ascending ids, without gaps."""
        self.size = start
        """Number of ids: the size of the embedding of a model."""
        self._by_name = {r.name: r for r in ranges}
        first = self._by_name["special"].start
        self._names = (*specials, PATCH, VALUE, ACTION_VALUE)
        self._first_name = first
        self._ids = {name: first + i for i, name in enumerate(self._names)}
        self._first_time = self._ids[times[0]]
        self._time = time
        self._starts = np.array([r.start for r in ranges])
        self._modalities = np.array([r.modality for r in ranges], dtype=np.int8)

    def range(self, name: str) -> IdRange:
        """Returns the range `name`.

        Raises:
            ConfigError: there is no such range.
        """
        if name not in self._by_name:
            raise ConfigError(f"there is no range of ids '{name}'", hint=suggest(name, self._by_name))
        return self._by_name[name]

    def id(self, token: str) -> int:
        """Returns the id of a special or placeholder token such as `<|bos|>` or `<|cam_front|>`.

        Raises:
            ConfigError: there is no such token.
        """
        if token not in self._ids:
            raise ConfigError(f"there is no token '{token}'", hint=suggest(token, self._ids))
        return self._ids[token]

    def time_ids(self, relative_ns: ArrayLike) -> NDArray[np.int32]:
        """Returns the ids of the time tokens of `relative_ns`, integer ns since the start of the document.

        Returns:
            int32, same shape.

        Raises:
            DataError: a time is not an integer, or is before the start of the document.
        """
        return self._time.token_indices(relative_ns) + np.int32(self._first_time)

    def audio_ids(self, codes: ArrayLike) -> NDArray[np.int32]:
        """Returns the ids of codec codes (frames, codebooks) in reading order: int32 (frames * codebooks,).

        The id of a code is the start of the range `audio`, plus codebook * codebook_size + code.

        Raises:
            DataError: the shape is another, or a code is outside [0, codebook_size).
        """
        array = np.asarray(codes)
        if array.ndim != 2 or array.shape[1] != self._codebooks:
            raise DataError(
                f"codes of shape {array.shape} are not (frames, {self._codebooks})", where="audio"
            )
        if array.size and (array.min() < 0 or array.max() >= self._codebook_size):
            raise DataError(f"codes must be within 0 and {self._codebook_size - 1}", where="audio")
        offsets = self.range("audio").start + np.arange(self._codebooks) * self._codebook_size
        return (array + offsets).astype(np.int32).ravel()

    def bin_ids(self, stream: str, codes: ArrayLike) -> NDArray[np.int32]:
        """Returns the ids of bins of a discrete stream, given as `NumericLayout.encode` returns them.

        Returns:
            int32, same shape.

        Raises:
            ConfigError: the stream has no bins.
            DataError: a code is not a bin.
        """
        span = self.range(f"bins:{stream}")
        array = np.asarray(codes)
        if array.size and (array.min() < 0 or array.max() >= span.stop - span.start):
            raise DataError(f"codes must be within 0 and {span.stop - span.start - 1}", where=stream)
        return (array + span.start).astype(np.int32)

    def modality(self, ids: ArrayLike) -> NDArray[np.int8]:
        """Returns the :class:`Modality` number of each id, int8 of the same shape.

        Raises:
            DataError: an id is outside [0, size).
        """
        array = np.asarray(ids)
        if array.size and (array.min() < 0 or array.max() >= self.size):
            raise DataError(f"ids must be within 0 and {self.size - 1}", where="vocabulary")
        return self._modalities[np.searchsorted(self._starts, array, side="right") - 1]

    def name(self, token_id: int) -> str:
        """Returns a readable name of one id: text, a token, `<audio 0:17>` (codebook, code) or `<imu 200>` (bin).

        Raises:
            DataError: the id is outside [0, size).
        """
        if not 0 <= token_id < self.size:
            raise DataError(f"ids must be within 0 and {self.size - 1}", where="vocabulary")
        span = self.ranges[int(np.searchsorted(self._starts, token_id, side="right")) - 1]
        if span.name == "text":
            return self._tokenizer.token_text(token_id)
        if span.name == "audio":
            codebook, code = divmod(token_id - span.start, self._codebook_size)
            return f"<audio {codebook}:{code}>"
        if span.name.startswith("bins:"):
            return f"<{span.name.removeprefix('bins:')} {token_id - span.start}>"
        return self._names[token_id - self._first_name]
