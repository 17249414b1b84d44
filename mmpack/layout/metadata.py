"""What must be known of a sample to tell its length: sizes and texts, no media."""

from __future__ import annotations

from dataclasses import dataclass

Text = str | int
"""A text, or the number of its tokens if it was counted before."""


@dataclass(frozen=True, slots=True)
class SliceFacts:
    """A time-slice group."""

    cameras: tuple[tuple[str, int, int] | tuple[str, int, int, int], ...] = ()
    """(name, height, width) of each picture, in pixels as stored; of a tubelet (name, height, width, frames).
    """
    audio: tuple[tuple[str, int, int], ...] = ()
    """(name, samples, rate_hz) of each stretch of sound, as stored; read in the order given."""
    numeric: tuple[tuple[str, int], ...] = ()
    """(name, rows) of each numeric stream."""
    text: tuple[Text, ...] = ()
    """The texts, read in the order given."""


@dataclass(frozen=True, slots=True)
class TextFacts:
    """A stand-alone text."""

    text: Text


@dataclass(frozen=True, slots=True)
class ImageTextFacts:
    """A stand-alone picture with its caption."""

    height: int
    """Pixels, as stored."""
    width: int
    """Pixels, as stored."""
    text: Text = ""


@dataclass(frozen=True, slots=True)
class SpeechFacts:
    """A stand-alone speech clip with its transcript."""

    samples: int
    rate_hz: int
    text: Text = ""


Facts = SliceFacts | TextFacts | ImageTextFacts | SpeechFacts
"""Any sample."""
