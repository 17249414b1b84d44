"""Row assembly: decodes the samples of a planned row and puts their tokens into the row."""

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
"""Maps (shard set, number) of each sample to its members by extension, or to the error of reading them."""


class RowAssembler:
    """An assembler of rows under one token layout. Several threads may use one assembler at once.

    The same planned row and bytes always give a bitwise identical row.

    Args:
        layout: token layout of the rows.
        max_seq_len: number of positions of a row.
        statistics: `manifest.numeric` of each shard set, indexed by `PlannedSample.shard_set`.
        rows: settings for the optional content of a row.

    Raises:
        ConfigError, MissingDependencyError: the audio codec cannot be opened.
        IntegrityError: the statistics are damaged.
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
        self._decoder = SampleDecoder(layout, rows)
        self._normalisers = [
            Normaliser(stream_statistics, layout.config.numeric) for stream_statistics in statistics
        ]
        self._side = layout.config.vision.token_side
        self._prefix = self._token_ids(layout.document_prefix)
        self._suffix = self._token_ids(layout.document_suffix)

    def assemble(self, planned: PlannedRow, members: MembersByKey) -> tuple[Row, list[UnreadableSample]]:
        """Assembles a row. Returns the row and its unreadable samples.

        An unreadable sample keeps its positions as an invalid document. Adjacent unreadable slices of a run share
        one invalid document. The run continues after them as another document, whose time tokens and position ids
        start from 0 again. A pair with an unreadable sample becomes one invalid document.

        Args:
            planned: planned row.
            members: members or error of every sample of `planned`.

        Raises:
            DataError: the length of a document differs from the plan, or the documents do not fit into the row.
        """
        documents = [[RowSample(sample) for sample in document.samples] for document in planned.documents]
        self._check_lengths(planned)
        for document, samples in zip(planned.documents, documents, strict=True):
            self._tokenise(samples, members)
            _drop_incomplete_pair(document, samples)
        patches = self._decode([sample for samples in documents for sample in samples])
        builder = RowBuilder(
            np.full(self._max_seq_len, self._layout.vocabulary.id(PAD), np.int32),
            np.full(self._max_seq_len, -1, np.int32),
        )
        for document, samples in zip(planned.documents, documents, strict=True):
            _drop_incomplete_pair(document, samples)
            self._append_document(document, samples, builder)
        unreadable = [
            _make_unreadable_sample(planned.number, sample)
            for samples in documents
            for sample in samples
            if sample.reason
        ]
        return build_row(self._layout, planned.number, builder, patches), unreadable

    def _check_lengths(self, planned: PlannedRow) -> None:
        total = 0
        for document in planned.documents:
            overhead = self._layout.document_overhead if document.is_run else 0
            tokens = sum(sample.tokens for sample in document.samples) + overhead
            if tokens != document.tokens:
                raise DataError(
                    f"the document of '{document.samples[0].key}' has {tokens} tokens, not {document.tokens} as planned",
                    where=f"row {planned.number}",
                )
            total += tokens + (PAIR_OVERHEAD if document.is_pair else 0)
        if total > self._max_seq_len:
            raise DataError(
                f"the documents take {total} positions and do not fit into a row of {self._max_seq_len} positions",
                where=f"row {planned.number}",
            )

    def _tokenise(self, samples: Sequence[RowSample], members: MembersByKey) -> None:
        last_ns: int | None = None
        for sample in samples:
            planned = sample.planned
            sample_members = members[planned.shard_set, planned.number]
            try:
                if isinstance(sample_members, MmpackError):
                    raise sample_members
                tokenised = self._decoder.tokenise(
                    planned, sample_members, self._normalisers[planned.shard_set]
                )
                if last_ns is not None and tokenised.t_ns < last_ns:
                    raise IntegrityError(
                        f"the tick {tokenised.t_ns} ns is earlier than the tick {last_ns} ns of the previous slice"
                    )
            except MmpackError as error:
                sample.mark_unreadable(error)
            else:
                sample.tokenised, last_ns = tokenised, tokenised.t_ns

    def _decode(self, samples: Sequence[RowSample]) -> NDArray[np.uint8]:
        """Decodes the media of all samples. Returns the patches of all samples in one array.

        Samples that cannot be decoded leave their part of the array unused.
        """
        num_patches = 0
        for sample in samples:
            if sample.tokenised is not None:
                sample.patch_slice = slice(num_patches, num_patches + sample.tokenised.num_patches)
                num_patches = sample.patch_slice.stop
        patches = np.empty((num_patches, self._side, self._side, 3), np.uint8)
        for sample in samples:
            if sample.tokenised is not None:
                try:
                    sample.frames = self._decoder.decode(sample.tokenised, patches[sample.patch_slice])
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
        groups = [list(group) for _, group in groupby(samples, key=lambda sample: sample.tokenised is None)]
        for index, group in enumerate(groups):
            is_first, is_last = index == 0, index == len(groups) - 1
            prefix = self._prefix if document.is_run and is_first else self._prefix[:0]
            suffix = self._suffix if document.is_run and is_last else self._suffix[:0]
            if group[0].tokenised is None:
                size = sum(sample.planned.tokens for sample in group) + len(prefix) + len(suffix) + overhead
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
        pair: PairPositions = split_pair(is_text_position(self._layout, ids))
        start, index = builder.ends[-1], len(builder.valid)
        builder.ids[start : start + pair.eos + 1] = make_pair_ids(self._layout, ids, pair)
        builder.slice_ids[start + pair.positions] = slice_ids
        builder.pairs.append((index, index + 1))
        builder.cls.append((start + pair.cls[0], start + pair.cls[1]))
        builder.end_document(pair.bos, True, document.dataset, samples)
        builder.end_document(pair.eos + 1 - pair.bos, True, document.dataset, samples)

    def _document_ids(
        self,
        document: PlannedDocument,
        samples: Sequence[RowSample],
        prefix: NDArray[np.int32],
        suffix: NDArray[np.int32],
        builder: RowBuilder,
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Returns the ids of consecutive readable samples with prefix and suffix, and the slice index of each position."""
        tokenised = [sample.tokenised for sample in samples if sample.tokenised is not None]
        slice_indices = [-1] * len(tokenised)
        if document.is_run:
            span_ns = self._layout.config.time.span_ns
            # Python integers, clamped to the span: the difference of two int64 may exceed int64.
            elapsed_ns = [min(sample.t_ns - tokenised[0].t_ns, span_ns) for sample in tokenised]
            time_ids = self._layout.vocabulary.time_ids(np.array(elapsed_ns, np.int64))
            for sample, time_id in zip(tokenised, time_ids, strict=True):
                sample.ids[0] = time_id
            slice_indices = list(range(len(builder.t_ns), len(builder.t_ns) + len(tokenised)))
            builder.t_ns += [sample.t_ns for sample in tokenised]
        builder.samples += samples
        ids = np.concatenate([prefix, *(sample.ids for sample in tokenised), suffix])
        sizes = [len(prefix), *(len(sample.ids) for sample in tokenised), len(suffix)]
        return ids, np.repeat(np.array([-1, *slice_indices, -1], np.int32), sizes)

    def _token_ids(self, segments: Sequence[Segment]) -> NDArray[np.int32]:
        return np.array([self._layout.vocabulary.id(segment.token) for segment in segments], np.int32)


def _drop_incomplete_pair(document: PlannedDocument, samples: Sequence[RowSample]) -> None:
    """Marks all samples of a pair as missing if one of them is unreadable."""
    if document.is_pair and any(sample.tokenised is None for sample in samples):
        for sample in samples:
            sample.tokenised = None


def _make_unreadable_sample(row: int, sample: RowSample) -> UnreadableSample:
    planned = sample.planned
    return UnreadableSample(
        row=row,
        key=planned.key,
        shard=planned.shard,
        offset_bytes=planned.offset_bytes,
        size_bytes=planned.size_bytes,
        reason=sample.reason,
    )
