"""The planned row: its documents, and the locations of their samples in the shards."""

from __future__ import annotations

from dataclasses import dataclass

from mmpack.errors import MmpackError
from mmpack.quarantine import UnreadableSample


@dataclass(frozen=True, slots=True)
class PlannedSample:
    """A sample of a planned row.

    Attributes:
        shard_set: index of its shard set in the plan.
        number: number of the sample in the index of the shard set, from 0.
        key: key of the sample.
        kind: `slice`, `text`, `image_text` or `speech`.
        shard: name of the shard, a tar file in the store of the shard set.
        offset_bytes, size_bytes, crc32: location and checksum of its members in the tar file.
        tokens: number of its tokens, without document overhead.
        tokens_text: number of its text tokens.
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

    def to_unreadable(self, row: int, error: MmpackError) -> UnreadableSample:
        """Returns the record that `error` makes this sample of the row number `row` unreadable."""
        return UnreadableSample(
            row=row,
            key=self.key,
            shard=self.shard,
            offset_bytes=self.offset_bytes,
            size_bytes=self.size_bytes,
            reason=" ".join(str(error).split()),
        )


@dataclass(frozen=True, slots=True)
class PlannedDocument:
    """A document of a row, or a contrastive pair of two documents.

    Attributes:
        dataset: index of its data set in the plan.
        samples: consecutive slices of one recording, or one stand-alone sample.
        tokens: number of its tokens as one document, with document overhead but without `PAIR_OVERHEAD`.
        is_pair: whether the samples become two documents, one of media and one of texts, which together have
            `PAIR_OVERHEAD` more tokens.
    """

    dataset: int
    samples: tuple[PlannedSample, ...]
    tokens: int
    is_pair: bool = False

    @property
    def is_run(self) -> bool:
        """True if the document consists of slices, between the document prefix and suffix of the token layout."""
        return self.samples[0].kind == "slice"


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A row of the plan.

    Attributes:
        number: number of the row in the whole plan, from 0.
        documents: documents in the order of their positions, from position 0 on; the positions after them are padding.
    """

    number: int
    documents: tuple[PlannedDocument, ...]


STAND_ALONE_OVERHEAD = 2
"""Number of tokens of a stand-alone sample around its content: `<|bos|>` and `<|eos|>`."""
PAIR_OVERHEAD = 4
"""Number of tokens that a pair has in addition to its single document: a `<|cls|>` in both documents, and `<|bos|>` and
`<|eos|>` of the text document."""
