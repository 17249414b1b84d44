"""The documents of a data set: runs of consecutive slices that fit a row, and stand-alone samples.

A run ends where a slice was quarantined, where the recording has a gap, where the tolerance of the plan excludes a slice
and where a row is full. Runs are cut between slices only.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mmpack.errors import ConfigError, DataError
from mmpack.plan.catalog import IndexCatalog
from mmpack.plan.plan_config import DatasetConfig
from mmpack.plan.planned_rows import PAIR_OVERHEAD, STAND_ALONE_OVERHEAD
from mmpack.serialisation import canonical_json
from mmpack.settings import suggest
from mmpack.storage.array_tables import ArrayTables, open_tables, write_tables

#: Version of the document boundaries; increase it with every change of them.
DOCUMENTS_VERSION = 1
_NO_TOLERANCE = np.iinfo(np.int64).max


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DocumentTable:
    """The documents of one data set, in the order of its index.

    Attributes:
        start, stop: int64 (documents,), document d holds the samples `start[d]` to `stop[d] - 1` of the shard set.
        tokens: int32 (documents,), length of each document in positions, with document overhead and, for a pair, `PAIR_OVERHEAD`.
        total_tokens: sum of `tokens`.
        max_tokens: largest of `tokens`.
        num_samples: number of samples in the documents.
        num_excluded_slices: number of slices that are in no document, because their residual exceeds the tolerance of
            the plan.
    """

    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    tokens: NDArray[np.int32]
    total_tokens: int
    max_tokens: int
    num_samples: int
    num_excluded_slices: int

    def __len__(self) -> int:
        return len(self.tokens)


def load_documents(
    catalog: IndexCatalog, config: DatasetConfig, *, overhead: int, capacity: int, tolerance_ns: int | None
) -> DocumentTable:
    """Loads the documents of a data set from the cache folder, or builds and caches them.

    Args:
        catalog: index of the shard set.
        config: selection of samples.
        overhead: document overhead of a run of slices, in positions.
        capacity: positions of a row.
        tolerance_ns: largest residual of a planned slice in ns; None to plan all slices.

    Raises:
        ConfigError: no recording or source matches the selection.
        DataError: a sample does not fit a row, or no sample is left to plan.
    """
    where = f"datasets.{config.name}"
    names = catalog.recordings
    selected = np.array(
        [any(fnmatchcase(name, pattern) for pattern in config.select) for name in names], np.bool_
    )
    if not selected.any():
        raise ConfigError(
            f"no recording or source of {catalog.store.url} matches {list(config.select)}",
            where=where,
            hint=suggest(config.select[0], names) if config.select else "Set 'select'.",
        )
    max_residual_ns = _NO_TOLERANCE if tolerance_ns is None else tolerance_ns
    key = canonical_json(
        [
            DOCUMENTS_VERSION,
            np.flatnonzero(selected).tolist(),
            overhead,
            capacity,
            max_residual_ns,
            config.contrastive,
        ]
    )
    folder = catalog.folder.with_name(
        f"{catalog.folder.name}-documents-{hashlib.sha256(key).hexdigest()[:16]}"
    )
    tables = open_tables(folder)
    if tables is None:
        tables = _build_tables(
            catalog,
            folder,
            selected,
            overhead,
            capacity,
            PAIR_OVERHEAD if config.contrastive else 0,
            max_residual_ns,
            where,
        )
    meta = tables.meta
    if not len(tables["tokens"]):
        raise DataError(
            f"no sample is left to plan; {meta['num_excluded_slices']} slices exceed the tolerance",
            where=where,
            hint="Raise 'tolerance', or select other recordings.",
        )
    return DocumentTable(
        start=tables["start"],
        stop=tables["stop"],
        tokens=tables["tokens"],
        total_tokens=meta["total_tokens"],
        max_tokens=meta["max_tokens"],
        num_samples=meta["samples"],
        num_excluded_slices=meta["num_excluded_slices"],
    )


def _build_tables(
    catalog: IndexCatalog,
    folder: Path,
    selected: NDArray[np.bool_],
    overhead: int,
    capacity: int,
    pair_overhead: int,
    max_residual_ns: int,
    where: str,
) -> ArrayTables:
    """Cuts the selected samples into documents that fit a row of `capacity` positions, and writes the tables to `folder`."""
    columns = catalog.columns
    slice_kind = catalog.kinds.index("slice") if "slice" in catalog.kinds else -1
    names = ("kind", "recording", "run", "ordinal", "residual_ns", "tokens", "tokens_text")
    arrays = [columns[name] for name in names]
    scan: tuple[Any, ...] = (
        *arrays,
        selected,
        slice_kind,
        max_residual_ns,
        overhead,
        capacity - pair_overhead,
        pair_overhead,
    )
    # The first call counts the documents, the second writes them.
    counting: tuple[Any, ...] = (*scan, np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int32))
    count, num_samples, num_excluded, too_long = _cut_documents(*counting)
    if too_long >= 0:
        tokens = int(columns["tokens"][too_long])
        document_overhead = pair_overhead + (overhead if columns["kind"][too_long] == slice_kind else 0)
        raise DataError(
            f"{tokens} tokens do not fit a row of {capacity} positions together with {document_overhead} tokens of overhead",
            where=f"{where}, sample '{catalog.key(too_long)}'",
            hint=f"Set max_seq_len to {tokens + document_overhead} or more, or lower layout.vision.max_tokens and "
            "build again.",
        )
    start, stop, tokens = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.int32)
    writing: tuple[Any, ...] = (*scan, start, stop, tokens)
    _cut_documents(*writing)
    with write_tables(folder) as writer:
        for name, values in (("start", start), ("stop", stop), ("tokens", tokens)):
            writer.append(name, values)
        writer.meta = {
            "total_tokens": int(tokens.sum(dtype=np.int64)),
            "max_tokens": int(tokens.max(initial=0)),
            "samples": int(num_samples),
            "num_excluded_slices": int(num_excluded),
        }
    return writer.tables


@njit(cache=True)
def _continues_run(kind: Any, recording: Any, run: Any, ordinal: Any, i: int, slice_kind: int) -> bool:
    """Returns whether sample i continues the run of slices of sample i - 1."""
    return (
        kind[i] == slice_kind
        and kind[i - 1] == slice_kind
        and recording[i] == recording[i - 1]
        and run[i] == run[i - 1]
        and ordinal[i] == ordinal[i - 1] + 1
    )


@njit(cache=True, nogil=True)
def _cut_documents(
    kind: Any,
    recording: Any,
    run: Any,
    ordinal: Any,
    residual_ns: Any,
    tokens: Any,
    tokens_text: Any,
    selected: Any,
    slice_kind: int,
    max_residual_ns: int,
    overhead: int,
    max_tokens: int,
    pair_overhead: int,
    start: Any,
    stop: Any,
    length: Any,
) -> Any:
    """Cuts samples into documents.

    Args:
        kind, recording, run, ordinal, residual_ns, tokens, tokens_text: columns of the index, each (samples,).
        selected: bool (recordings,), recordings and sources whose samples are planned.
        slice_kind: index of the kind of slices in the column `kind`; -1 if there are no slices.
        max_residual_ns: largest residual of a planned slice.
        overhead: document overhead of a run of slices.
        max_tokens: largest length of a document, without the overhead of a pair.
        pair_overhead: tokens that are added to a document that becomes a pair; 0 if no document becomes one.
        start, stop, length: arrays that receive the documents, up to their size.

    Returns:
        (number of documents, number of samples in them, number of excluded slices, index of the first sample that is too
        long or -1).
    """
    num_documents = num_samples = num_excluded = 0
    first = -1  # the first sample of the open document; -1 if no document is open
    used = texts = 0
    for i in range(kind.size + 1):
        is_end = i == kind.size
        is_planned = not is_end and selected[recording[i]]
        if is_planned and kind[i] == slice_kind and residual_ns[i] > max_residual_ns:
            num_excluded += 1
            is_planned = False
        if first >= 0 and (
            not is_planned
            or not _continues_run(kind, recording, run, ordinal, i, slice_kind)
            or used + tokens[i] > max_tokens
        ):
            if num_documents < start.size:
                start[num_documents], stop[num_documents] = first, i
                # A pair has texts and other content. A run of slices has a time token for each slice.
                has_media = kind[first] == slice_kind or used > texts + STAND_ALONE_OVERHEAD
                is_pair = texts > 0 and has_media
                length[num_documents] = used + (pair_overhead if is_pair else 0)
            num_documents += 1
            first = -1
        if not is_planned:
            continue
        num_samples += 1
        if first < 0:
            first, used, texts = i, overhead if kind[i] == slice_kind else 0, 0
        used += tokens[i]
        texts += tokens_text[i]
        if used > max_tokens:
            return num_documents, num_samples, num_excluded, i
    return num_documents, num_samples, num_excluded, -1
