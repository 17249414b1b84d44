"""Rows from planned rows and the bytes of their samples: decode, put in place, label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import DataError, IntegrityError, MmpackError
from mmpack.layout import Layout, Modality, Segment
from mmpack.layout.special import ACTION_VALUE, PAD, PATCH, VALUE
from mmpack.masks import document_ids, position_ids
from mmpack.stream.config import RowsConfig
from mmpack.stream.media.numbers import Normaliser
from mmpack.stream.media.pairs import PairPlaces, pair_ids, pair_places, text_places
from mmpack.stream.media.sample import Numbers, Outline, SampleReader
from mmpack.stream.plan.types import PAIR_OVERHEAD, PlannedDocument, PlannedRow, PlannedSample
from mmpack.stream.read.faults import Fault
from mmpack.stream.row import IGNORE, Row

Members = Mapping[tuple[int, int], dict[str, bytes] | MmpackError]
"""By (source, number) of each sample: its members by extension, or why they could not be read."""


@dataclass(slots=True, eq=False)
class _Sample:
    """A sample on its way into the row.

    Attributes:
        planned: from the plan.
        outline: None if it cannot be read, or belongs to a pair of which another cannot.
        reason: why it cannot be read.
        patches: where its patches lie in the row's.
        frames: float32 (n, hop), of its sounds.
    """

    planned: PlannedSample
    outline: Outline | None = None
    reason: str = ""
    patches: slice = field(default_factory=lambda: slice(0, 0))
    frames: NDArray[np.float32] | None = None

    def refuse(self, error: MmpackError) -> None:
        """It cannot be read."""
        self.outline, self.reason = None, " ".join(str(error).split())


@dataclass(slots=True, eq=False)
class _Places:
    """The row's places as documents are put there, one after the other.

    Attributes:
        ids, slice_ids: int32 (L,), of the row.
        ends, valid, datasets, keys: of each document; `ends` starts with 0.
        t_ns: of each slice.
        pairs, cls: of each pair.
        read: samples that are in the row, in the order of their places.
    """

    ids: NDArray[np.int32]
    slice_ids: NDArray[np.int32]
    ends: list[int] = field(default_factory=lambda: [0])
    valid: list[bool] = field(default_factory=list)
    datasets: list[int] = field(default_factory=list)
    keys: list[tuple[str, ...]] = field(default_factory=list)
    t_ns: list[int] = field(default_factory=list)
    pairs: list[tuple[int, int]] = field(default_factory=list)
    cls: list[tuple[int, int]] = field(default_factory=list)
    read: list[_Sample] = field(default_factory=list)

    def close(self, size: int, valid: bool, dataset: int, samples: Sequence[_Sample]) -> None:
        """Ends a document `size` places behind the one before it."""
        self.ends.append(self.ends[-1] + size)
        self.valid.append(valid)
        self.datasets.append(dataset)
        self.keys.append(tuple(sample.planned.key for sample in samples))


class RowMaker:
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
        self._reader = SampleReader(layout, rows)
        self._normalisers = [Normaliser(each, layout.config.numeric) for each in statistics]
        self._side = layout.config.vision.token_side
        self._prefix, self._suffix = self._ids(layout.document_prefix), self._ids(layout.document_suffix)
        self._widths = {
            is_action: max(
                (
                    stream.width
                    for stream in layout.config.numeric
                    if stream.mode == "continuous" and (stream.role == "action") == is_action
                ),
                default=0,
            )
            for is_action in (False, True)
        }

    def make(self, planned: PlannedRow, found: Members) -> tuple[Row, list[Fault]]:
        """A row, and what of it could not be read.

        A sample that cannot be read keeps its places as an invalid document, together with those next to it in its run; a
        run goes on behind it as another document, with time tokens and positions from 0. A pair is invalid as a whole.

        Args:
            planned: from the plan.
            found: of every sample of `planned`.

        Raises:
            DataError: the documents are not as long as planned, or do not fit into a row.
        """
        documents = [[_Sample(sample) for sample in document.samples] for document in planned.documents]
        self._check(planned)
        for document, samples in zip(planned.documents, documents, strict=True):
            self._outline(samples, found)
            _settle_pair(document, samples)
        patches = self._decode([sample for samples in documents for sample in samples])
        places = _Places(
            np.full(self._max_seq_len, self._layout.vocabulary.id(PAD), np.int32),
            np.full(self._max_seq_len, -1, np.int32),
        )
        for document, samples in zip(planned.documents, documents, strict=True):
            _settle_pair(document, samples)
            self._put(document, samples, places)
        faults = [
            _fault(planned.number, sample) for samples in documents for sample in samples if sample.reason
        ]
        return self._row(planned.number, places, patches), faults

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
            total += tokens + (PAIR_OVERHEAD if document.pair else 0)
        if total > self._max_seq_len:
            raise DataError(
                f"documents of {total} places in a row of {self._max_seq_len}", where=f"row {planned.number}"
            )

    def _outline(self, samples: Sequence[_Sample], found: Members) -> None:
        last_ns: int | None = None
        for sample in samples:
            planned = sample.planned
            members = found[planned.source, planned.number]
            try:
                if isinstance(members, MmpackError):
                    raise members
                outline = self._reader.outline(planned, members, self._normalisers[planned.source])
                if last_ns is not None and outline.t_ns < last_ns:
                    raise IntegrityError(
                        f"its tick {outline.t_ns} ns lies before that of the slice before it"
                    )
            except MmpackError as error:
                sample.refuse(error)
            else:
                sample.outline, last_ns = outline, outline.t_ns

    def _decode(self, samples: Sequence[_Sample]) -> NDArray[np.uint8]:
        """The patches of all samples, allocated once; those that fail on the way leave theirs unused."""
        count = 0
        for sample in samples:
            if sample.outline is not None:
                sample.patches = slice(count, count + sample.outline.patches)
                count = sample.patches.stop
        patches = np.empty((count, self._side, self._side, 3), np.uint8)
        for sample in samples:
            if sample.outline is not None:
                try:
                    sample.frames = self._reader.decode(sample.outline, patches[sample.patches])
                except MmpackError as error:
                    sample.refuse(error)
        return patches

    def _put(self, document: PlannedDocument, samples: Sequence[_Sample], places: _Places) -> None:
        if document.pair and samples[0].outline is not None:
            self._put_pair(document, samples, places)
            return
        overhead = PAIR_OVERHEAD if document.pair else 0
        groups = [list(group) for _, group in groupby(samples, key=lambda each: each.outline is None)]
        for number, group in enumerate(groups):
            is_first, is_last = number == 0, number == len(groups) - 1
            prefix = self._prefix if document.is_run and is_first else self._prefix[:0]
            suffix = self._suffix if document.is_run and is_last else self._suffix[:0]
            if group[0].outline is None:
                size = sum(each.planned.tokens for each in group) + len(prefix) + len(suffix) + overhead
                places.close(size, False, document.dataset, group)
                continue
            ids, slice_ids = self._content(document, group, prefix, suffix, places)
            start = places.ends[-1]
            places.ids[start : start + len(ids)] = ids
            places.slice_ids[start : start + len(ids)] = slice_ids
            places.close(len(ids), True, document.dataset, group)

    def _put_pair(self, document: PlannedDocument, samples: Sequence[_Sample], places: _Places) -> None:
        prefix, suffix = (self._prefix, self._suffix) if document.is_run else (self._prefix[:0],) * 2
        ids, slice_ids = self._content(document, samples, prefix, suffix, places)
        dealt: PairPlaces = pair_places(text_places(self._layout, ids))
        start, number = places.ends[-1], len(places.valid)
        places.ids[start : start + dealt.eos + 1] = pair_ids(self._layout, ids, dealt)
        places.slice_ids[start + dealt.places] = slice_ids
        places.pairs.append((number, number + 1))
        places.cls.append((start + dealt.cls[0], start + dealt.cls[1]))
        places.close(dealt.bos, True, document.dataset, samples)
        places.close(dealt.eos + 1 - dealt.bos, True, document.dataset, samples)

    def _content(
        self,
        document: PlannedDocument,
        samples: Sequence[_Sample],
        prefix: NDArray[np.int32],
        suffix: NDArray[np.int32],
        places: _Places,
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Ids of consecutive readable samples with what wraps them, and the slice of each place."""
        outlines = [sample.outline for sample in samples if sample.outline is not None]
        numbers = [-1] * len(outlines)
        if document.is_run:
            span_ns = self._layout.config.time.span_ns
            # In Python's integers, and clamped: two int64 may lie further apart than int64 holds.
            since = [min(outline.t_ns - outlines[0].t_ns, span_ns) for outline in outlines]
            times = self._layout.vocabulary.time_ids(np.array(since, np.int64))
            for outline, time in zip(outlines, times, strict=True):
                outline.ids[0] = time
            numbers = list(range(len(places.t_ns), len(places.t_ns) + len(outlines)))
            places.t_ns += [outline.t_ns for outline in outlines]
        places.read += samples
        ids = np.concatenate([prefix, *(outline.ids for outline in outlines), suffix])
        sizes = [len(prefix), *(len(outline.ids) for outline in outlines), len(suffix)]
        return ids, np.repeat(np.array([-1, *numbers, -1], np.int32), sizes)

    def _row(self, number: int, places: _Places, patches: NDArray[np.uint8]) -> Row:
        names, ids = self._layout.vocabulary, places.ids
        cu_seqlens = np.array(places.ends, np.int32)
        valid = np.array(places.valid, np.bool_)
        documents = document_ids(cu_seqlens, len(ids))
        documents[~np.append(valid, False)[documents]] = -1  # pads are -1 and find the False at the end
        modality = names.modality(ids)
        patch_index = np.flatnonzero(ids == names.id(PATCH)).astype(np.int32)
        spans, grids = _pictures(places.read, patch_index)
        values, value_mask, value_stream = self._numbers(places.read, is_action=False)
        actions, action_mask, action_stream = self._numbers(places.read, is_action=True)
        audio = self._layout.config.audio
        frames = [sample.frames for sample in places.read if sample.frames is not None]
        audio_frames = np.concatenate([np.empty((0, audio.hop), np.float32), *frames])
        audio_index = np.flatnonzero(modality == Modality.AUDIO)[:: audio.codebooks]
        return Row(
            number=number,
            input_ids=ids,
            labels=self._labels(ids, documents),
            position_ids=position_ids(cu_seqlens, len(ids)),
            document_ids=documents,
            cu_seqlens=cu_seqlens,
            document_valid=valid,
            datasets=np.array(places.datasets, np.int16),
            keys=tuple(places.keys),
            modality=modality,
            slice_ids=places.slice_ids,
            t_ns=np.array(places.t_ns, np.int64),
            patches=_used(places.read, patches),
            patch_index=patch_index,
            image_spans=spans,
            image_grids=grids,
            values=values,
            value_mask=value_mask,
            value_index=np.flatnonzero(ids == names.id(VALUE)).astype(np.int32),
            value_stream=value_stream,
            actions=actions,
            action_mask=action_mask,
            action_index=np.flatnonzero(ids == names.id(ACTION_VALUE)).astype(np.int32),
            action_stream=action_stream,
            audio_frames=audio_frames,
            audio_index=audio_index[: len(audio_frames)].astype(np.int32),
            pairs=np.array(places.pairs, np.int32).reshape(-1, 2),
            cls_index=np.array(places.cls, np.int32).reshape(-1, 2),
        )

    def _labels(self, ids: NDArray[np.int32], documents: NDArray[np.int32]) -> NDArray[np.int32]:
        labels = np.full(len(ids), IGNORE, np.int32)
        following = ids[1:]
        held = [self._layout.vocabulary.id(token) for token in (PATCH, VALUE, ACTION_VALUE, PAD)]
        predicted = (documents[1:] == documents[:-1]) & (documents[1:] >= 0) & ~np.isin(following, held)
        labels[:-1][predicted] = following[predicted]
        return labels

    def _numbers(
        self, samples: Sequence[_Sample], *, is_action: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.int16]]:
        found: list[Numbers] = [
            each
            for sample in samples
            if sample.outline is not None
            for each in sample.outline.numbers
            if each.is_action == is_action
        ]
        total = sum(len(each.values) for each in found)
        values = np.zeros((total, self._widths[is_action]), np.float32)
        mask = np.zeros(values.shape, np.bool_)
        stream = np.empty(total, np.int16)
        start = 0
        for each in found:
            rows, width = slice(start, start + len(each.values)), each.values.shape[1]
            values[rows, :width], mask[rows, :width], stream[rows] = each.values, each.mask, each.stream
            start = rows.stop
        return values, mask, stream

    def _ids(self, segments: Sequence[Segment]) -> NDArray[np.int32]:
        return np.array([self._layout.vocabulary.id(segment.token) for segment in segments], np.int32)


