"""manifest.json: what the shards were made of and how, with the digests that let anyone check them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from mmpack.errors import IntegrityError
from mmpack.serialisation import Count, Int64, decode_untrusted, from_builtins
from mmpack.settings import Settings
from mmpack.storage.store import Store

MANIFEST_NAME = "manifest.json"
INDEX_NAME = "index.parquet"
FORMAT_VERSION = 1
#: What each recording's sync found, a list of reports.
SYNC_REPORTS_NAME = "sync.json"
MAX_MANIFEST_BYTES = 1 << 30
ShardName = Annotated[str, msgspec.Meta(pattern=r"\Ashards/[^/\\\x00-\x1f]+\.tar\Z")]


class ShardEntry(Settings, frozen=True, kw_only=True):
    """One shard: its name, bytes, sha256, samples and tokens."""

    name: ShardName
    size_bytes: Count
    sha256: str
    samples: Count
    tokens: Count


class StreamEntry(Settings, frozen=True, kw_only=True):
    """One stream of a recording as it was matched; the offset is frozen here.

    Fields:
        kind, clock, clock_domain, semantics, stamps_from, resolution_ns: of the stream and its stamps.
        period_ns: median distance of its items.
        policy: how it was matched.
        required: whether a slice without it was set aside.
        offset_ns, offset_source: nominal offset to the tick: 'given', 'learned' or 'none'.
        tolerance_ns: largest |residual| of exact and nearest items.
        limit_ns: oldest value that is held, widest gap that is interpolated over.
        before_ns, after_ns: the window of sound, rows, tubelets and texts.
    """

    kind: str
    clock: str
    clock_domain: str
    semantics: str
    stamps_from: str
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


class ClockMapEntry(Settings, frozen=True, kw_only=True):
    """A map between two of a recording's clocks: how much faster the target's stamps grow, and how well the
    pairs it was fitted to lie on it.
    """

    source: str
    target: str
    drift_ppm: float
    residual_ns: Int64
    note: str


class RecordingEntry(Settings, frozen=True, kw_only=True):
    """One recording: its clock, reference and frozen offsets, and what became of its slices."""

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


class Manifest(Settings, frozen=True, kw_only=True):
    """The whole file.

    Fields:
        format: version of this format.
        mmpack: version that wrote it.
        config: every setting of the build, defaults written out, without paths.
        layout_fingerprint: of the layout that the index's token counts are under.
        vocabulary_size: ids of that layout.
        samples, tokens, slices, quarantined: totals.
        tokens_by_modality: likewise.
        shards: in the order of the index.
        recordings: by name.
        numeric: by stream, count, mean, std, min and max of each column.
        files: sha256 of index.parquet, quarantine.parquet, sync.json, and with recordings sync.parquet.
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


def write_manifest(store: Store, manifest: Manifest) -> None:
    """Writes it, readable and the same to the byte for the same content. Raises StorageError."""
    encoded = msgspec.json.encode(manifest, order="deterministic")
    store.write(MANIFEST_NAME, msgspec.json.format(encoded, indent=2) + b"\n")


def read_manifest(store: Store) -> Manifest:
    """Reads it back.

    Raises:
        IntegrityError: there is none (the build is unfinished), it is damaged, or of another format version.
    """
    where = f"{store.url}/{MANIFEST_NAME}"
    if not store.exists(MANIFEST_NAME):
        raise IntegrityError(
            "no manifest: this is no finished build",
            where=where,
            hint="Run `mmpack build-shards` again; it resumes.",
        )
    data = store.read(MANIFEST_NAME, limit=MAX_MANIFEST_BYTES)
    manifest = decode_untrusted(data, Manifest, noun="the manifest", where=where)
    if manifest.format != FORMAT_VERSION:
        raise IntegrityError(
            f"format {manifest.format}, and this version reads {FORMAT_VERSION}", where=where
        )
    return manifest


def make_recording_entry(report: dict[str, Any], *, where: str) -> RecordingEntry:
    """What the manifest keeps of a recording's sync report. Raises IntegrityError for what is no report."""

    def kept(facts: Any, kind: type[msgspec.Struct]) -> Any:
        known = kind.__struct_fields__
        return {key: facts[key] for key in known if key in facts} if isinstance(facts, dict) else facts

    clock, streams = report.get("clock"), report.get("streams")
    entry = kept(report, RecordingEntry) | {"name": report.get("recording")}
    if isinstance(clock, dict):
        entry |= {"clock": clock.get("name"), "clock_domain": clock.get("domain")}
    if isinstance(streams, dict):
        entry["streams"] = {name: kept(facts, StreamEntry) for name, facts in streams.items()}
    try:
        return from_builtins(entry, RecordingEntry)
    except msgspec.ValidationError as error:
        raise IntegrityError(f"is no sync report ({error})", where=where) from None


def read_sync_reports(store: Store) -> list[dict[str, Any]]:
    """The sync report of every recording of a finished build. Raises StorageError, IntegrityError."""
    data = store.read(SYNC_REPORTS_NAME, limit=MAX_MANIFEST_BYTES)
    where = f"{store.url}/{SYNC_REPORTS_NAME}"
    return decode_untrusted(data, list[dict[str, Any]], noun="the sync report", where=where)
