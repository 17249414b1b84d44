"""manifest.json: what the shards were made of and how, with the digests that let anyone check them."""

from __future__ import annotations

from typing import Any

import msgspec

from mmpack.config import Settings
from mmpack.errors import IntegrityError
from mmpack.shards.store import Store

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1
MAX_MANIFEST_BYTES = 1 << 30


class ShardEntry(Settings, frozen=True, kw_only=True):
    """One shard: its name, bytes, sha256, samples and tokens."""

    name: str
    size_bytes: int
    sha256: str
    samples: int
    tokens: int


class StreamEntry(Settings, frozen=True, kw_only=True):
    """One stream of a recording as it was matched; the offset is frozen here."""

    kind: str
    clock: str
    clock_domain: str
    semantics: str
    stamps_from: str
    resolution_ns: int
    policy: str
    required: bool
    offset_ns: int
    offset_source: str
    tolerance_ns: int


class RecordingEntry(Settings, frozen=True, kw_only=True):
    """One recording: its clock, reference and frozen offsets, and what became of its slices."""

    name: str
    clock: str
    clock_domain: str
    reference: str
    tick_period_ns: int
    ticks: int
    passed: int
    quarantined: int
    streams: dict[str, StreamEntry]
    clock_maps: list[dict[str, Any]] = []


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
        files: sha256 of index.parquet, quarantine.parquet and sync.parquet.
    """

    format: int
    mmpack: str
    config: dict[str, Any]
    layout_fingerprint: str
    vocabulary_size: int
    samples: int
    tokens: int
    slices: int
    quarantined: int
    tokens_by_modality: dict[str, int]
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
            mend="Run `mmpack build-shards` again; it resumes.",
        )
    try:
        manifest = msgspec.json.decode(store.read(MANIFEST_NAME, limit=MAX_MANIFEST_BYTES), type=Manifest)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise IntegrityError(f"the manifest is damaged ({error})", where=where) from None
    if manifest.format != FORMAT_VERSION:
        raise IntegrityError(
            f"format {manifest.format}, and this version reads {FORMAT_VERSION}", where=where
        )
    return manifest