def _settle_pair(document: PlannedDocument, samples: Sequence[_Sample]) -> None:
    """A pair of which one sample cannot be read is left out as a whole."""
    if document.pair and any(sample.outline is None for sample in samples):
        for sample in samples:
            sample.outline = None


def _pictures(
    samples: Sequence[_Sample], patch_index: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """[start, stop) and (rows, columns) of each picture; a frame of a tubelet is one."""
    grids = [
        (shown.grid.rows, shown.grid.cols)
        for sample in samples
        if sample.outline is not None
        for shown in sample.outline.shown
        for _ in range(shown.frames)
    ]
    found = np.array(grids, np.int32).reshape(-1, 2)
    sizes = found.prod(axis=1)
    starts = patch_index[np.cumsum(sizes) - sizes]
    return np.stack([starts, starts + sizes], axis=1).astype(np.int32), found


def _used(samples: Sequence[_Sample], patches: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The patches of samples that are in the row; only where one failed to decode is anything copied."""
    spans = [patches[sample.patches] for sample in samples]
    if sum(len(span) for span in spans) == len(patches):
        return patches
    return np.concatenate([patches[:0], *spans])


def _fault(row: int, sample: _Sample) -> Fault:
    planned = sample.planned
    return Fault(
        row=row,
        key=planned.key,
        shard=planned.shard,
        offset_bytes=planned.offset_bytes,
        size_bytes=planned.size_bytes,
        reason=sample.reason,
    )
