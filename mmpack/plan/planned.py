"""What a plan says of a row: its documents, and where the bytes of their samples lie."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PlannedSample:
    """One sample of a build's index.

    Attributes:
        source: which of the plan's builds, from 0.
        number: row of that build's index.
        key: the sample's key.
        kind: `slice`, `text`, `image_text` or `speech`.
        shard: name of its tar in the build's store.
        offset_bytes, size_bytes, crc32: its members in the tar.
        tokens: places it takes, without what wraps a document.
        tokens_text: of these, ids of texts.
    """

    shard_set: int
    number: int
    key: str
    kind: str
    shard: str
    offset_bytes: int
    size_bytes: int
    crc32: int
    tokens: int
    tokens_text: int


@dataclass(frozen=True, slots=True)
class PlannedDocument:
    """One document of a row, or a contrastive pair of two.

    Attributes:
        dataset: which of the plan's data sets, from 0.
        samples: consecutive slices of one recording, or one stand-alone sample.
        tokens: places of it as one document, with what wraps it.
        pair: it becomes two documents, its media and its texts, and takes `PAIR_OVERHEAD` more places.
    """

    dataset: int
    samples: tuple[PlannedSample, ...]
    tokens: int
    is_pair: bool = False

    @property
    def is_run(self) -> bool:
        """Whether it is slices, inside the layout's document prefix and suffix."""
        return self.samples[0].kind == "slice"


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """One row.

    Attributes:
        number: of the row in the whole run, from 0.
        documents: in the order of their places, from place 0 on; the places after them are pads.
    """

    number: int
    documents: tuple[PlannedDocument, ...]


PAIR_OVERHEAD = 4
"""Places that a pair takes beside its document: a `<|cls|>` in both, and `<|bos|>`, `<|eos|>` of the texts."""
