"""Sample metadata: the sizes and texts from which the token count of a sample follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

TextOrCount = str | int
"""A text, or the number of its tokens if it has been counted before."""


@dataclass(frozen=True, slots=True)
class SliceMetadata:
    """The metadata of a slice."""

    cameras: tuple[tuple[str, int, int] | tuple[str, int, int, int], ...] = ()
    """Images: (name, height, width), in pixels as stored. Tubelets: (name, height, width, frames)."""
    audio: tuple[tuple[str, int, int], ...] = ()
    """Audio: (name, samples, rate_hz), as stored, in reading order."""
    numeric: tuple[tuple[str, int], ...] = ()
    """Numeric streams: (name, rows)."""
    text: tuple[TextOrCount, ...] = ()
    """Texts, in reading order."""


@dataclass(frozen=True, slots=True)
class StandAloneMetadata:
    """The metadata of a stand-alone sample of any kind."""

    text: TextOrCount = ""
    """The text, caption or transcript."""
    images: tuple[tuple[int, int], ...] = ()
    """Images: (height, width), in pixels as stored, in reading order."""
    audio: tuple[tuple[int, int], ...] = ()
    """Audio: (samples, rate_hz), as stored, in reading order."""


SampleMetadata = SliceMetadata | StandAloneMetadata
"""Metadata of a sample of any kind."""


def sample_texts(metadata: SampleMetadata) -> tuple[TextOrCount, ...]:
    """Returns the texts of a sample in reading order."""
    return metadata.text if isinstance(metadata, SliceMetadata) else (metadata.text,)


def replace_texts(metadata: SampleMetadata, counts: Sequence[int]) -> SampleMetadata:
    """Returns the metadata with the number of tokens in the place of each of its :func:`sample_texts`."""
    return replace(metadata, text=tuple(counts) if isinstance(metadata, SliceMetadata) else counts[0])
