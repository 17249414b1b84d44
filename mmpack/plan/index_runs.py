"""The index as packing sees it: chains of indivisible slices, their lengths, and what each document costs beside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmpack.layout import Layout, LayoutConfig
from mmpack.settings import parse_settings
from mmpack.shards.index import MODALITY_COLUMNS
from mmpack.shards.manifest import Manifest


@dataclass(frozen=True)
class IndexRuns:
    """What there is to pack, in the order of the index.

    Attributes:
        lengths: int64, shape (n,), tokens of each sample, without what wraps a document.
        offsets: int64, shape (chains + 1,), chain c is the samples `offsets[c]` to `offsets[c + 1] - 1`: a run of
            consecutive slices of one recording, or one stand-alone sample.
        overhead: int64, shape (chains,), tokens that wrap a document of the chain.
        by_modality: int64, shape (n,), tokens of each sample by modality.
    """

    lengths: NDArray[np.int64]
    offsets: NDArray[np.int64]
    overhead: NDArray[np.int64]
    by_modality: dict[str, NDArray[np.int64]]


def load_index_runs(index: pa.Table, manifest: Manifest) -> IndexRuns:
    """The chains of a finished build. Raises ConfigError if its layout cannot be opened."""
    layout = Layout(parse_settings(manifest.config["layout"], LayoutConfig, where="manifest.json"))
    recording = _dictionary_codes(index["recording"])
    is_slice = _dictionary_codes(index["kind"], "slice") == 1
    run, ordinal = index["run"].to_numpy(), index["ordinal"].to_numpy()
    goes_on = is_slice[1:] & is_slice[:-1] & (np.diff(recording) == 0)
    goes_on &= (np.diff(run) == 0) & (np.diff(ordinal) == 1)
    heads = np.concatenate([[0], np.flatnonzero(~goes_on) + 1]) if index.num_rows else np.empty(0, np.int64)
    overhead = np.where(is_slice[heads], layout.document_overhead, 0)
    return IndexRuns(
        index["tokens"].to_numpy().astype(np.int64),
        np.concatenate([heads, [index.num_rows]]).astype(np.int64),
        overhead.astype(np.int64),
        {name: index[f"tokens_{name}"].to_numpy().astype(np.int64) for name in MODALITY_COLUMNS},
    )


def _dictionary_codes(column: pa.ChunkedArray, value: str | None = None) -> NDArray[np.int64]:
    """A text column as numbers: equal texts, equal numbers; 1 and 0 for being `value` or not."""
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    numbers = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    if value is None:
        return numbers
    return np.array([text == value for text in encoded.dictionary.to_pylist()], np.int64)[numbers]
