"""Sample metadata: the sizes and texts from which the token count of a sample follows."""

from __future__ import annotations

from dataclasses import dataclass

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
class TextMetadata:
    """The metadata of a stand-alone text."""

    text: TextOrCount


@dataclass(frozen=True, slots=True)
class ImageTextMetadata:
    """The metadata of a stand-alone image with its caption."""

    height: int
    """Height in pixels, as stored."""
    width: int
    """Width in pixels, as stored."""
    text: TextOrCount = ""


@dataclass(frozen=True, slots=True)
class SpeechMetadata:
    """The metadata of a stand-alone speech recording with its transcript."""

    samples: int
    rate_hz: int
    text: TextOrCount = ""


SampleMetadata = SliceMetadata | TextMetadata | ImageTextMetadata | SpeechMetadata
"""Metadata of a sample of any kind."""
