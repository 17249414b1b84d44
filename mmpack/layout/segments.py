"""The pieces of a sample in reading order, and their sum: what counts and rows both come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple


class Modality(IntEnum):
    """What a token place holds. The numbers are what a row's `modality` array holds."""

    SPECIAL = 0
    TEXT = 1
    VISION = 2
    AUDIO = 3
    NUMERIC = 4
    ACTION = 5


Kind = Literal["special", "time", "image", "audio", "numeric", "text"]


class Segment(NamedTuple):
    """Consecutive places of one kind.

    Where `token` is set, all places hold that token's id: a special, or the place token of pictures and
    continuous values. Where it is empty, the ids come from the sample: its time, codec codes, bins or text.
    """

    kind: Kind
    modality: Modality
    tokens: int
    """Places; at least 1."""
    token: str = ""
    """Name of the token at every place, if there is one."""
    stream: str = ""
    """The stream the piece comes from; empty for what belongs to the whole sample."""
    index: int = 0
    """Which entry of the facts' own tuple the piece comes from (a skipped entry keeps its number)."""


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Token places of a sample by modality."""

    text: int = 0
    vision: int = 0
    audio: int = 0
    numeric: int = 0
    action: int = 0
    special: int = 0

    @property
    def total(self) -> int:
        """All places."""
        return self.text + self.vision + self.audio + self.numeric + self.action + self.special

    @classmethod
    def from_segments(cls, segments: Iterable[Segment]) -> TokenCounts:
        """The sum over `segments`."""
        sums = [0] * len(Modality)
        for segment in segments:
            sums[segment.modality] += segment.tokens
        special, text, vision, audio, numeric, action = sums
        return cls(text=text, vision=vision, audio=audio, numeric=numeric, action=action, special=special)
