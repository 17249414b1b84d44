"""manifest.json: the settings and inputs of a shard set, with the digests of its files."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from mmpack.errors import IntegrityError, StorageError
from mmpack.serialisation import Count, Int64, Record, decode_untrusted, from_builtins
from mmpack.storage.local import LocalStore
from mmpack.storage.store import Store

MANIFEST_NAME = "manifest.json"
INDEX_NAME = "index.parquet"
#: Raised with every change of the files of a shard set; shard sets of another version are rejected.
FORMAT_VERSION = 2
#: File with the list of the sync reports of all recordings.
SYNC_REPORTS_NAME = "sync.json"
NO_SHARD_SET = "there is no such folder"
"""Message of the error for a shard set whose folder does not exist."""
MAX_MANIFEST_BYTES = 1 << 30
ShardName = Annotated[str, msgspec.Meta(pattern=r"\Ashards/[^/\\\x00-\x1f]+\.tar\Z")]


class ShardEntry(Record, frozen=True, kw_only=True):
    """The manifest entry of one shard: name, size, digest, number of samples and of tokens."""

    name: ShardName
    size_bytes: Count
    sha256: str
    samples: Count
    tokens: Count


class StreamEntry(Record, frozen=True, kw_only=True):
    """The manifest entry of one stream of a recording: its match rule, with the final nominal offset.

    Fields:
        kind, clock, clock_domain, semantics: kind of the stream, its clock, and the meaning of its timestamps.
        timestamps_from, resolution_ns: source and resolution of the timestamps.
        period_ns: median distance between items.
        policy: policy that chose the items.
        required: True if a slice without the stream was quarantined.
        offset_ns: nominal offset from the tick.
        offset_source: source of the offset: 'given', 'learned' or 'none'.
        tolerance_ns: largest allowed |residual| of the policies "exact" and "nearest".
        limit_ns: largest age of a held value, or largest gap that is interpolated.
        before_ns, after_ns: time window of audio, table rows, tubelets and texts around the tick.
    """

    kind: str
    clock: str
    clock_domain: str
    semantics: str
    timestamps_from: str
    resolution_ns: Int64
    period_ns: Int64
    policy: str
    required: bool
    offset_ns: Int64
    offset_source: str
    tolerance_ns: Int64
    limit_ns: Int64
    before_ns: Int64
    after_ns: Int64


class ClockMapEntry(Record, frozen=True, kw_only=True):
    """The manifest entry of a clock map between two clocks of a recording.

    Fields:
        source, target: names of the clocks.
        drift_ppm: relative speed of the target clock minus 1, in parts per million.
        residual_ns: residual of the pairs of timestamps to which the map was fitted.
        note: remark on the fit, or empty.
    """

    source: str
    target: str
    drift_ppm: float
    residual_ns: Int64
    note: str


class RecordingEntry(Record, frozen=True, kw_only=True):
    """The manifest entry of one recording: clock, reference, match rules, and numbers of passed and quarantined slices."""

    name: str
    clock: str
    clock_domain: str
    reference: str
    tick_period_ns: Int64
    ticks: Count
    passed: Count
    quarantined: Count
    streams: dict[str, StreamEntry]
    clock_maps: list[ClockMapEntry] = []


class Manifest(Record, frozen=True, kw_only=True):
    """The content of manifest.json.

    Fields:
        format: version of this format.
        mmpack: version of mmpack that wrote the file.
        config: every setting of the build, with defaults, without paths.
        layout_fingerprint: fingerprint of the layout that counted the tokens in the index.
        vocabulary_size: number of token ids of that layout.
        samples, tokens, slices, quarantined: totals of the shard set.
        tokens_by_modality: total number of tokens of each modality.
        shards: entries of all shards, in the order of the index.
        recordings: entries of all recordings.
        numeric: statistics of each numeric stream, by name: count, mean, std, min and max of each column.
        files: sha256 of index.parquet, quarantine.parquet and sync.json, and of sync.parquet if there are recordings.
    """

    format: Int64
    mmpack: str
    config: dict[str, Any]
    layout_fingerprint: str
    vocabulary_size: Count
    samples: Count
    tokens: Count
    slices: Count
    quarantined: Count
    tokens_by_modality: dict[str, Count]
    shards: list[ShardEntry]
    recordings: list[RecordingEntry]
    numeric: dict[str, dict[str, Any]]
    files: dict[str, str]


class _ManifestFormat(msgspec.Struct):
    """The version of a manifest, whatever its other fields are."""

    format: Int64


def write_manifest(store: Store, manifest: Manifest) -> None:
    """Writes the manifest as indented JSON; equal manifests give equal bytes. Raises StorageError."""
    encoded = msgspec.json.encode(manifest, order="deterministic")
    store.write(MANIFEST_NAME, msgspec.json.format(encoded, indent=2) + b"\n")


def read_manifest(store: Store) -> Manifest:
    """Reads the manifest of a shard set.

    Raises:
        IntegrityError: there is no manifest (the build is unfinished), it is damaged, or it has another format version.
        StorageError: the folder does not exist, or the manifest cannot be read.
    """
    where = f"{store.url}/{MANIFEST_NAME}"
    if not store.exists(MANIFEST_NAME):
        if not _has_files(store):
            raise StorageError(NO_SHARD_SET, where=store.url, hint="Check the path.")
        raise IntegrityError(
            f"the build is not finished: there is no {MANIFEST_NAME}",
            where=store.url,
            hint="Run `mmpack build-shards` again to resume the build.",
        )
    data = store.read(MANIFEST_NAME, limit=MAX_MANIFEST_BYTES)
    # A manifest of another version may have other fields, so its version is read first.
    format_ = decode_untrusted(data, _ManifestFormat, noun="the manifest", where=where).format
    if format_ != FORMAT_VERSION:
        raise IntegrityError(
            f"the shard set has format version {format_}, but this version of mmpack reads version {FORMAT_VERSION}",
            where=where,
            hint="Build it again.",
        )
    return decode_untrusted(data, Manifest, noun="the manifest", where=where)


def _has_files(store: Store) -> bool:
    """Returns whether the folder of a store exists; in an object store, whether an object is below its URL."""
    if isinstance(store, LocalStore):
        return store.root.is_dir()
    return next(store.list_names(), None) is not None


def make_recording_entry(report: dict[str, Any], *, where: str) -> RecordingEntry:
    """Makes the manifest entry of a recording from its sync report. Raises IntegrityError for an invalid report."""

    def select_fields(value: Any, type_: type[msgspec.Struct]) -> Any:
        fields = type_.__struct_fields__
        return {key: value[key] for key in fields if key in value} if isinstance(value, dict) else value

    clock, streams = report.get("clock"), report.get("streams")
    entry = select_fields(report, RecordingEntry) | {"name": report.get("recording")}
    if isinstance(clock, dict):
        entry |= {"clock": clock.get("name"), "clock_domain": clock.get("domain")}
    if isinstance(streams, dict):
        entry["streams"] = {name: select_fields(stream, StreamEntry) for name, stream in streams.items()}
    try:
        return from_builtins(entry, RecordingEntry)
    except msgspec.ValidationError as error:
        raise IntegrityError(f"is not a sync report ({error})", where=where) from None


def read_sync_reports(store: Store) -> list[dict[str, Any]]:
    """Reads the sync reports of all recordings of a shard set. Raises StorageError, IntegrityError."""
    data = store.read(SYNC_REPORTS_NAME, limit=MAX_MANIFEST_BYTES)
    where = f"{store.url}/{SYNC_REPORTS_NAME}"
    return decode_untrusted(data, list[dict[str, Any]], noun="the sync report", where=where)
