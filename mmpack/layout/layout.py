"""The token layout and `[layout]`: order and number of the tokens of each sample, and the fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import ConfigError, DataError
from mmpack.layout import special_tokens
from mmpack.layout.audio import AudioLayout
from mmpack.layout.images import VisionLayout
from mmpack.layout.metadata import (
    SampleMetadata,
    SliceMetadata,
    StandAloneMetadata,
    TextOrCount,
    replace_texts,
    sample_texts,
)
from mmpack.layout.numeric import NumericLayout
from mmpack.layout.segments import Modality, Segment, TokenCounts
from mmpack.layout.text import TextLayout, Tokenizer
from mmpack.layout.time_tokens import TimeLayout
from mmpack.layout.vocabulary import Vocabulary
from mmpack.serialisation import canonical_json
from mmpack.settings import Settings, suggest

LAYOUT_VERSION = 1
"""Version of this package's token layout; it increases if a sample gets other tokens with the same settings."""


class LayoutConfig(Settings, frozen=True, kw_only=True):
    """The `[layout]` table."""

    vision: VisionLayout = VisionLayout()
    """Layout of images."""
    audio: AudioLayout = AudioLayout()
    """Layout of audio."""
    text: TextLayout = TextLayout()
    """Layout of text."""
    time: TimeLayout = TimeLayout()
    """Layout of time tokens, one per slice."""
    cameras: tuple[str, ...] = ()
    """Names of the cameras that a slice may have, in reading order."""
    numeric: tuple[NumericLayout, ...] = ()
    """Numeric streams that a slice may have, in reading order."""


