"""Segments of a sample, and token counts. Both counting and row assembly use the same segments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple


class Modality(IntEnum):
    """The modality of a token. The numbers are the values of the `modality` array of a row."""

    SPECIAL = 0
    TEXT = 1
    VISION = 2
    AUDIO = 3
    NUMERIC = 4
    ACTION = 5


Kind = Literal["special", "time", "image", "audio", "numeric", "text"]


class Segment(NamedTuple):
    """Consecutive tokens of one kind in a sample.

    If `token` is set, all positions hold the id of this token: a special token, or the placeholder token of images or
    continuous values. If it is empty, the ids follow from the sample: from its time, codec codes, bins or text.
    """

    kind: Kind
    modality: Modality
    tokens: int
    """Number of tokens, at least 1."""
    token: str = ""
    """Name of the token at every position; empty if the ids follow from the sample."""
    stream: str = ""
    """Name of the stream; empty for a segment of the sample as a whole."""
    index: int = 0
    """Index of the entry in its tuple of the sample metadata; entries without tokens count too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenCounts:
    """The numbers of tokens of a sample by modality."""

    text: int = 0
    vision: int = 0
    audio: int = 0
    numeric: int = 0
    action: int = 0
    special: int = 0

    @property
    def total(self) -> int:
        """The number of all tokens."""
        return self.text + self.vision + self.audio + self.numeric + self.action + self.special

    @classmethod
    def from_segments(cls, segments: Iterable[Segment]) -> TokenCounts:
        """Sums the tokens of `segments` by modality."""
        sums = [0] * len(Modality)
        for segment in segments:
            sums[segment.modality] += segment.tokens
        special, text, vision, audio, numeric, action = sums
        return cls(text=text, vision=vision, audio=audio, numeric=numeric, action=action, special=special)
