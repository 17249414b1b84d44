"""Fingerprint of a task: a digest of its settings and inputs.

Every key that is hashed is written out here or in the `identity` method of a source. No name of a class or an
attribute is hashed, so a rename in the code does not change a fingerprint.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from mmpack.clock import ClockMap
from mmpack.ingest.tasks.build_config import SourceConfig
from mmpack.recording import AudioSource, FrameSource, Recording, Stream
from mmpack.serialisation import canonical_json

#: Version of the fingerprints and of the other records below `_build/`. A build of another version is not resumed.
RECORDS_VERSION = 2
#: Tables and texts up to this size are hashed with their content, so that an edit that keeps the size is detected.
MAX_HASHED_BYTES = 64 << 20


def compute_fingerprint(
    settings: str, name: str, recording: Recording | None, source: SourceConfig | None
) -> str:
    """Computes the sha256 of the settings and all inputs: descriptions, timestamps, file names and sizes.

    Small files (tables, subtitles, lists of samples) are hashed with their content, media with their size.

    Args:
        settings: fingerprint of the build's settings.
        name: name of the task.
        recording: recording of the task; None for a stand-alone source.
        source: settings of the stand-alone source; None for a recording.
    """
    content: dict[str, Any] = {"version": RECORDS_VERSION, "settings": settings, "name": name}
    if recording is not None:
        content["reference"] = recording.reference
        content["clock_maps"] = [_describe_clock_map(map_) for map_ in recording.maps]
        content["streams"] = [_describe_stream(stream) for stream in recording.streams.values()]
    if source is not None:
        content["samples"] = _to_json(Path(source.path), hashes_files=True)
    return hashlib.sha256(canonical_json(content)).hexdigest()


def _describe_clock_map(map_: ClockMap) -> dict[str, Any]:
    return {
        "source": map_.source,
        "target": map_.target,
        "anchor_source_ns": map_.anchor_source_ns,
        "anchor_target_ns": map_.anchor_target_ns,
        "drift_ppm": map_.drift_ppm,
        "residual_ns": map_.residual_ns,
        "note": map_.note,
    }


def _describe_stream(stream: Stream) -> dict[str, Any]:
    hashes_files = not isinstance(stream.source, FrameSource | AudioSource)
    clock = stream.clock
    return {
        "name": stream.name,
        "kind": stream.kind,
        "clock": {"name": clock.name, "domain": clock.domain, "resolution_ns": clock.resolution_ns},
        "semantics": stream.semantics,
        "nominal_offset_ns": stream.nominal_offset_ns,
        "latency_ns": stream.latency_ns,
        "nominal_period_ns": stream.nominal_period_ns,
        "source": _to_json(stream.source.identity(), hashes_files=hashes_files),
        "files": sorted(stream.source.files()),
    }


def _to_json(value: Any, *, hashes_files: bool) -> Any:
    """Converts the identity of a source to JSON values.

    A path becomes its name and, if `hashes_files` is True and the file is small, the digest of its content. An array
    becomes its type, shape and digest.
    """
    if isinstance(value, dict):
        return {key: _to_json(inner, hashes_files=hashes_files) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(inner, hashes_files=hashes_files) for inner in value]
    if isinstance(value, Path):
        is_small = hashes_files and value.is_file() and value.stat().st_size <= MAX_HASHED_BYTES
        return [value.name, hashlib.sha256(value.read_bytes()).hexdigest() if is_small else ""]
    if isinstance(value, np.ndarray):
        return [str(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"an identity contains {type(value).__name__}, which is not a JSON value, path or array")