class Layout:
    """A token layout: the segments of a sample in order, token counts, ids and the fingerprint.

    The segments of a slice exclude the tokens around its run: a run of slices has `document_overhead` tokens more, for
    `document_prefix` and `document_suffix`. A stand-alone sample is a document, and its segments include `<|bos|>` and
    `<|eos|>`.

    Raises:
        ConfigError: the tokenizer cannot be loaded, or the name of a stream is used twice or not valid for a token.
    """

    def __init__(self, config: LayoutConfig) -> None:
        self.config = config
        self.tokenizer = Tokenizer(config.text.tokenizer)
        self.vocabulary = Vocabulary(
            tokenizer=self.tokenizer,
            cameras=config.cameras,
            numeric=config.numeric,
            time=config.time,
            audio=config.audio,
        )
        self._streams = {stream.name: stream for stream in config.numeric}

    @cached_property
    def fingerprint(self) -> str:
        """The hexadecimal sha256 of all settings that decide the tokens of a sample.

        Settings that give equal tokens have equal fingerprints: `1s` and `1000ms`, a tokenizer file under another path,
        token limits that a fixed image size makes ineffective.
        """
        config = self.config
        settings = {
            "version": LAYOUT_VERSION,
            "tokenizer": self.tokenizer.digest,
            "vision": config.vision.to_canonical(),
            "audio": config.audio.to_canonical(),
            "time": config.time.to_canonical(),
            "cameras": config.cameras,
            "numeric": [stream.to_canonical() for stream in config.numeric],
        }
        return hashlib.sha256(canonical_json(settings)).hexdigest()

    @property
    def document_prefix(self) -> tuple[Segment, ...]:
        """The segments before a run of slices: `<|bos|><|video_start|>`."""
        return (_special_segment(special_tokens.BOS), _special_segment(special_tokens.VIDEO_START))

    @property
    def document_suffix(self) -> tuple[Segment, ...]:
        """The segments after a run of slices: `<|video_end|><|eos|>`."""
        return (_special_segment(special_tokens.VIDEO_END), _special_segment(special_tokens.EOS))

    @property
    def document_overhead(self) -> int:
        """The number of tokens around a run of slices. The segments of a stand-alone sample include its own."""
        return sum(segment.tokens for segment in (*self.document_prefix, *self.document_suffix))

    def sample_segments(self, metadata: SampleMetadata) -> tuple[Segment, ...]:
        """Returns the segments of a sample in reading order; a segment without content is left out with its token.

        The segments of a slice are: the time token; for each camera its token and patches, in the order of the layout;
        each audio between its two tokens, in the order of the metadata; for each numeric stream its token and values, in
        the order of the layout; each text after its token, in the order of the metadata. The segments of a stand-alone
        sample are: `<|bos|>`, each image and then each audio between its two tokens, the text, `<|eos|>`.

        Raises:
            ConfigError: a camera or numeric stream is not in the layout.
            DataError: a size is impossible, or a stream occurs twice.
        """
        if isinstance(metadata, SliceMetadata):
            return tuple(self._slice_segments(metadata))
        return (
            _special_segment(special_tokens.BOS),
            *self._stand_alone_segments(metadata),
            _special_segment(special_tokens.EOS),
        )

    def count_tokens(self, metadata: SampleMetadata) -> TokenCounts:
        """Returns the token counts of a sample by modality. Raises the errors of :meth:`sample_segments`."""
        return TokenCounts.from_segments(self.sample_segments(metadata))

    def count_tokens_many(self, metadata: Sequence[SampleMetadata]) -> list[TokenCounts]:
        """Returns :meth:`count_tokens` of each sample; all texts are tokenized in batches."""
        texts = [text for sample in metadata for text in sample_texts(sample) if isinstance(text, str)]
        lengths = iter(self.count_text_tokens(texts).tolist())
        return [
            self.count_tokens(
                replace_texts(
                    sample,
                    [next(lengths) if isinstance(text, str) else text for text in sample_texts(sample)],
                )
            )
            for sample in metadata
        ]

    def count_text_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Returns the number of tokens of each text, int64 (len(texts),), which metadata may contain instead of the text."""
        return self.tokenizer.count_batch(texts)

    def _slice_segments(self, metadata: SliceMetadata) -> Iterator[Segment]:
        yield Segment("time", Modality.SPECIAL, 1)
        cameras = _index_by_name(metadata.cameras, self.config.cameras, "camera", "layout.cameras")
        for name in self.config.cameras:
            if name in cameras:
                index = cameras[name]
                _, height, width, *frames = metadata.cameras[index]
                yield _special_segment(special_tokens.stream_token(name), name, index)
                for _ in range(frames[0] if frames else 1):
                    yield self._image_segment(height, width, name, index)
        for index, (name, samples, rate_hz) in enumerate(metadata.audio):
            yield from self._audio_segments(samples, rate_hz, name, index)
        streams = _index_by_name(metadata.numeric, self._streams, "numeric stream", "layout.numeric")
        for name, stream in self._streams.items():
            if name in streams:
                yield from _numeric_segments(stream, metadata.numeric[streams[name]][1], streams[name])
        for index, text in enumerate(metadata.text):
            for segment in self._text_segments(text, index):
                yield _special_segment(special_tokens.TEXT_START, "", index)
                yield segment

    def _stand_alone_segments(self, metadata: StandAloneMetadata) -> Iterator[Segment]:
        for index, (height, width) in enumerate(metadata.images):
            yield _special_segment(special_tokens.IMAGE_START)
            yield self._image_segment(height, width, index=index)
            yield _special_segment(special_tokens.IMAGE_END)
        for index, (samples, rate_hz) in enumerate(metadata.audio):
            yield from self._audio_segments(samples, rate_hz, index=index)
        yield from self._text_segments(metadata.text)

    def _image_segment(self, height: int, width: int, stream: str = "", index: int = 0) -> Segment:
        tokens = self.config.vision.patch_grid(height, width).tokens
        return Segment("image", Modality.VISION, tokens, special_tokens.PATCH, stream, index)

    def _audio_segments(
        self, samples: int, rate_hz: int, stream: str = "", index: int = 0
    ) -> Iterator[Segment]:
        tokens = self.config.audio.num_tokens(samples, rate_hz)
        if tokens:
            yield _special_segment(special_tokens.AUDIO_START, stream, index)
            yield Segment("audio", Modality.AUDIO, tokens, "", stream, index)
            yield _special_segment(special_tokens.AUDIO_END, stream, index)

    def _text_segments(self, text: TextOrCount, index: int = 0) -> Iterator[Segment]:
        tokens = len(self.tokenizer.encode(text)) if isinstance(text, str) else text
        if tokens < 0:
            raise DataError(f"{tokens} is not a valid number of text tokens", where="text")
        if tokens:
            yield Segment("text", Modality.TEXT, tokens, "", "", index)


def _special_segment(token: str, stream: str = "", index: int = 0) -> Segment:
    return Segment("special", Modality.SPECIAL, 1, token, stream, index)


def _numeric_segments(stream: NumericLayout, rows: int, index: int) -> Iterator[Segment]:
    tokens = stream.num_tokens(rows)
    if not tokens:
        return
    if stream.role == "action":
        modality, placeholder = Modality.ACTION, special_tokens.ACTION_VALUE
    else:
        modality, placeholder = Modality.NUMERIC, special_tokens.VALUE
    token = placeholder if stream.mode == "continuous" else ""
    yield _special_segment(special_tokens.stream_token(stream.name), stream.name, index)
    yield Segment("numeric", modality, tokens, token, stream.name, index)


def _index_by_name(entries: Sequence[tuple], allowed: Collection[str], noun: str, key: str) -> dict[str, int]:
    """Returns the index of each name in `entries` of the metadata, whose first element is the name.

    Raises:
        ConfigError: a name is not allowed.
        DataError: a name occurs twice.
    """
    indices: dict[str, int] = {}
    for index, (name, *_) in enumerate(entries):
        if name not in allowed:
            raise ConfigError(
                f"the layout has no {noun} '{name}'",
                where=key,
                hint=f"{suggest(name, allowed)} Or add it to {key}.",
            )
        if name in indices:
            raise DataError(f"a slice has the {noun} '{name}' twice", where=name)
        indices[name] = index
    return indices
