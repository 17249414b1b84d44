"""What a data set is drawn in: runs of consecutive slices that fit a row, and stand-alone samples.

A run ends where a slice was set aside, where the recording has a gap, where this plan's own sync gate bars a
slice, and where a row is full. It is cut between slices only.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mmpack.errors import ConfigError, DataError
from mmpack.plan.catalog import IndexCatalog
from mmpack.plan.plan_config import DatasetConfig
from mmpack.plan.planned import PAIR_OVERHEAD
from mmpack.serialisation import canonical_json
from mmpack.settings import suggest
from mmpack.storage.array_tables import ArrayTables, open_tables, write_tables

#: Raised with every change of how units are cut.
DOCUMENTS_VERSION = 1
_NO_GATE = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, eq=False)
class DocumentTable:
    """The units of one data set, in the order of its index.

    Attributes:
        start, stop: int64 (units,), unit u is the samples `start[u]` to `stop[u] - 1` of the build.
        tokens: int32 (units,), places of each as a document of its own.
        total_tokens: their sum.
        longest: the longest.
        samples: how many are planned.
        gated: how many are not, because their residual exceeds the plan's tolerance.
    """

    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    tokens: NDArray[np.int32]
    total_tokens: int
    max_tokens: int
    samples: int
    num_excluded_slices: int

    def __len__(self) -> int:
        return len(self.tokens)


def load_documents(
    catalog: IndexCatalog, config: DatasetConfig, *, overhead: int, capacity: int, tolerance_ns: int | None
) -> DocumentTable:
    """The units of a data set.

    Args:
        catalog: of the build.
        config: which of its samples.
        overhead: places around a run of slices.
        capacity: places of a row.
        tolerance_ns: largest residual of a slice that is planned; None for all.

    Raises:
        ConfigError: no recording has such a name.
        DataError: a sample does not fit a row; nothing is left to plan.
    """
    where = f"datasets.{config.name}"
    names = catalog.recordings
    chosen = np.array([any(fnmatchcase(name, each) for each in config.select) for name in names], np.bool_)
    if not chosen.any():
        raise ConfigError(
            f"no recording or source of {catalog.store.url} matches {list(config.select)}",
            where=where,
            hint=suggest(config.select[0], names) if config.select else "Set select.",
        )
    gate = _NO_GATE if tolerance_ns is None else tolerance_ns
    room = capacity - (PAIR_OVERHEAD if config.contrastive else 0)
    key = canonical_json(
        [DOCUMENTS_VERSION, np.flatnonzero(chosen).tolist(), overhead, capacity, gate, config.contrastive]
    )
    folder = catalog.folder.with_name(f"{catalog.folder.name}-units-{hashlib.sha256(key).hexdigest()[:16]}")
    tables = open_tables(folder)
    if tables is None:
        tables = _build_tables(catalog, folder, chosen, overhead, room, gate, config.contrastive, where)
    meta = tables.meta
    if not len(tables["tokens"]):
        raise DataError(
            f"nothing is left to plan; {meta['gated']} slices exceed the tolerance",
            where=where,
            hint="Raise the tolerance, or choose other recordings.",
        )
    return DocumentTable(
        tables["start"],
        tables["stop"],
        tables["tokens"],
        meta["total_tokens"],
        meta["longest"],
        meta["samples"],
        meta["gated"],
    )


def _build_tables(
    catalog: IndexCatalog,
    folder: Any,
    chosen: NDArray[np.bool_],
    overhead: int,
    capacity: int,
    gate: int,
    contrastive: bool,
    where: str,
) -> ArrayTables:
    columns = catalog.columns
    slice_kind = catalog.kinds.index("slice") if "slice" in catalog.kinds else -1
    text_kind = catalog.kinds.index("text") if "text" in catalog.kinds else -1
    names = ("kind", "recording", "run", "ordinal", "residual_ns", "tokens", "tokens_text")
    arrays = [columns[name] for name in names]
    scan: tuple[Any, ...] = (
        *arrays,
        chosen,
        slice_kind,
        text_kind,
        gate,
        overhead,
        capacity,
        PAIR_OVERHEAD if contrastive else 0,
    )
    # Once to count them, once to write them.
    counting: tuple[Any, ...] = (*scan, np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int32))
    count, samples, gated, too_long = _cut_documents(*counting)
    if too_long >= 0:
        tokens = int(columns["tokens"][too_long])
        raise DataError(
            f"{tokens} tokens do not fit a row of {capacity}, with what wraps them",
            where=f"{where}, sample '{catalog.key(too_long)}'",
            hint=f"Set max_seq_len to {tokens + overhead + PAIR_OVERHEAD} or more, or lower layout.vision.max_tokens and "
            "build again.",
        )
    start, stop, tokens = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(count, np.int32)
    filled: tuple[Any, ...] = (*scan, start, stop, tokens)
    _cut_documents(*filled)
    with write_tables(folder) as writer:
        for name, values in (("start", start), ("stop", stop), ("tokens", tokens)):
            writer.append(name, values)
        writer.meta = {
            "total_tokens": int(tokens.sum(dtype=np.int64)),
            "longest": int(tokens.max(initial=0)),
            "samples": int(samples),
            "gated": int(gated),
        }
    return writer.tables


@njit(cache=True)
def _continues_run(kind: Any, recording: Any, run: Any, ordinal: Any, i: int, slice_kind: int) -> bool:
    """Whether sample i follows sample i - 1 in a run of slices."""
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
    chosen: Any,
    slice_kind: int,
    text_kind: int,
    gate: int,
    overhead: int,
    capacity: int,
    pair: int,
    start: Any,
    stop: Any,
    length: Any,
) -> Any:
    """Writes the units, as many as there is room for; (units, samples, samples gated, first too long or -1)."""
    units = samples = gated = 0
    first = -1  # of the open unit
    used = texts = 0
    for i in range(kind.size + 1):
        ends = i == kind.size
        taken = not ends and chosen[recording[i]]
        if taken and kind[i] == slice_kind and residual_ns[i] > gate:
            gated += 1
            taken = False
        if first >= 0 and (
            not taken
            or not _continues_run(kind, recording, run, ordinal, i, slice_kind)
            or used + tokens[i] > capacity
        ):
            if units < start.size:
                start[units], stop[units] = first, i
                # A pair needs both media and texts.
                has_pair = texts > 0 and kind[first] != text_kind
                length[units] = used + (pair if has_pair else 0)
            units += 1
            first = -1
        if not taken:
            continue
        samples += 1
        if first < 0:
            first, used, texts = i, overhead if kind[i] == slice_kind else 0, 0
        used += tokens[i]
        texts += tokens_text[i]
        if used > capacity:
            return units, samples, gated, i
    return units, samples, gated, -1
