"""The check of finished shards: every digest, every member, index against tar, token counts, and the sync
gate once more.
"""

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
from mmpack.samples.description import DESCRIPTION_VERSION as DESCRIPTION_VERSION
from mmpack.samples.description import (
    JSON_MEMBER,
    SampleDescription,
    SliceDescription,
    StandAloneDescription,
    decode_stream_description,
    read_description,
)
from mmpack.samples.kinds import measure_stand_alone
from mmpack.samples.kinds.slice import measure_slice
from mmpack.samples.statistics import NumericStatistics, compute_statistics, merge_statistics
from mmpack.shards import index, tar
from mmpack.shards.manifest import RecordingEntry, ShardEntry
from mmpack.shards.reader import ShardSet, read_members
from mmpack.shards.sample_bytes import MAX_SAMPLE_BYTES
from mmpack.verification.slice_gate import check_slice_gate
from mmpack.verification.token_counts import TokenCountCheck, format_problem
from mmpack.verification.totals import check_files, check_index, check_recordings, check_statistics

STAND_ALONE_KINDS = ("text", "image_text", "speech")
_BATCH_ROWS = 4096  # of the index, as Python objects at a time


@dataclass
class VerificationReport:
    """What verification found.

    Attributes:
        samples, members, size_bytes: what was checked.
        faults: what is wrong, each with its place; empty if all is well.
        notes: what could not be checked, and why.
    """

    samples: int = 0
    members: int = 0
    size_bytes: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(
    url: str, *, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> VerificationReport:
    """Checks the build at `url` from its manifest down to every member of every sample.

    Args:
        url: folder or object store URL.
        tell: told (bytes done, bytes in all).

    Raises:
        IntegrityError: there is no manifest to check against.
    """
    shards, verdict = ShardSet(url), VerificationReport()
    manifest = shards.manifest
    verdict.problems += check_files(shards.store, manifest)
    if verdict.problems:
        return verdict  # with a wrong index every further message would be noise
    try:
        table = shards.index
        table.validate(full=True)
        verdict.problems += check_index(manifest, table)
        verdict.problems += check_recordings(shards.store, manifest, table)
    except (MmpackError, pa.ArrowInvalid) as error:
        verdict.problems.append(str(error))
        return verdict
    checker = _SampleChecker(shards, verdict)
    total = sum(shard.size_bytes for shard in manifest.shards)
    names = [shard.name for shard in manifest.shards]
    for shard, rows in zip(manifest.shards, _by_shard(table, names), strict=True):
        try:
            checker.shard(shard, rows)
        except MmpackError as error:
            verdict.problems.append(str(error))
        verdict.size_bytes += shard.size_bytes
        on_progress(verdict.size_bytes, total)
    if not verdict.problems:
        verdict.problems += check_statistics(manifest, checker.statistics)
    return verdict


class _ShardReader:
    """A shard read once from start to end, hashed on the way."""

    def __init__(self, chunks: Iterator[bytes], where: str) -> None:
        self._chunks, self._where = chunks, where
        self._buffer = bytearray()
        self._hash = hashlib.sha256()
        self.read_bytes = 0

    def take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise IntegrityError(
                    f"ends at byte {self.read_bytes + len(self._buffer)}: truncated", where=self._where
                )
            self._hash.update(chunk)
            self._buffer += chunk
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self.read_bytes += size
        return data

    def rest(self) -> bytes:
        left = bytes(self._buffer)
        for chunk in self._chunks:
            self._hash.update(chunk)
            left += chunk[: max(0, len(tar.END_OF_ARCHIVE) + 1 - len(left))]
        return left

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _by_shard(table: pa.Table, names: list[str]) -> Iterator[pa.Table]:
    """The index rows of each shard, in the order of their places."""
    shard = table["shard"].combine_chunks().dictionary_encode()
    number = {name: position for position, name in enumerate(names)}
    # Rows of a shard that is not the manifest's are reported already; they sort behind all others.
    known = np.array([number.get(name, len(names)) for name in shard.dictionary.to_pylist()], np.int64)
    numbers = known[shard.indices.to_numpy(zero_copy_only=False)]
    order = np.lexsort((table["offset_bytes"].to_numpy(), numbers))
    if np.any(np.diff(order) != 1):
        table = table.take(order)
    bounds = np.searchsorted(numbers[order], np.arange(len(names) + 1))
    for start, stop in itertools.pairwise(bounds.tolist()):
        yield table.slice(start, stop - start)


class _SampleChecker:
    """Goes through the samples, and gathers what can only be told of many."""

    def __init__(self, shards: ShardSet, verdict: VerificationReport) -> None:
        self._shards, self._verdict = shards, verdict
        self._recordings = {entry.name: entry for entry in shards.manifest.recordings}
        self._counter = TokenCountCheck(shards.manifest, verdict.problems, verdict.notes)
        self._rows: dict[str, list[NDArray[np.float64]]] = {}
        self.statistics: dict[str, NumericStatistics] = {}

    def shard(self, entry: ShardEntry, rows: pa.Table) -> None:
        """One shard from its first byte to its last. Raises MmpackError where nothing behind it can be told."""
        store = self._shards.store
        where = f"{store.url}/{entry.name}"
        if store.size(entry.name) != entry.size_bytes:
            raise IntegrityError(
                f"{store.size(entry.name)} bytes, the manifest says {entry.size_bytes}: truncated or replaced",
                where=where,
            )
        found = (rows.num_rows, int(rows["tokens"].to_numpy().sum(dtype=np.int64)))
        if found != (entry.samples, entry.tokens):
            self._verdict.problems.append(
                f"{where}: {found[0]} samples of {found[1]} tokens in the index, {entry.samples} of {entry.tokens} in the manifest"
            )
        stream = _ShardReader(store.read_chunks(entry.name), where)
        for batch in rows.to_batches(max_chunksize=_BATCH_ROWS):
            for row in batch.to_pylist():
                if row["offset_bytes"] != stream.read_bytes or not 0 < row["size_bytes"] <= MAX_SAMPLE_BYTES:
                    raise IntegrityError(
                        f"sample '{row['key']}' lies at byte {row['offset_bytes']} in the index, "
                        f"and the one before ends at {stream.read_bytes}",
                        where=where,
                    )
                self._sample(row, stream.take(row["size_bytes"]))
        if stream.rest() != tar.END_OF_ARCHIVE:
            self._verdict.problems.append(
                f"{where}: bytes behind the last sample that the index does not know"
            )
        if stream.hexdigest() != entry.sha256:
            self._verdict.problems.append(f"{where}: its sha256 is not the manifest's")
        self._merge_rows()
        self._counter.count()

    def _sample(self, row: dict[str, Any], data: bytes) -> None:
        try:
            members = read_members(data, row)
            facts = self._slice(row, members) if row["kind"] == "slice" else self._stand_alone(row, members)
            texts = facts.text if isinstance(facts, SliceMetadata) else (facts.text,)
            if row["text_bytes"] != sum(len(text.encode()) for text in texts if isinstance(text, str)):
                raise IntegrityError("its texts have another size than the index says")
            for name, column in index.media_columns(facts).items():
                if row[name] != column:
                    raise IntegrityError(f"its {name} is not what the index says")
        except MmpackError as error:
            self._verdict.problems.append(format_problem(row, error))
            return
        self._verdict.samples += 1
        self._verdict.members += len(members)
        self._counter.add(row, facts)

    def _slice(self, row: dict[str, Any], members: dict[str, bytes]) -> SliceMetadata:
        recording = self._recordings.get(row["recording"])
        if recording is None:
            raise IntegrityError(f"its recording '{row['recording']}' is not in the manifest")
        description = read_description(members.get(JSON_MEMBER, b""), SliceDescription, where="")
        _check_description(row, description)
        unknown = sorted(description.streams.keys() - recording.streams.keys())
        if unknown:
            raise IntegrityError(f"the stream '{unknown[0]}' is not in the manifest")
        streams = {
            name: decode_stream_description(recording.streams[name].kind, facts, where=f"'{name}'")
            for name, facts in description.streams.items()
        }
        content = measure_slice(streams, members)
        check_slice_gate(
            row, description, streams, content.stamps_ns, recording, self._check_content(recording)
        )
        for name, rows in content.arrays.items():
            parts = self._rows.setdefault(name, [])
            if parts and parts[0].shape[1] != rows.shape[1]:
                raise IntegrityError(f"'{name}' has {rows.shape[1]} columns, and {parts[0].shape[1]} before")
            parts.append(rows)
        return content.metadata

    def _check_content(self, recording: RecordingEntry) -> frozenset[str]:
        """Streams that a slice holds unless it says why not. Texts may be silent; a stream of numbers without
        a place in the layout was described by its stamps alone.
        """
        return frozenset(
            name
            for name, entry in recording.streams.items()
            if entry.kind in ("camera", "audio")
            or (entry.kind == "text" and entry.required)
            or name in self._counter.numeric
        )

    def _stand_alone(self, row: dict[str, Any], members: dict[str, bytes]) -> SampleMetadata:
        if row["kind"] not in STAND_ALONE_KINDS:
            raise IntegrityError(f"samples of kind '{row['kind']}' are not of this format")
        description = read_description(members.get(JSON_MEMBER, b""), StandAloneDescription, where="")
        _check_description(row, description)
        if (row["run"], row["t_ns"], row["residual_ns"]) != (row["ordinal"], 0, 0):
            raise IntegrityError("the index gives it a time or a run")
        return measure_stand_alone(row["kind"], members)

    def _merge_rows(self) -> None:
        """Statistics of a shard's rows, on top of those of the shards before."""
        for name, parts in self._rows.items():
            recorded = self._shards.manifest.numeric.get(name, {}).get("columns")
            columns = recorded if isinstance(recorded, list) else []
            rows = np.concatenate(parts)
            before, found = self.statistics.get(name), compute_statistics(columns, rows)
            if before is not None and len(before.count) != len(found.count):
                raise IntegrityError(
                    f"'{name}' has {len(found.count)} columns, and {len(before.count)} before"
                )
            self.statistics[name] = merge_statistics(before, found) if before else found
        self._rows = {}


def _check_description(row: dict[str, Any], description: SampleDescription) -> None:
    if description.version != DESCRIPTION_VERSION:
        raise IntegrityError(f"it is of version {description.version}, not {DESCRIPTION_VERSION}")
    for name in ("kind", "recording", "ordinal"):
        if getattr(description, name) != row[name]:
            raise IntegrityError(f"its {name} is not the index's")
    if row["key"] != f"{row['recording']}-{row['ordinal']:08d}":
        raise IntegrityError("its key is not made of its recording and number")


def verification_to_json(verdict: VerificationReport) -> dict[str, Any]:
    """A verdict as plain JSON values."""
    values = msgspec.to_builtins(verdict)
    return {{"problems": "faults"}.get(key, key): value for key, value in values.items()} | {
        "ok": not verdict.problems
    }
