"""Compares the manifest with the other files: digests, counts, sums, recordings and statistics."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmpack.errors import MmpackError
from mmpack.samples.statistics import NumericStatistics
from mmpack.shards import index
from mmpack.shards.manifest import SYNC_REPORTS_NAME, Manifest, make_recording_entry, read_sync_reports
from mmpack.storage.store import Store


def check_files(store: Store, manifest: Manifest) -> Iterator[str]:
    """Yields problems of files: missing or wrong digests, and shards that the manifest does not name."""
    expected = {index.INDEX_NAME, index.QUARANTINE_NAME, SYNC_REPORTS_NAME}
    if manifest.recordings:
        expected.add(index.SYNC_NAME)
    for name in sorted(expected - manifest.files.keys()):
        yield f"the manifest has no digest of {name}"
    for name in sorted(manifest.files.keys() - expected):
        yield f"the manifest has a digest of {name!r}, which is not a file of a shard set"
    for name in sorted(expected & manifest.files.keys()):
        digest = hashlib.sha256()
        try:
            for chunk in store.read_chunks(name):
                digest.update(chunk)
        except MmpackError as error:
            yield str(error)
            continue
        if digest.hexdigest() != manifest.files[name]:
            yield f"{name}: the sha256 differs from the manifest"
    names = Counter(shard.name for shard in manifest.shards)
    for name in sorted(name for name, count in names.items() if count > 1):
        yield f"the manifest names {name} {names[name]} times"
    for name in store.list_names("shards/"):
        if name.endswith(".tar") and name not in names:
            yield f"{name}: the manifest does not name this shard"


def check_index(manifest: Manifest, table: pa.Table) -> Iterator[str]:
    """Yields problems of the index: totals that differ from the manifest, repeated keys and unknown shards."""
    tokens = {name: _sum(table, f"tokens_{name}") for name in index.MODALITY_COLUMNS}
    kinds = Counter(_count_values(table["kind"]))
    totals: dict[str, tuple[Any, Any]] = {
        "samples": (manifest.samples, table.num_rows),
        "samples of all shards": (sum(shard.samples for shard in manifest.shards), table.num_rows),
        "tokens": (manifest.tokens, _sum(table, "tokens")),
        "tokens by modality": (manifest.tokens_by_modality, tokens),
        "slices": (manifest.slices, kinds["slice"]),
        "quarantined": (manifest.quarantined, sum(entry.quarantined for entry in manifest.recordings)),
    }
    for name, (stated, actual) in totals.items():
        if stated != actual:
            yield f"{name}: the manifest has {stated}, but the total is {actual}"
    if len(table["key"].unique()) != table.num_rows:
        yield "the index has two samples with the same key"
    shard_names = {shard.name for shard in manifest.shards}
    for name in sorted(_count_values(table["shard"]).keys() - shard_names):
        yield f"the index names the shard {name!r}, which is not in the manifest"


def check_recordings(store: Store, manifest: Manifest, table: pa.Table) -> Iterator[str]:
    """Yields problems of recordings: slices, quarantined slices and sync reports that do not match the manifest.

    Raises:
        StorageError: a file cannot be read.
        IntegrityError: a file is damaged.
    """
    where = f"{store.url}/{SYNC_REPORTS_NAME}"
    reports = [make_recording_entry(report, where=where) for report in read_sync_reports(store)]
    if reports != manifest.recordings:
        yield f"{SYNC_REPORTS_NAME}: the reports differ from the recordings in the manifest"
    quarantine_url = f"{store.url}/{index.QUARANTINE_NAME}"
    quarantine = index.read_parquet(store, index.QUARANTINE_NAME)
    index.require_schema(quarantine, index.QUARANTINE_SCHEMA, where=quarantine_url)
    quarantined = Counter(
        _count_values(quarantine.group_by(["recording", "ordinal"]).aggregate([])["recording"])
    )
    slices = Counter(_count_values(table.filter(pc.field("kind") == "slice")["recording"]))
    names = [entry.name for entry in manifest.recordings]
    if len(set(names)) != len(names):
        yield "the manifest names a recording twice"
    for name in sorted((quarantined.keys() | slices.keys()) - set(names)):
        yield f"the recording {name!r} is not in the manifest"
    for entry in manifest.recordings:
        if entry.ticks != entry.passed + entry.quarantined or slices[entry.name] != entry.passed:
            yield (
                f"{entry.name}: {entry.ticks} ticks, {entry.passed} passed and {entry.quarantined} quarantined in "
                f"the manifest, but {slices[entry.name]} slices in the index"
            )
        if quarantined[entry.name] != entry.quarantined:
            yield (
                f"{entry.name}: {quarantined[entry.name]} slices in {index.QUARANTINE_NAME}, "
                f"but {entry.quarantined} in the manifest"
            )


def check_statistics(manifest: Manifest, statistics: dict[str, NumericStatistics]) -> Iterator[str]:
    """Yields problems of the statistics of numeric streams: those that differ from the statistics of the rows."""
    for name in sorted(manifest.numeric.keys() | statistics.keys()):
        stated = manifest.numeric.get(name)
        if stated is None or name not in statistics:
            yield f"numeric stream {name!r}: {'no statistics' if stated is None else 'no rows'}"
            continue
        if not _is_equal(stated, statistics[name].to_manifest()):
            yield f"numeric stream {name!r}: the statistics in the manifest differ from those of the rows"


def _is_equal(stated: dict[str, Any], actual: dict[str, Any]) -> bool:
    if any(stated.get(key) != actual[key] for key in actual.keys() - {"mean", "std"}):
        return False
    # Sums of the same numbers in another order differ in the last bits.
    tolerance = 1e-9 * np.maximum(np.abs(_floats(actual["min"])), np.abs(_floats(actual["max"])))
    try:
        return all(
            len(stated[key]) == len(actual[key])
            and np.allclose(
                _floats(stated[key]), _floats(actual[key]), 1e-6, np.nan_to_num(tolerance), equal_nan=True
            )
            for key in ("mean", "std")
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return False


def _floats(values: Sequence[float | None]) -> NDArray[np.float64]:
    """Returns float64 values. None becomes NaN, because JSON has neither NaN nor infinity."""
    numbers = np.array([np.nan if value is None else value for value in values], np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _sum(table: pa.Table, column: str) -> int:
    return int(table[column].to_numpy().sum(dtype=np.int64))


def _count_values(column: pa.ChunkedArray) -> dict[str, int]:
    counts = column.cast(pa.string()).value_counts().to_pylist()
    return {entry["values"]: entry["counts"] for entry in counts}
