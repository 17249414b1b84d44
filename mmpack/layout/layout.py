"""A layout: what each sample becomes as tokens, in which order, and hence how long it is."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import ConfigError, DataError
from mmpack.layout import special_tokens
from mmpack.layout.audio import AudioLayout
from mmpack.layout.images import VisionLayout
from mmpack.layout.metadata import (
    ImageTextMetadata,
    SampleMetadata,
    SliceMetadata,
    SpeechMetadata,
    TextMetadata,
    TextOrCount,
)
from mmpack.layout.numeric import NumericLayout
from mmpack.layout.segments import Modality, Segment, TokenCounts
from mmpack.layout.text import TextLayout, Tokenizer
from mmpack.layout.time_tokens import TimeLayout
from mmpack.layout.vocabulary import Vocabulary
from mmpack.serialisation import canonical_json
from mmpack.settings import Settings, suggest

LAYOUT_VERSION = 1
"""Raised with every change of this package that gives some sample other tokens under the same settings."""


class LayoutConfig(Settings, frozen=True, kw_only=True):
    """The `[layout]` table."""

    vision: VisionLayout = VisionLayout()
    """Pictures to patches."""
    audio: AudioLayout = AudioLayout()
    """Sound to codec tokens."""
    text: TextLayout = TextLayout()
    """Text to ids."""
    time: TimeLayout = TimeLayout()
    """The time token of each slice."""
    cameras: tuple[str, ...] = ()
    """Cameras a slice may hold, in reading order."""
    numeric: tuple[NumericLayout, ...] = ()
    """Numeric streams a slice may hold, in reading order."""


class Layout:
    """A :class:`LayoutConfig` at work: the order of a sample's pieces, its counts, the ids, the fingerprint.

    A slice is counted bare. A document that is a run of slices costs `document_overhead` tokens more, for
    `document_prefix` and `document_suffix`. A stand-alone sample is a document by itself, and its segments
    hold its own `<|bos|>` and `<|eos|>`.

    Raises:
        ConfigError: the tokenizer cannot be loaded, or a stream's name is taken or cannot be a token.
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
        """sha256, in hex, of all that decides which tokens a sample becomes.

        Equal for settings that give equal tokens: `1s` and `1000ms`, a tokenizer file under another path,
        bounds that a fixed size overrules.
        """
        config = self.config
        decisive = {
            "version": LAYOUT_VERSION,
            "tokenizer": self.tokenizer.digest,
            "vision": config.vision.to_canonical(),
            "audio": config.audio.to_canonical(),
            "time": config.time.to_canonical(),
            "cameras": config.cameras,
            "numeric": [stream.to_canonical() for stream in config.numeric],
        }
        return hashlib.sha256(canonical_json(decisive)).hexdigest()

    @property
    def document_prefix(self) -> tuple[Segment, ...]:
        """What opens a run of slices: `<|bos|><|video_start|>`."""
        return (_special_segment(special_tokens.BOS), _special_segment(special_tokens.VIDEO_START))

    @property
    def document_suffix(self) -> tuple[Segment, ...]:
        """What closes a run of slices: `<|video_end|><|eos|>`."""
        return (_special_segment(special_tokens.VIDEO_END), _special_segment(special_tokens.EOS))

    @property
    def document_overhead(self) -> int:
        """Tokens around a run of slices. Stand-alone samples count their own."""
        return sum(segment.tokens for segment in (*self.document_prefix, *self.document_suffix))

    def sample_segments(self, metadata: SampleMetadata) -> tuple[Segment, ...]:
        """The pieces of a sample in reading order; one without content is left out, its token with it.

        A slice: its time token; each camera's token and patches, and after the sound each numeric stream's
        token and values, both in the layout's order; each sound between its two tokens and each text after
        its token, both in the order given. A stand-alone sample: its picture or sound between its two tokens,
        then the text, all inside `<|bos|>` and `<|eos|>`.

        Raises:
            ConfigError: a camera or numeric stream is not in the layout.
            DataError: a size cannot be, or a stream is given twice.
        """
        if isinstance(metadata, SliceMetadata):
            return tuple(self._slice_segments(metadata))
        return (
            _special_segment(special_tokens.BOS),
            *self._stand_alone_segments(metadata),
            _special_segment(special_tokens.EOS),
        )

    def count_tokens(self, metadata: SampleMetadata) -> TokenCounts:
        """Tokens of a sample by modality: the sum of its :meth:`segments`. Raises as they do."""
        return TokenCounts.from_segments(self.sample_segments(metadata))

    def count_tokens_many(self, metadata: Sequence[SampleMetadata]) -> list[TokenCounts]:
        """:meth:`count` of each, with all texts tokenized in batches."""
        texts = [text for each in metadata for text in _texts_of_sample(each) if isinstance(text, str)]
        lengths = iter(self.count_text_tokens(texts).tolist())
        return [
            self.count_tokens(
                _replace_texts(
                    each, [next(lengths) if isinstance(t, str) else t for t in _texts_of_sample(each)]
                )
            )
            for each in metadata
        ]

    def count_text_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokens of each text, shape (len(texts),), int64: what facts take in a text's place."""
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

    def _stand_alone_segments(
        self, metadata: TextMetadata | ImageTextMetadata | SpeechMetadata
    ) -> Iterator[Segment]:
        if isinstance(metadata, ImageTextMetadata):
            yield _special_segment(special_tokens.IMAGE_START)
            yield self._image_segment(metadata.height, metadata.width)
            yield _special_segment(special_tokens.IMAGE_END)
        elif isinstance(metadata, SpeechMetadata):
            yield from self._audio_segments(metadata.samples, metadata.rate_hz)
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
            raise DataError(f"{tokens} tokens of text cannot be", where="text")
        if tokens:
            yield Segment("text", Modality.TEXT, tokens, "", "", index)


def _special_segment(token: str, stream: str = "", index: int = 0) -> Segment:
    return Segment("special", Modality.SPECIAL, 1, token, stream, index)


def _numeric_segments(stream: NumericLayout, rows: int, index: int) -> Iterator[Segment]:
    tokens = stream.num_tokens(rows)
    if not tokens:
        return
    if stream.role == "action":
        modality, place = Modality.ACTION, special_tokens.ACTION_VALUE
    else:
        modality, place = Modality.NUMERIC, special_tokens.VALUE
    token = place if stream.mode == "continuous" else ""
    yield _special_segment(special_tokens.stream_token(stream.name), stream.name, index)
    yield Segment("numeric", modality, tokens, token, stream.name, index)


def _index_by_name(entries: Sequence[tuple], allowed: Collection[str], noun: str, key: str) -> dict[str, int]:
    """Where in the facts' `entries` (name first) each is; refuses a name that is unknown or comes twice."""
    places: dict[str, int] = {}
    for index, (name, *_) in enumerate(entries):
        if name not in allowed:
            raise ConfigError(
                f"the layout has no {noun} '{name}'",
                where=key,
                hint=f"{suggest(name, allowed)} Or add it to {key}.",
            )
        if name in places:
            raise DataError(f"a slice holds the {noun} '{name}' twice", where=name)
        places[name] = index
    return places


def _texts_of_sample(metadata: SampleMetadata) -> tuple[TextOrCount, ...]:
    return metadata.text if isinstance(metadata, SliceMetadata) else (metadata.text,)


def _replace_texts(metadata: SampleMetadata, texts: list[int]) -> SampleMetadata:
    return replace(metadata, text=tuple(texts) if isinstance(metadata, SliceMetadata) else texts[0])
