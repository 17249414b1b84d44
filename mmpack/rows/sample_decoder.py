"""One sample: from its members to the ids of its places, and to the content beside them.

It goes in two steps. The outline has all that takes no decoding of media: ids of texts, bins and tokens,
values, and how many patches there will be, so that a row's patches are allocated once. `decode` then writes
patches into their place and the codes of sounds into the outline's ids. Both believe nothing that a member
says before it is checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmpack.errors import IntegrityError
from mmpack.layout import (
    ImageTextMetadata,
    Layout,
    PatchGrid,
    SampleMetadata,
    Segment,
    SliceMetadata,
    SpeechMetadata,
)
from mmpack.layout.special_tokens import PAD
from mmpack.plan.plan_config import RowsConfig
from mmpack.plan.planned import PlannedSample
from mmpack.rows.decode.audio import decode_audio, resample, split_frames
from mmpack.rows.decode.codecs import open_codec
from mmpack.rows.decode.images import decode_image, decode_tubelet
from mmpack.rows.decode.numeric import Normaliser, bin_indices
from mmpack.samples.description import (
    DESCRIPTION_VERSION,
    JSON_MEMBER,
    AudioDescription,
    ImageDescription,
    NumericDescription,
    SampleDescription,
    SliceDescription,
    StandAloneDescription,
    TextDescription,
    decode_stream_description,
    read_description,
)
from mmpack.samples.kinds import measure_stand_alone
from mmpack.samples.kinds.slice import measure_slice
from mmpack.serialisation import decode_untrusted


@dataclass(frozen=True, slots=True)
class PendingImage:
    """A picture or tubelet that is not decoded yet: its bytes, (height, width), frames, and the grid of
    each.
    """

    name: str
    extension: str
    data: bytes
    size: tuple[int, int]
    num_frames: int
    grid: PatchGrid

    @property
    def num_patches(self) -> int:
        """Places of all frames."""
        return self.num_frames * self.grid.tokens


@dataclass(frozen=True, slots=True)
class PendingAudio:
    """A sound that is not decoded yet: its bytes, samples and rate, and the places in the outline its
    codes take.
    """

    name: str
    data: bytes
    num_samples: int
    rate_hz: int
    positions: slice


@dataclass(frozen=True, slots=True)
class NumericRows:
    """Rows of a continuous stream: its number in the layout, float32 (n, width), and where they are
    finite.
    """

    stream_index: int
    is_action: bool
    values: NDArray[np.float32]
    mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class TokenisedSample:
    """A sample before its media are decoded.

    Attributes:
        ids: int32 (tokens,). Codes of sounds are `<|pad|>` until they are decoded; a slice's first place
            waits for its time token, which depends on the document.
        t_ns: the slice's tick; 0 for a stand-alone sample.
        shown, heard, numbers: its content in the order of its places.
    """

    ids: NDArray[np.int32]
    t_ns: int
    images: tuple[PendingImage, ...]
    audio: tuple[PendingAudio, ...]
    numeric: tuple[NumericRows, ...]

    @property
    def num_patches(self) -> int:
        """Places of all pictures."""
        return sum(each.num_patches for each in self.images)


_CONTENT = ("text", "image", "audio", "numeric")


class _EncodedImage(NamedTuple):
    name: str
    extension: str
    data: bytes
    size: tuple[int, int]
    frames: int


class _EncodedAudio(NamedTuple):
    name: str
    data: bytes
    samples: int
    rate_hz: int


@dataclass(frozen=True, slots=True)
class _SampleContent:
    """What the members hold: facts, texts and tick; pictures and sounds as they are numbered in the facts;
    the arrays of numeric streams.
    """

    metadata: SampleMetadata
    texts: Sequence[str]
    t_ns: int = 0
    images: Sequence[_EncodedImage] = ()
    audio: Sequence[_EncodedAudio] = ()
    arrays: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


class _TokenTemplate(NamedTuple):
    """The places of samples with the same facts: their ids as far as these tell, and the segments whose content is each
    sample's own.
    """

    ids: NDArray[np.int32]
    content: tuple[tuple[Segment, slice], ...]


class SampleDecoder:
    """Reads samples under one layout. One reader serves several threads at once.

    Args:
        layout: of the places.
        rows: what is wanted beside the ids, and the codec's folder.

    Raises:
        ConfigError, MissingDependencyError: as :func:`mmpack.rows.decode.codecs.open_codec`.
    """

    def __init__(self, layout: Layout, rows: RowsConfig) -> None:
        self._layout = layout
        self._codec = open_codec(layout.config.audio, rows.codec)
        self._keep_frames = rows.audio_frames
        self._pad = layout.vocabulary.id(PAD)
        self._streams = {stream.name: number for number, stream in enumerate(layout.config.numeric)}
        # Slices of a recording have the same sizes again and again.
        self._laid = lru_cache(maxsize=4096)(self._make_template)

    def tokenise(
        self, planned: PlannedSample, members: Mapping[str, bytes], normaliser: Normaliser
    ) -> TokenisedSample:
        """What a sample's places hold, media aside.

        Args:
            planned: says its kind and places.
            members: bytes by extension, as :func:`mmpack.shards.reader.read_members` gives them.
            normaliser: of the build that it is from.

        Raises:
            IntegrityError, DataError, ConfigError: a member is missing, damaged or not as described, a stream
                is not in the layout, a value of a discrete stream is NaN, or the places are not as many as
                planned.
        """
        found = _read_slice(members) if planned.kind == "slice" else _read_stand_alone(planned.kind, members)
        texts = [self._layout.tokenizer.encode(text) for text in found.texts]
        facts = _replace_texts_by_counts(found.metadata, [len(ids) for ids in texts])
        laid = self._laid(facts)
        if len(laid.ids) != planned.tokens:
            raise IntegrityError(f"takes {len(laid.ids)} places, and the index has {planned.tokens}")
        return self._fill_template(laid, found, texts, normaliser)

    def decode(self, tokenised: TokenisedSample, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Decodes a sample's media: patches into their place, codes of sounds into the outline's ids.

        Args:
            outline: of the sample; its ids are completed.
            patches: uint8, (outline.patches, side, side, 3), is written.

        Returns:
            float32, (frames, hop): its sounds as frames, or none of them unless `rows.audio_frames`.

        Raises:
            DataError: a member is damaged or not as described.
        """
        first = 0
        for shown in tokenised.images:
            place = patches[first : first + shown.num_patches]
            if shown.extension == "mp4":
                frames = place.reshape(shown.num_frames, shown.grid.tokens, *place.shape[1:])
                decode_tubelet(shown.data, shown.size, shown.grid, frames, where=shown.name)
            else:
                decode_image(shown.data, shown.extension, shown.size, shown.grid, place, where=shown.name)
            first += shown.num_patches
        return self._decode_audio(tokenised)

    def _decode_audio(self, outline: TokenisedSample) -> NDArray[np.float32]:
        target, hop = self._layout.config.audio.sample_rate_hz, self._layout.config.audio.hop
        kept = [np.empty((0, hop), np.float32)]
        for heard in outline.audio:
            samples, rate_hz = decode_audio(heard.data, where=heard.name)
            if (len(samples), rate_hz) != (heard.num_samples, heard.rate_hz):
                raise IntegrityError(
                    f"its sound has {len(samples)} samples at {rate_hz} Hz, not as described"
                )
            # Once for the codes and the frames.
            sound = resample(samples, rate_hz, target)
            outline.ids[heard.positions] = self._layout.vocabulary.audio_ids(
                self._codec.encode(sound, target)
            )
            if self._keep_frames:
                kept.append(split_frames(sound, hop))
        return np.concatenate(kept)

    def _make_template(self, metadata: SampleMetadata) -> _TokenTemplate:
        names = self._layout.vocabulary
        segments = self._layout.sample_segments(metadata)
        tokens = [names.id(segment.token) if segment.token else self._pad for segment in segments]
        sizes = np.array([segment.tokens for segment in segments])
        stops = np.cumsum(sizes)
        ids = np.repeat(np.array(tokens, np.int32), sizes)
        places = map(slice, (stops - sizes).tolist(), stops.tolist())
        content = [
            (segment, own) for segment, own in zip(segments, places, strict=True) if segment.kind in _CONTENT
        ]
        return _TokenTemplate(ids, tuple(content))

    def _fill_template(
        self,
        laid: _TokenTemplate,
        content: _SampleContent,
        texts: Sequence[NDArray[np.int32]],
        normaliser: Normaliser,
    ) -> TokenisedSample:
        names, ids = self._layout.vocabulary, laid.ids.copy()
        shown: dict[int, PendingImage] = {}
        heard: list[PendingAudio] = []
        numbers: list[NumericRows] = []
        for (kind, _, _, token, name, index), places in laid.content:
            if kind == "text":
                ids[places] = texts[index]
            elif kind == "image" and index not in shown:  # a tubelet has a segment for each frame
                picture = content.images[index]
                shown[index] = PendingImage(*picture, self._layout.config.vision.patch_grid(*picture.size))
            elif kind == "audio":
                heard.append(PendingAudio(*content.audio[index], places))
            elif kind == "numeric":
                number = self._streams[name]
                stream, rows = self._layout.config.numeric[number], content.arrays[name]
                if rows.shape[1] != stream.width:
                    raise IntegrityError(f"'{name}' has {rows.shape[1]} columns, the layout {stream.width}")
                if token:
                    numbers.append(NumericRows(number, stream.role == "action", *normaliser(stream, rows)))
                else:
                    ids[places] = names.bin_ids(name, bin_indices(stream, rows))
        return TokenisedSample(ids, content.t_ns, tuple(shown.values()), tuple(heard), tuple(numbers))


