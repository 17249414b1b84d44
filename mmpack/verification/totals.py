"""The manifest's own figures against the files beside it: digests, counts, sums, recordings."""

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
    """Files that are missing from the manifest or differ from it, and shards that it does not name."""
    expected = {index.INDEX_NAME, index.QUARANTINE_NAME, SYNC_REPORTS_NAME}
    if manifest.recordings:
        expected.add(index.SYNC_NAME)
    for name in sorted(expected - manifest.files.keys()):
        yield f"the manifest has no digest of {name}"
    for name in sorted(manifest.files.keys() - expected):
        yield f"the manifest has a digest of {name!r}, which is no file of a build"
    for name in sorted(expected & manifest.files.keys()):
        digest = hashlib.sha256()
        try:
            for chunk in store.read_chunks(name):
                digest.update(chunk)
        except MmpackError as error:
            yield str(error)
            continue
        if digest.hexdigest() != manifest.files[name]:
            yield f"{name}: its sha256 is not the manifest's"
    names = Counter(shard.name for shard in manifest.shards)
    for name in sorted(name for name, times in names.items() if times > 1):
        yield f"the manifest names {name} {names[name]} times"
    for name in store.list_names("shards/"):
        if name.endswith(".tar") and name not in names:
            yield f"{name}: is no shard of the manifest"


def check_index(manifest: Manifest, table: pa.Table) -> Iterator[str]:
    """Totals of the manifest that the index does not add up to."""
    tokens = {name: _sum(table, f"tokens_{name}") for name in index.MODALITY_COLUMNS}
    kinds = Counter(_counted(table["kind"]))
    figures: dict[str, tuple[Any, Any]] = {
        "samples": (manifest.samples, table.num_rows),
        "samples of all shards": (sum(shard.samples for shard in manifest.shards), table.num_rows),
        "tokens": (manifest.tokens, _sum(table, "tokens")),
        "tokens by modality": (manifest.tokens_by_modality, tokens),
        "slices": (manifest.slices, kinds["slice"]),
        "quarantined": (manifest.quarantined, sum(entry.quarantined for entry in manifest.recordings)),
    }
    for name, (stated, found) in figures.items():
        if stated != found:
            yield f"{name}: the manifest says {stated}, and there are {found}"
    if len(table["key"].unique()) != table.num_rows:
        yield "the index has two samples of one key"
    known = {shard.name for shard in manifest.shards}
    for name in sorted(_counted(table["shard"]).keys() - known):
        yield f"the index names {name!r}, which is no shard of the manifest"


def check_recordings(store: Store, manifest: Manifest, table: pa.Table) -> Iterator[str]:
    """Recordings whose slices, quarantine and sync report do not agree. Raises StorageError, IntegrityError."""
    where = f"{store.url}/{SYNC_REPORTS_NAME}"
    reports = [make_recording_entry(report, where=where) for report in read_sync_reports(store)]
    if reports != manifest.recordings:
        yield f"{SYNC_REPORTS_NAME}: is not what the manifest says of the recordings"
    place = f"{store.url}/{index.QUARANTINE_NAME}"
    quarantine = index.read_parquet(store, index.QUARANTINE_NAME)
    index.require_schema(quarantine, index.QUARANTINE_SCHEMA, where=place)
    aside = Counter(_counted(quarantine.group_by(["recording", "ordinal"]).aggregate([])["recording"]))
    slices = Counter(_counted(table.filter(pc.field("kind") == "slice")["recording"]))
    names = [entry.name for entry in manifest.recordings]
    if len(set(names)) != len(names):
        yield "the manifest names a recording twice"
    for name in sorted((aside.keys() | slices.keys()) - set(names)):
        yield f"the recording {name!r} is not in the manifest"
    for entry in manifest.recordings:
        if entry.ticks != entry.passed + entry.quarantined or slices[entry.name] != entry.passed:
            yield (
                f"{entry.name}: {entry.ticks} ticks, {entry.passed} passed and {entry.quarantined} set aside in "
                f"the manifest, {slices[entry.name]} slices in the index"
            )
        if aside[entry.name] != entry.quarantined:
            yield f"{entry.name}: {aside[entry.name]} slices in {index.QUARANTINE_NAME}, {entry.quarantined} in the manifest"


def check_statistics(manifest: Manifest, statistics: dict[str, NumericStatistics]) -> Iterator[str]:
    """Statistics of numeric streams that are not those of the rows."""
    for name in sorted(manifest.numeric.keys() | statistics.keys()):
        stated = manifest.numeric.get(name)
        if stated is None or name not in statistics:
            yield f"numeric stream {name!r}: {'no statistics' if stated is None else 'no rows'}"
            continue
        if not _is_equal(stated, statistics[name].to_manifest()):
            yield f"numeric stream {name!r}: the statistics in the manifest are not those of its rows"


def _is_equal(stated: dict[str, Any], actual: dict[str, Any]) -> bool:
    if any(stated.get(key) != actual[key] for key in actual.keys() - {"mean", "std"}):
        return False
    # Sums of the same numbers in another order differ in their last bits.
    slack = 1e-9 * np.maximum(np.abs(_floats(actual["min"])), np.abs(_floats(actual["max"])))
    try:
        return all(
            len(stated[key]) == len(actual[key])
            and np.allclose(
                _floats(stated[key]), _floats(actual[key]), 1e-6, np.nan_to_num(slack), equal_nan=True
            )
            for key in ("mean", "std")
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return False


def _floats(values: Sequence[float | None]) -> NDArray[np.float64]:
    """JSON has neither NaN nor infinity, and writes None."""
    numbers = np.array([np.nan if value is None else value for value in values], np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _sum(table: pa.Table, column: str) -> int:
    return int(table[column].to_numpy().sum(dtype=np.int64))


def _counted(column: pa.ChunkedArray) -> dict[str, int]:
    counts = column.cast(pa.string()).value_counts().to_pylist()
    return {entry["values"]: entry["counts"] for entry in counts}
