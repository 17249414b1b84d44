"""Rows from planned rows and the bytes of their samples: decode, and put in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import DataError, IntegrityError, MmpackError
from mmpack.layout import Layout, Segment
from mmpack.layout.special_tokens import PAD
from mmpack.plan.plan_config import RowsConfig
from mmpack.plan.planned import PAIR_OVERHEAD, PlannedDocument, PlannedRow
from mmpack.quarantine import UnreadableSample
from mmpack.rows.decode.numeric import Normaliser
from mmpack.rows.pairs import PairPositions, is_text_position, make_pair_ids, split_pair
from mmpack.rows.row import Row
from mmpack.rows.row_builder import RowBuilder, RowSample, build_row
from mmpack.rows.sample_decoder import SampleDecoder

MembersByKey = Mapping[tuple[int, int], dict[str, bytes] | MmpackError]
"""By (source, number) of each sample: its members by extension, or why they could not be read."""


class RowAssembler:
    """Makes rows under one layout. One maker serves several threads at once.

    The same planned row and bytes give the same row to the bit.

    Args:
        layout: of the places.
        max_seq_len: places of a row.
        statistics: `manifest.numeric` of each source, by `PlannedSample.source`.
        rows: what a row holds beside its ids.

    Raises:
        ConfigError, MissingDependencyError: the codec cannot be opened.
        IntegrityError: statistics are damaged.
    """

    def __init__(
        self,
        layout: Layout,
        max_seq_len: int,
        statistics: Sequence[Mapping[str, Mapping[str, object]]],
        rows: RowsConfig,
    ) -> None:
        self._layout = layout
        self._max_seq_len = max_seq_len
        self._reader = SampleDecoder(layout, rows)
        self._normalisers = [Normaliser(each, layout.config.numeric) for each in statistics]
        self._side = layout.config.vision.token_side
        self._prefix, self._suffix = self._ids(layout.document_prefix), self._ids(layout.document_suffix)

    def assemble(self, planned: PlannedRow, members: MembersByKey) -> tuple[Row, list[UnreadableSample]]:
        """A row, and what of it could not be read.

        A sample that cannot be read keeps its places as an invalid document, together with those next to it
        in its run; a run goes on behind it as another document, with time tokens and positions from 0. A pair
        is invalid as a whole.

        Args:
            planned: from the plan.
            found: of every sample of `planned`.

        Raises:
            DataError: the documents are not as long as planned, or do not fit into a row.
        """
        documents = [[RowSample(sample) for sample in document.samples] for document in planned.documents]
        self._check(planned)
        for document, samples in zip(planned.documents, documents, strict=True):
            self._tokenise(samples, members)
            _drop_incomplete_pair(document, samples)
        patches = self._decode([sample for samples in documents for sample in samples])
        places = RowBuilder(
            np.full(self._max_seq_len, self._layout.vocabulary.id(PAD), np.int32),
            np.full(self._max_seq_len, -1, np.int32),
        )
        for document, samples in zip(planned.documents, documents, strict=True):
            _drop_incomplete_pair(document, samples)
            self._append_document(document, samples, places)
        faults = [
            _unreadable_sample(planned.number, sample)
            for samples in documents
            for sample in samples
            if sample.reason
        ]
        return build_row(self._layout, planned.number, places, patches), faults

    def _check(self, planned: PlannedRow) -> None:
        total = 0
        for document in planned.documents:
            overhead = self._layout.document_overhead if document.is_run else 0
            tokens = sum(sample.tokens for sample in document.samples) + overhead
            if tokens != document.tokens:
                raise DataError(
                    f"the document of '{document.samples[0].key}' takes {tokens} places, not {document.tokens}",
                    where=f"row {planned.number}",
                )
            total += tokens + (PAIR_OVERHEAD if document.is_pair else 0)
        if total > self._max_seq_len:
            raise DataError(
                f"documents of {total} places in a row of {self._max_seq_len}", where=f"row {planned.number}"
            )

    def _tokenise(self, samples: Sequence[RowSample], members: MembersByKey) -> None:
        last_ns: int | None = None
        for sample in samples:
            planned = sample.planned
            found = members[planned.shard_set, planned.number]
            try:
                if isinstance(found, MmpackError):
                    raise found
                outline = self._reader.tokenise(planned, found, self._normalisers[planned.shard_set])
                if last_ns is not None and outline.t_ns < last_ns:
                    raise IntegrityError(
                        f"its tick {outline.t_ns} ns lies before that of the slice before it"
                    )
            except MmpackError as error:
                sample.mark_unreadable(error)
            else:
                sample.tokenised, last_ns = outline, outline.t_ns

    def _decode(self, samples: Sequence[RowSample]) -> NDArray[np.uint8]:
        """The patches of all samples, allocated once; those that fail on the way leave theirs unused."""
        count = 0
        for sample in samples:
            if sample.tokenised is not None:
                sample.patch_slice = slice(count, count + sample.tokenised.num_patches)
                count = sample.patch_slice.stop
        patches = np.empty((count, self._side, self._side, 3), np.uint8)
        for sample in samples:
            if sample.tokenised is not None:
                try:
                    sample.frames = self._reader.decode(sample.tokenised, patches[sample.patch_slice])
                except MmpackError as error:
                    sample.mark_unreadable(error)
        return patches

    def _append_document(
        self, document: PlannedDocument, samples: Sequence[RowSample], builder: RowBuilder
    ) -> None:
        if document.is_pair and samples[0].tokenised is not None:
            self._append_pair(document, samples, builder)
            return
        overhead = PAIR_OVERHEAD if document.is_pair else 0
        groups = [list(group) for _, group in groupby(samples, key=lambda each: each.tokenised is None)]
        for number, group in enumerate(groups):
            is_first, is_last = number == 0, number == len(groups) - 1
            prefix = self._prefix if document.is_run and is_first else self._prefix[:0]
            suffix = self._suffix if document.is_run and is_last else self._suffix[:0]
            if group[0].tokenised is None:
                size = sum(each.planned.tokens for each in group) + len(prefix) + len(suffix) + overhead
                builder.end_document(size, False, document.dataset, group)
                continue
            ids, slice_ids = self._document_ids(document, group, prefix, suffix, builder)
            start = builder.ends[-1]
            builder.ids[start : start + len(ids)] = ids
            builder.slice_ids[start : start + len(ids)] = slice_ids
            builder.end_document(len(ids), True, document.dataset, group)

    def _append_pair(
        self, document: PlannedDocument, samples: Sequence[RowSample], builder: RowBuilder
    ) -> None:
        prefix, suffix = (self._prefix, self._suffix) if document.is_run else (self._prefix[:0],) * 2
        ids, slice_ids = self._document_ids(document, samples, prefix, suffix, builder)
        dealt: PairPositions = split_pair(is_text_position(self._layout, ids))
        start, number = builder.ends[-1], len(builder.valid)
        builder.ids[start : start + dealt.eos + 1] = make_pair_ids(self._layout, ids, dealt)
        builder.slice_ids[start + dealt.positions] = slice_ids
        builder.pairs.append((number, number + 1))
        builder.cls.append((start + dealt.cls[0], start + dealt.cls[1]))
        builder.end_document(dealt.bos, True, document.dataset, samples)
        builder.end_document(dealt.eos + 1 - dealt.bos, True, document.dataset, samples)

    def _document_ids(
        self,
        document: PlannedDocument,
        samples: Sequence[RowSample],
        prefix: NDArray[np.int32],
        suffix: NDArray[np.int32],
        builder: RowBuilder,
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Ids of consecutive readable samples with what wraps them, and the slice of each place."""
        outlines = [sample.tokenised for sample in samples if sample.tokenised is not None]
        numbers = [-1] * len(outlines)
        if document.is_run:
            span_ns = self._layout.config.time.span_ns
            # In Python's integers, and clamped: two int64 may lie further apart than int64 holds.
            since = [min(outline.t_ns - outlines[0].t_ns, span_ns) for outline in outlines]
            times = self._layout.vocabulary.time_ids(np.array(since, np.int64))
            for outline, time in zip(outlines, times, strict=True):
                outline.ids[0] = time
            numbers = list(range(len(builder.t_ns), len(builder.t_ns) + len(outlines)))
            builder.t_ns += [outline.t_ns for outline in outlines]
        builder.samples += samples
        ids = np.concatenate([prefix, *(outline.ids for outline in outlines), suffix])
        sizes = [len(prefix), *(len(outline.ids) for outline in outlines), len(suffix)]
        return ids, np.repeat(np.array([-1, *numbers, -1], np.int32), sizes)

    def _ids(self, segments: Sequence[Segment]) -> NDArray[np.int32]:
        return np.array([self._layout.vocabulary.id(segment.token) for segment in segments], np.int32)


def _drop_incomplete_pair(document: PlannedDocument, samples: Sequence[RowSample]) -> None:
    """A pair of which one sample cannot be read is left out as a whole."""
    if document.is_pair and any(sample.tokenised is None for sample in samples):
        for sample in samples:
            sample.tokenised = None


def _unreadable_sample(row: int, sample: RowSample) -> UnreadableSample:
    planned = sample.planned
    return UnreadableSample(
        row=row,
        key=planned.key,
        shard=planned.shard,
        offset_bytes=planned.offset_bytes,
        size_bytes=planned.size_bytes,
        reason=sample.reason,
    )
