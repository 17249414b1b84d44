"""Row assembly: decodes the samples of a planned row and puts their tokens into the row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, groupby
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import DataError, IntegrityError, MmpackError
from mmpack.layout import Layout, Segment
from mmpack.plan.plan_config import RowsConfig
from mmpack.plan.planned_rows import PAIR_OVERHEAD, PlannedDocument, PlannedRow
from mmpack.quarantine import UnreadableSample
from mmpack.rows.decode.numeric import Normaliser
from mmpack.rows.row import Row
from mmpack.rows.row_builder import DecodedSample, RowBuilder
from mmpack.rows.sample_decoder import SampleDecoder, TokenisedSample

S = TypeVar("S")

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
        self._check_lengths(planned)
        tokenised = [self._tokenise(planned.number, document, members) for document in planned.documents]
        patches, decoded = self._decode(planned, tokenised)
        builder = RowBuilder(self._layout, self._max_seq_len)
        for document, samples in zip(planned.documents, decoded, strict=True):
            self._append_document(builder, document, samples)
        unreadable = [
            sample for samples in decoded for sample in samples if isinstance(sample, UnreadableSample)
        ]
        return builder.build(planned.number, patches), unreadable

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

    def _tokenise(
        self, row: int, document: PlannedDocument, members: MembersByKey
    ) -> list[TokenisedSample | UnreadableSample | None]:
        """Tokenises the samples of a document, see `_drop_incomplete_pair` for the None."""
        samples: list[TokenisedSample | UnreadableSample] = []
        last_ns: int | None = None
        for planned in document.samples:
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
                samples.append(planned.to_unreadable(row, error))
            else:
                samples.append(tokenised)
                last_ns = tokenised.t_ns
        return _drop_incomplete_pair(document, samples)

    def _decode(
        self, planned: PlannedRow, tokenised: Sequence[Sequence[TokenisedSample | UnreadableSample | None]]
    ) -> tuple[NDArray[np.uint8], list[list[DecodedSample | UnreadableSample | None]]]:
        """Decodes the media of the tokenised samples of every document.

        Returns:
            The patches of all samples in one array, and the samples of every document. Samples that cannot be decoded
            leave their part of the array unused.
        """
        num_patches = sum(
            sample.num_patches
            for samples in tokenised
            for sample in samples
            if isinstance(sample, TokenisedSample)
        )
        patches = np.empty((num_patches, self._side, self._side, 3), np.uint8)
        start = 0
        documents: list[list[DecodedSample | UnreadableSample | None]] = []
        for document, samples in zip(planned.documents, tokenised, strict=True):
            decoded: list[DecodedSample | UnreadableSample | None] = []
            for planned_sample, sample in zip(document.samples, samples, strict=True):
                if not isinstance(sample, TokenisedSample):
                    decoded.append(sample)
                    continue
                patch_slice = slice(start, start + sample.num_patches)
                start = patch_slice.stop
                try:
                    audio = self._decoder.decode(sample, patches[patch_slice])
                except MmpackError as error:
                    decoded.append(planned_sample.to_unreadable(planned.number, error))
                else:
                    decoded.append(DecodedSample(sample, audio, patch_slice))
            documents.append(_drop_incomplete_pair(document, decoded))
        return patches, documents

    def _append_document(
        self,
        builder: RowBuilder,
        document: PlannedDocument,
        samples: Sequence[DecodedSample | UnreadableSample | None],
    ) -> None:
        """Appends the samples of a document: adjacent readable or unreadable samples share a document of the row."""
        groups = groupby(
            zip(document.samples, samples, strict=True), key=lambda item: isinstance(item[1], DecodedSample)
        )
        no_ids = self._prefix[:0]
        prefix = self._prefix if document.is_run else no_ids
        remaining = len(samples)
        for _, group in groups:
            planned, outcomes = zip(*group, strict=True)
            remaining -= len(planned)
            suffix = self._suffix if document.is_run and not remaining else no_ids
            keys = tuple(sample.key for sample in planned)
            readable = [sample for sample in outcomes if isinstance(sample, DecodedSample)]
            if readable:
                slices = builder.add_samples(readable, are_slices=document.is_run)
                ids = self._join_ids(readable, prefix, suffix, is_run=document.is_run)
                sizes = [len(prefix), *(len(sample.tokenised.ids) for sample in readable), len(suffix)]
                slice_ids = np.repeat(np.array([-1, *slices, -1], np.int32), sizes)
                append = builder.append_pair if document.is_pair else builder.append_document
                append(ids, slice_ids, document.dataset, keys)
            else:
                size = sum(sample.tokens for sample in planned) + len(prefix) + len(suffix)
                builder.append_unreadable(
                    size + (PAIR_OVERHEAD if document.is_pair else 0), document.dataset, keys
                )
            prefix = no_ids

    def _join_ids(
        self,
        samples: Sequence[DecodedSample],
        prefix: NDArray[np.int32],
        suffix: NDArray[np.int32],
        *,
        is_run: bool,
    ) -> NDArray[np.int32]:
        """Returns the ids of consecutive samples with prefix and suffix, including time tokens and audio codes."""
        tokenised = [sample.tokenised for sample in samples]
        ids = np.concatenate([prefix, *(sample.ids for sample in tokenised), suffix])
        starts = list(accumulate((len(sample.ids) for sample in tokenised[:-1]), initial=len(prefix)))
        if is_run:
            span_ns = self._layout.config.time.span_ns
            # Python integers, clamped to the span: the difference of two int64 may exceed int64.
            elapsed_ns = [min(sample.t_ns - tokenised[0].t_ns, span_ns) for sample in tokenised]
            ids[starts] = self._layout.vocabulary.time_ids(np.array(elapsed_ns, np.int64))
        for sample, start in zip(samples, starts, strict=True):
            for pending, audio_ids in zip(sample.tokenised.audio, sample.audio.ids, strict=True):
                ids[start + pending.positions.start : start + pending.positions.stop] = audio_ids
        return ids

    def _token_ids(self, segments: Sequence[Segment]) -> NDArray[np.int32]:
        return np.array([self._layout.vocabulary.id(segment.token) for segment in segments], np.int32)


def _drop_incomplete_pair(
    document: PlannedDocument, samples: Sequence[S | UnreadableSample | None]
) -> list[S | UnreadableSample | None]:
    """Returns the samples, with None in place of the readable samples of a pair that has an unreadable one."""
    if document.is_pair and any(isinstance(sample, UnreadableSample) for sample in samples):
        return [sample if isinstance(sample, UnreadableSample) else None for sample in samples]
    return list(samples)
