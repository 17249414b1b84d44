"""The index as input of packing: runs of indivisible slices, their lengths and the overhead of their documents."""

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
    """The samples and runs of a shard set, in the order of its index.

    Attributes:
        lengths: int64 (samples,), tokens of each sample, without document overhead.
        offsets: int64 (runs + 1,), run r consists of the samples `offsets[r]` to `offsets[r + 1] - 1`: consecutive
            slices of one recording, or one stand-alone sample.
        overhead: int64 (runs,), document overhead of each run in tokens.
        by_modality: int64 (samples,) for each modality, tokens of this modality of each sample.
    """

    lengths: NDArray[np.int64]
    offsets: NDArray[np.int64]
    overhead: NDArray[np.int64]
    by_modality: dict[str, NDArray[np.int64]]


def load_index_runs(index: pa.Table, manifest: Manifest) -> IndexRuns:
    """Loads the runs of a shard set from its index.

    Raises:
        ConfigError: the token layout of the shard set cannot be opened.
    """
    layout = Layout(parse_settings(manifest.config["layout"], LayoutConfig, where="manifest.json"))
    recording = _dictionary_codes(index["recording"])
    is_slice = _dictionary_codes(index["kind"], "slice") == 1
    run, ordinal = index["run"].to_numpy(), index["ordinal"].to_numpy()
    continues = is_slice[1:] & is_slice[:-1] & (np.diff(recording) == 0)
    continues &= (np.diff(run) == 0) & (np.diff(ordinal) == 1)
    starts = (
        np.concatenate([[0], np.flatnonzero(~continues) + 1]) if index.num_rows else np.empty(0, np.int64)
    )
    overhead = np.where(is_slice[starts], layout.document_overhead, 0)
    return IndexRuns(
        index["tokens"].to_numpy().astype(np.int64),
        np.concatenate([starts, [index.num_rows]]).astype(np.int64),
        overhead.astype(np.int64),
        {name: index[f"tokens_{name}"].to_numpy().astype(np.int64) for name in MODALITY_COLUMNS},
    )


def _dictionary_codes(column: pa.ChunkedArray, value: str | None = None) -> NDArray[np.int64]:
    """Returns integer codes of a text column: equal codes for equal texts, or 1 where the text is `value` and else 0."""
    encoded = column.cast(pa.string()).combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    if value is None:
        return codes
    return np.array([text == value for text in encoded.dictionary.to_pylist()], np.int64)[codes]
