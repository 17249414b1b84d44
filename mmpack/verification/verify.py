"""Checks a shard set: every digest, every member, the index against the tars, token counts, and synchronisation."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmpack.errors import IntegrityError, MmpackError
from mmpack.layout import SampleMetadata, SliceMetadata
from mmpack.samples.description import (
    JSON_MEMBER,
    SampleDescription,
    SliceDescription,
    StandAloneDescription,
    decode_stream_description,
    read_description,
)
from mmpack.samples.kinds import KINDS, measure_stand_alone
from mmpack.samples.kinds.slice import measure_slice
from mmpack.samples.statistics import NumericStatistics, compute_statistics, merge_statistics
from mmpack.shards import index, tar
from mmpack.shards.manifest import RecordingEntry, ShardEntry
from mmpack.shards.reader import ShardSet, read_members
from mmpack.shards.sample_bytes import MAX_SAMPLE_BYTES
from mmpack.verification.slice_sync_check import check_slice_gate
from mmpack.verification.token_counts import TokenCountCheck, format_problem
from mmpack.verification.totals import check_files, check_index, check_recordings, check_statistics

_BATCH_ROWS = 4096  # number of index rows that are converted to Python objects at a time


@dataclass
class VerificationReport:
    """The result of a verification.

    Attributes:
        samples: number of samples without a problem.
        members: number of members of these samples.
        size_bytes: total size of the checked shards.
        problems: problems that were found, each with its file or sample; empty if there are none.
        notes: checks that were not possible, each with the reason.
    """

    samples: int = 0
    members: int = 0
    size_bytes: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(
    url: str, *, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> VerificationReport:
    """Checks the shard set at `url`, from the manifest to every member of every sample.

    Args:
        url: folder or object store URL.
        on_progress: is called after each shard with (bytes done, total bytes).

    Raises:
        IntegrityError: there is no manifest, or it is damaged.
    """
    shards, report = ShardSet(url), VerificationReport()
    manifest = shards.manifest
    report.problems += check_files(shards.store, manifest)
    if report.problems:
        # If the index is wrong, all further messages are misleading.
        return report
    try:
        table = shards.index
        table.validate(full=True)
        report.problems += check_index(manifest, table)
        report.problems += check_recordings(shards.store, manifest, table)
    except (MmpackError, pa.ArrowInvalid) as error:
        report.problems.append(str(error))
        return report
    checker = _SampleChecker(shards, report)
    total = sum(shard.size_bytes for shard in manifest.shards)
    names = [shard.name for shard in manifest.shards]
    for shard, rows in zip(manifest.shards, _group_by_shard(table, names), strict=True):
        try:
            checker.check_shard(shard, rows)
        except MmpackError as error:
            report.problems.append(str(error))
        report.size_bytes += shard.size_bytes
        on_progress(report.size_bytes, total)
    if not report.problems:
        report.problems += check_statistics(manifest, checker.statistics)
    return report


class _ShardReader:
    """A sequential reader of one shard that computes its sha256."""

    def __init__(self, chunks: Iterator[bytes], where: str) -> None:
        self._chunks, self._where = chunks, where
        self._buffer = bytearray()
        self._hash = hashlib.sha256()
        self.read_bytes = 0

    def read(self, size: int) -> bytes:
        """Reads the next `size` bytes. Raises IntegrityError if the shard ends before."""
        while len(self._buffer) < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise IntegrityError(
                    f"the shard is truncated at byte {self.read_bytes + len(self._buffer)}", where=self._where
                )
            self._hash.update(chunk)
            self._buffer += chunk
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self.read_bytes += size
        return data

    def read_rest(self) -> bytes:
        """Reads to the end of the shard; returns enough of the rest to compare it with `tar.END_OF_ARCHIVE`."""
        rest = bytes(self._buffer)
        for chunk in self._chunks:
            self._hash.update(chunk)
            rest += chunk[: max(0, len(tar.END_OF_ARCHIVE) + 1 - len(rest))]
        return rest

    def hexdigest(self) -> str:
        """Returns the sha256 of all bytes that were read from the store."""
        return self._hash.hexdigest()


def _group_by_shard(table: pa.Table, names: list[str]) -> Iterator[pa.Table]:
    """Yields the index rows of each shard in `names`, in the order of their offsets."""
    shard = table["shard"].combine_chunks().dictionary_encode()
    index_by_name = {name: shard_index for shard_index, name in enumerate(names)}
    # `check_index` has already reported rows of shards that are not in the manifest; they sort after all other rows.
    dictionary = [index_by_name.get(name, len(names)) for name in shard.dictionary.to_pylist()]
    shard_indices = np.array(dictionary, np.int64)[shard.indices.to_numpy(zero_copy_only=False)]
    order = np.lexsort((table["offset_bytes"].to_numpy(), shard_indices))
    if np.any(np.diff(order) != 1):
        table = table.take(order)
    bounds = np.searchsorted(shard_indices[order], np.arange(len(names) + 1))
    for start, stop in itertools.pairwise(bounds.tolist()):
        yield table.slice(start, stop - start)


class _SampleChecker:
    """A checker of all samples of a shard set that collects their token counts and the statistics of numeric streams."""

    def __init__(self, shards: ShardSet, report: VerificationReport) -> None:
        self._shards, self._report = shards, report
        self._recordings = {entry.name: entry for entry in shards.manifest.recordings}
        self._counter = TokenCountCheck(shards.manifest, report.problems, report.notes)
        self._rows: dict[str, list[NDArray[np.float64]]] = {}
        self.statistics: dict[str, NumericStatistics] = {}

    def check_shard(self, entry: ShardEntry, rows: pa.Table) -> None:
        """Checks one shard from its first byte to its last.

        Args:
            entry: manifest entry of the shard.
            rows: index rows of the shard, in the order of their offsets.

        Raises:
            MmpackError: a problem that makes it impossible to check the rest of the shard.
        """
        store = self._shards.store
        where = f"{store.url}/{entry.name}"
        if store.size(entry.name) != entry.size_bytes:
            raise IntegrityError(
                f"the shard has {store.size(entry.name)} bytes, not {entry.size_bytes} as in the manifest: truncated or replaced",
                where=where,
            )
        tokens = int(rows["tokens"].to_numpy().sum(dtype=np.int64))
        if (rows.num_rows, tokens) != (entry.samples, entry.tokens):
            self._report.problems.append(
                f"{where}: {rows.num_rows} samples with {tokens} tokens in the index, "
                f"but {entry.samples} with {entry.tokens} in the manifest"
            )
        reader = _ShardReader(store.read_chunks(entry.name), where)
        for batch in rows.to_batches(max_chunksize=_BATCH_ROWS):
            for row in batch.to_pylist():
                if row["offset_bytes"] != reader.read_bytes or not 0 < row["size_bytes"] <= MAX_SAMPLE_BYTES:
                    raise IntegrityError(
                        f"the index has sample '{row['key']}' at byte {row['offset_bytes']} with {row['size_bytes']} bytes, "
                        f"but the sample before it ends at byte {reader.read_bytes}",
                        where=where,
                    )
                self._check_sample(row, reader.read(row["size_bytes"]))
        if reader.read_rest() != tar.END_OF_ARCHIVE:
            self._report.problems.append(f"{where}: there are bytes after the last sample of the index")
        if reader.hexdigest() != entry.sha256:
            self._report.problems.append(f"{where}: the sha256 differs from the manifest")
        self._merge_rows()
        self._counter.count_pending()

    def _check_sample(self, row: dict[str, Any], data: bytes) -> None:
        """Checks one sample against its index row and appends a problem to the report."""
        try:
            members = read_members(data, row)
            is_slice = row["kind"] == "slice"
            metadata = self._check_slice(row, members) if is_slice else self._check_stand_alone(row, members)
            texts = metadata.text if isinstance(metadata, SliceMetadata) else (metadata.text,)
            if row["text_bytes"] != sum(len(text.encode()) for text in texts if isinstance(text, str)):
                raise IntegrityError("the size of the texts differs from the index")
            for name, column in index.media_columns(metadata).items():
                if row[name] != column:
                    raise IntegrityError(f"the column {name} of the index differs from the members")
        except MmpackError as error:
            self._report.problems.append(format_problem(row, error))
            return
        self._report.samples += 1
        self._report.members += len(members)
        self._counter.add(row, metadata)

    def _check_slice(self, row: dict[str, Any], members: dict[str, bytes]) -> SliceMetadata:
        """Checks a slice and collects its numeric rows. Raises MmpackError."""
        recording = self._recordings.get(row["recording"])
        if recording is None:
            raise IntegrityError(f"the recording '{row['recording']}' is not in the manifest")
        description = read_description(members.get(JSON_MEMBER, b""), SliceDescription, where="")
        _check_description(row, description)
        unknown = sorted(description.streams.keys() - recording.streams.keys())
        if unknown:
            raise IntegrityError(f"the stream '{unknown[0]}' is not in the manifest")
        streams = {
            name: decode_stream_description(recording.streams[name].kind, value, where=f"'{name}'")
            for name, value in description.streams.items()
        }
        content = measure_slice(streams, members)
        check_slice_gate(
            row,
            description,
            streams,
            content.timestamps_ns,
            recording,
            self._find_expected_streams(recording),
        )
        for name, rows in content.arrays.items():
            parts = self._rows.setdefault(name, [])
            if parts and parts[0].shape[1] != rows.shape[1]:
                raise IntegrityError(
                    f"'{name}' has {rows.shape[1]} columns, but earlier slices have {parts[0].shape[1]}"
                )
            parts.append(rows)
        return content.metadata

    def _find_expected_streams(self, recording: RecordingEntry) -> frozenset[str]:
        """Returns the names of the streams that a slice contains unless it gives a reason for their absence.

        An optional text stream may be absent without a reason. Of a numeric stream that is not in the layout, a slice
        contains no rows.
        """
        return frozenset(
            name
            for name, entry in recording.streams.items()
            if entry.kind in ("camera", "audio")
            or (entry.kind == "text" and entry.required)
            or name in self._counter.numeric_streams
        )

    def _check_stand_alone(self, row: dict[str, Any], members: dict[str, bytes]) -> SampleMetadata:
        """Checks a stand-alone sample and measures its metadata. Raises MmpackError."""
        if row["kind"] not in KINDS:
            raise IntegrityError(f"'{row['kind']}' is not a sample kind of this format")
        description = read_description(members.get(JSON_MEMBER, b""), StandAloneDescription, where="")
        _check_description(row, description)
        if (row["run"], row["t_ns"], row["residual_ns"]) != (row["ordinal"], 0, 0):
            raise IntegrityError("the index gives a stand-alone sample a time or a run")
        return measure_stand_alone(row["kind"], members)

    def _merge_rows(self) -> None:
        """Merges the statistics of the rows of a shard into those of the shards before it."""
        for name, parts in self._rows.items():
            recorded = self._shards.manifest.numeric.get(name, {}).get("columns")
            columns = recorded if isinstance(recorded, list) else []
            rows = np.concatenate(parts)
            merged, statistics = self.statistics.get(name), compute_statistics(columns, rows)
            if merged is not None and len(merged.count) != len(statistics.count):
                raise IntegrityError(
                    f"'{name}' has {len(statistics.count)} columns, but earlier shards have {len(merged.count)}"
                )
            self.statistics[name] = merge_statistics(merged, statistics) if merged else statistics
        self._rows = {}


def _check_description(row: dict[str, Any], description: SampleDescription) -> None:
    for name in ("kind", "recording", "ordinal"):
        if getattr(description, name) != row[name]:
            raise IntegrityError(f"the {name} of the description differs from the index")
    if row["key"] != f"{row['recording']}-{row['ordinal']:08d}":
        raise IntegrityError("the key is not made of the recording and the ordinal")


def verification_to_json(report: VerificationReport) -> dict[str, Any]:
    """Returns the report as JSON values; `ok` is true if there are no problems."""
    values: dict[str, Any] = msgspec.to_builtins(report)
    return values | {"ok": not report.problems}
