"""Sample decoding: from the members of one sample to its token ids and media arrays.

There are two steps. `tokenise` does everything that needs no decoding of media: ids of texts, bins and special
tokens, numeric values, and the number of patches, so that the patches of a row are allocated once. `decode` then
writes the patches into the array of the row, and returns the ids of the audio codes. Both steps check everything that
a member claims before they use it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import IntegrityError
from mmpack.layout import (
    Layout,
    PatchGrid,
    SampleMetadata,
    Segment,
)
from mmpack.layout.metadata import replace_texts
from mmpack.layout.special_tokens import PAD
from mmpack.plan.plan_config import RowsConfig
from mmpack.plan.planned_rows import PlannedSample
from mmpack.rows.decode.audio import decode_audio, resample, split_frames
from mmpack.rows.decode.codecs import open_codec
from mmpack.rows.decode.images import decode_image, decode_tubelet
from mmpack.rows.decode.numeric import Normaliser, bin_indices
from mmpack.samples.description import (
    JSON_MEMBER,
    SampleDescription,
    SliceDescription,
    StandAloneDescription,
    TextDescription,
    read_description,
    read_stream_description,
)
from mmpack.samples.kinds import measure_stand_alone, media_members
from mmpack.samples.kinds.slice import measure_slice


@dataclass(frozen=True, slots=True)
class PendingImage:
    """An image or tubelet that has not been decoded yet.

    Attributes:
        name: name of the image in error messages.
        extension: extension of the member, which names the format.
        data: encoded bytes.
        size: (height, width) in pixels.
        num_frames: number of frames; 1 for an image.
        grid: patch grid of each frame.
    """

    name: str
    extension: str
    data: bytes
    size: tuple[int, int]
    num_frames: int
    grid: PatchGrid

    @property
    def num_patches(self) -> int:
        """The number of patches of all frames."""
        return self.num_frames * self.grid.tokens


@dataclass(frozen=True, slots=True)
class PendingAudio:
    """An audio member that has not been decoded yet.

    Attributes:
        name: name of the audio in error messages.
        data: encoded bytes.
        num_samples: number of audio samples per channel.
        rate_hz: sampling rate.
        positions: positions of its codes in the ids of the sample.
    """

    name: str
    data: bytes
    num_samples: int
    rate_hz: int
    positions: slice


@dataclass(frozen=True, slots=True, eq=False)
class DecodedAudio:
    """The decoded audio of a sample.

    Attributes:
        ids: int32 arrays, ids of the codes of each audio member, in the order of `TokenisedSample.audio`.
        frames: float32 (frames, hop), audio frames of the sample; no frames unless `rows.audio_frames`.
    """

    ids: tuple[NDArray[np.int32], ...]
    frames: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class NumericRows:
    """Normalised rows of a continuous stream.

    Attributes:
        stream_index: index of the stream in `layout.numeric`.
        is_action: whether the rows are actions; otherwise they are observations.
        values: float32 (n, width), normalised values; 0 where they are not finite.
        mask: bool (n, width), True where a value is finite.
    """

    stream_index: int
    is_action: bool
    values: NDArray[np.float32]
    mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class TokenisedSample:
    """A sample whose media have not been decoded yet.

    Attributes:
        ids: int32 (tokens,), token ids. Two kinds of positions hold `<|pad|>`, because their ids are not known yet: those
            of audio codes, and the first one of a slice, its time token, which depends on the document.
        t_ns: tick of the slice; 0 for a stand-alone sample.
        images, audio, numeric: content of the sample in the order of its positions.
    """

    ids: NDArray[np.int32]
    t_ns: int
    images: tuple[PendingImage, ...]
    audio: tuple[PendingAudio, ...]
    numeric: tuple[NumericRows, ...]

    @property
    def num_patches(self) -> int:
        """The number of patches of all images."""
        return sum(image.num_patches for image in self.images)


#: Segment kinds whose content differs between samples with equal metadata.
_CONTENT_KINDS = ("text", "image", "audio", "numeric")


class _EncodedImage(NamedTuple):
    name: str
    extension: str
    data: bytes
    size: tuple[int, int]
    num_frames: int


class _EncodedAudio(NamedTuple):
    name: str
    data: bytes
    num_samples: int
    rate_hz: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _SampleContent:
    """The content of a sample's members.

    Attributes:
        metadata: sizes and texts of the sample.
        texts: texts of the sample.
        t_ns: tick of a slice; 0 for a stand-alone sample.
        images, audio: encoded media, in the order of the metadata.
        arrays: float64 (rows, width), rows of each numeric stream by name.
    """

    metadata: SampleMetadata
    texts: Sequence[str]
    t_ns: int = 0
    images: Sequence[_EncodedImage] = ()
    audio: Sequence[_EncodedAudio] = ()
    arrays: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


class _TokenTemplate(NamedTuple):
    """The token ids that all samples with equal metadata share.

    Attributes:
        ids: int32 (tokens,), token ids; `<|pad|>` where the id depends on the content.
        content: segments whose content differs between samples, and their positions.
    """

    ids: NDArray[np.int32]
    content: tuple[tuple[Segment, slice], ...]


class SampleDecoder:
    """A decoder of samples under one token layout. Several threads may use one decoder at once.

    Args:
        layout: token layout of the samples.
        rows: settings for audio frames and the folder of the audio codec.

    Raises:
        ConfigError, MissingDependencyError: see :func:`mmpack.rows.decode.codecs.open_codec`.
    """

    def __init__(self, layout: Layout, rows: RowsConfig) -> None:
        self._layout = layout
        self._codec = open_codec(layout.config.audio, rows.codec)
        self._returns_frames = rows.audio_frames
        self._pad = layout.vocabulary.id(PAD)
        self._stream_indices = {stream.name: index for index, stream in enumerate(layout.config.numeric)}
        # Many slices of a recording have equal metadata.
        self._cached_template = lru_cache(maxsize=4096)(self._make_template)

    def tokenise(
        self, planned: PlannedSample, members: Mapping[str, bytes], normaliser: Normaliser
    ) -> TokenisedSample:
        """Tokenises a sample without decoding its media.

        Args:
            planned: planned sample, of which the kind and the number of tokens are used.
            members: members of the sample, bytes by extension.
            normaliser: normaliser of the shard set that the sample comes from.

        Raises:
            IntegrityError, DataError, ConfigError: a member is missing, damaged or not as described, a stream
                is not in the layout, a value of a discrete stream is NaN, or the number of tokens differs from
                the plan.
        """
        is_slice = planned.kind == "slice"
        content = _read_slice(members) if is_slice else _read_stand_alone(planned.kind, members)
        texts = [self._layout.tokenizer.encode(text) for text in content.texts]
        # Texts are tokenised once: the template needs only their lengths.
        metadata = replace_texts(content.metadata, [len(ids) for ids in texts])
        template = self._cached_template(metadata)
        if len(template.ids) != planned.tokens:
            raise IntegrityError(
                f"the sample has {len(template.ids)} tokens, but the index says {planned.tokens}"
            )
        return self._fill_template(template, content, texts, normaliser)

    def decode(self, tokenised: TokenisedSample, patches: NDArray[np.uint8]) -> DecodedAudio:
        """Decodes the media of a sample: writes the patches to `patches` and returns the audio.

        Args:
            tokenised: tokenised sample.
            patches: uint8 (tokenised.num_patches, side, side, 3), output array.

        Raises:
            DataError: a member is damaged or not as described.
        """
        first = 0
        for image in tokenised.images:
            out = patches[first : first + image.num_patches]
            if image.extension == "mp4":
                frames = out.reshape(image.num_frames, image.grid.tokens, *out.shape[1:])
                decode_tubelet(image.data, image.size, image.grid, frames, where=image.name)
            else:
                decode_image(image.data, image.extension, image.size, image.grid, out, where=image.name)
            first += image.num_patches
        return self._decode_audio(tokenised)

    def _decode_audio(self, tokenised: TokenisedSample) -> DecodedAudio:
        target_hz, hop = self._layout.config.audio.sample_rate_hz, self._layout.config.audio.hop
        ids: list[NDArray[np.int32]] = []
        frames = [np.empty((0, hop), np.float32)]
        for audio in tokenised.audio:
            samples, rate_hz = decode_audio(audio.data, where=audio.name)
            if (len(samples), rate_hz) != (audio.num_samples, audio.rate_hz):
                raise IntegrityError(
                    f"the audio has {len(samples)} samples at {rate_hz} Hz, "
                    f"but {audio.num_samples} samples at {audio.rate_hz} Hz are described",
                    where=audio.name,
                )
            # The audio is resampled once for both the codes and the frames.
            resampled = resample(samples, rate_hz, target_hz)
            codes = self._codec.encode(resampled, target_hz)
            ids.append(self._layout.vocabulary.audio_ids(codes))
            if self._returns_frames:
                frames.append(split_frames(resampled, hop))
        return DecodedAudio(tuple(ids), np.concatenate(frames))

    def _make_template(self, metadata: SampleMetadata) -> _TokenTemplate:
        vocabulary = self._layout.vocabulary
        segments = self._layout.sample_segments(metadata)
        tokens = [vocabulary.id(segment.token) if segment.token else self._pad for segment in segments]
        sizes = np.array([segment.tokens for segment in segments])
        stops = np.cumsum(sizes)
        ids = np.repeat(np.array(tokens, np.int32), sizes)
        positions = map(slice, (stops - sizes).tolist(), stops.tolist())
        content = [
            (segment, span)
            for segment, span in zip(segments, positions, strict=True)
            if segment.kind in _CONTENT_KINDS
        ]
        return _TokenTemplate(ids, tuple(content))

    def _fill_template(
        self,
        template: _TokenTemplate,
        content: _SampleContent,
        texts: Sequence[NDArray[np.int32]],
        normaliser: Normaliser,
    ) -> TokenisedSample:
        ids = template.ids.copy()
        images: dict[int, PendingImage] = {}
        audio: list[PendingAudio] = []
        numeric: list[NumericRows] = []
        for (kind, _, _, token, name, index), positions in template.content:
            if kind == "text":
                ids[positions] = texts[index]
            elif kind == "image" and index not in images:  # a tubelet has a segment for each frame
                image = content.images[index]
                images[index] = PendingImage(*image, self._layout.config.vision.patch_grid(*image.size))
            elif kind == "audio":
                audio.append(PendingAudio(*content.audio[index], positions))
            elif kind == "numeric":
                stream_index = self._stream_indices[name]
                stream, rows = self._layout.config.numeric[stream_index], content.arrays[name]
                if rows.shape[1] != stream.width:
                    raise IntegrityError(
                        f"'{name}' has {rows.shape[1]} columns, but the layout has {stream.width}"
                    )
                if token:
                    is_action = stream.role == "action"
                    numeric.append(NumericRows(stream_index, is_action, *normaliser(stream, rows)))
                else:
                    ids[positions] = self._layout.vocabulary.bin_ids(name, bin_indices(stream, rows))
        return TokenisedSample(ids, content.t_ns, tuple(images.values()), tuple(audio), tuple(numeric))


def _read_slice(members: Mapping[str, bytes]) -> _SampleContent:
    if JSON_MEMBER not in members:
        raise IntegrityError("the sample has no 'json' member")
    description = read_description(members[JSON_MEMBER], SliceDescription, where="")
    _check_kind(description, "slice")
    streams = {name: read_stream_description(raw) for name, raw in description.streams.items()}
    content = measure_slice(streams, members)
    member_names = {
        name: stream.member for name, stream in streams.items() if not isinstance(stream, TextDescription)
    }
    images = [
        _EncodedImage(
            f"'{name}'",
            member_names[name].rpartition(".")[2],
            members[member_names[name]],
            (height, width),
            frames,
        )
        for name, height, width, frames in content.cameras
    ]
    audio = [
        _EncodedAudio(f"'{name}'", members[member_names[name]], samples, rate_hz)
        for name, samples, rate_hz in content.audio
    ]
    return _SampleContent(
        metadata=content.metadata,
        texts=content.texts,
        t_ns=description.t_ns,
        images=images,
        audio=audio,
        arrays=content.arrays,
    )


def _read_stand_alone(kind: str, members: Mapping[str, bytes]) -> _SampleContent:
    # Tars of other programs have no json member.
    if JSON_MEMBER in members:
        _check_kind(read_description(members[JSON_MEMBER], StandAloneDescription, where=""), kind)
    metadata = measure_stand_alone(kind, members)
    media = media_members(members)
    images = [
        _EncodedImage("image", extension, data, size, 1)
        for (extension, data), size in zip(media, metadata.images, strict=False)
    ]
    audio = [
        _EncodedAudio("audio", data, samples, rate_hz)
        for (_, data), (samples, rate_hz) in zip(media, metadata.audio, strict=False)
    ]
    return _SampleContent(metadata=metadata, texts=(str(metadata.text),), images=images, audio=audio)


def _check_kind(description: SampleDescription, kind: str) -> None:
    if description.kind != kind:
        raise IntegrityError(f"the json member describes a '{description.kind}', not a '{kind}'")