def _replace_texts_by_counts(metadata: SampleMetadata, counts: Sequence[int]) -> SampleMetadata:
    """The facts with the number of ids in each text's place: they are tokenized once."""
    return replace(metadata, text=tuple(counts) if isinstance(metadata, SliceMetadata) else counts[0])


def _read_slice(members: Mapping[str, bytes]) -> _SampleContent:
    if JSON_MEMBER not in members:
        raise IntegrityError("has no json member")
    description = read_description(members[JSON_MEMBER], SliceDescription, where="")
    _check_kind(description, "slice")
    streams = {name: _read_stream_description(raw) for name, raw in description.streams.items()}
    content = measure_slice(streams, members)
    names = {
        name: stream.member for name, stream in streams.items() if not isinstance(stream, TextDescription)
    }
    pictures = [
        _EncodedImage(
            f"'{name}'", names[name].rpartition(".")[2], members[names[name]], (height, width), frames
        )
        for name, height, width, frames in content.cameras
    ]
    sounds = [
        _EncodedAudio(f"'{name}'", members[names[name]], samples, rate_hz)
        for name, samples, rate_hz in content.audio
    ]
    return _SampleContent(content.metadata, content.texts, description.t_ns, pictures, sounds, content.arrays)


def _read_stand_alone(kind: str, members: Mapping[str, bytes]) -> _SampleContent:
    # Tars that mmpack did not write have none.
    if JSON_MEMBER in members:
        _check_kind(read_description(members[JSON_MEMBER], StandAloneDescription, where=""), kind)
    facts = measure_stand_alone(kind, members)
    texts = (str(facts.text),)
    media = [(name, data) for name, data in members.items() if name not in ("txt", JSON_MEMBER)]
    if isinstance(facts, ImageTextMetadata):
        pictures = [_EncodedImage("its picture", *each, (facts.height, facts.width), 1) for each in media]
        return _SampleContent(facts, texts, images=pictures)
    if isinstance(facts, SpeechMetadata):
        sounds = [_EncodedAudio("its sound", data, facts.samples, facts.rate_hz) for _, data in media]
        return _SampleContent(facts, texts, audio=sounds)
    return _SampleContent(facts, texts)


def _check_kind(description: SampleDescription, kind: str) -> None:
    if (description.version, description.kind) != (DESCRIPTION_VERSION, kind):
        raise IntegrityError(
            f"is a '{description.kind}' of format {description.version}, and the index has a '{kind}'"
        )


def _read_stream_description(
    raw: msgspec.Raw,
) -> ImageDescription | AudioDescription | NumericDescription | TextDescription:
    """One stream, of the kind that its own facts are of: they differ in their keys."""
    keys = decode_untrusted(raw, dict[str, msgspec.Raw], noun="its description", where="")
    marks = {"texts": "text", "samples": "audio", "height": "camera"}
    kind = next((kind for mark, kind in marks.items() if mark in keys), "numeric")
    return decode_stream_description(kind, raw, where="")
