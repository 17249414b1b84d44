"""What must be known of a sample to tell its length: sizes and texts, no media."""

from __future__ import annotations

from dataclasses import dataclass

TextOrCount = str | int
"""A text, or the number of its tokens if it was counted before."""


@dataclass(frozen=True, slots=True)
class SliceMetadata:
    """A time-slice group."""

    cameras: tuple[tuple[str, int, int] | tuple[str, int, int, int], ...] = ()
    """(name, height, width) of each picture, in pixels as stored; of a tubelet (name, height, width, frames).
    """
    audio: tuple[tuple[str, int, int], ...] = ()
    """(name, samples, rate_hz) of each stretch of sound, as stored; read in the order given."""
    numeric: tuple[tuple[str, int], ...] = ()
    """(name, rows) of each numeric stream."""
    text: tuple[TextOrCount, ...] = ()
    """The texts, read in the order given."""


@dataclass(frozen=True, slots=True)
class TextMetadata:
    """A stand-alone text."""

    text: TextOrCount


@dataclass(frozen=True, slots=True)
class ImageTextMetadata:
    """A stand-alone picture with its caption."""

    height: int
    """Pixels, as stored."""
    width: int
    """Pixels, as stored."""
    text: TextOrCount = ""


@dataclass(frozen=True, slots=True)
class SpeechMetadata:
    """A stand-alone speech clip with its transcript."""

    samples: int
    rate_hz: int
    text: TextOrCount = ""


SampleMetadata = SliceMetadata | TextMetadata | ImageTextMetadata | SpeechMetadata
"""Any sample."""
