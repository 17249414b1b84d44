"""Small shard sets, and rows planned by hand from their indexes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpack import ShardSet
from mmpack.ingest import BuildConfig, build_shards
from mmpack.layout import Layout, LayoutConfig
from mmpack.plan.plan_config import RowsConfig
from mmpack.plan.planned_rows import PlannedDocument, PlannedRow, PlannedSample
from mmpack.rows.assemble import MembersByKey, RowAssembler
from mmpack.settings import load_settings, parse_settings
from tests.ingest.build_inputs import make_inputs
from tools.make_recording import CameraSettings, make_recording

CAMERAS = ("cam_back", "cam_back_left", "cam_back_right", "cam_front", "cam_front_left", "cam_front_right")
_LAYOUT: dict[str, Any] = {
    "vision": {"patch_size": 8, "merge": 2, "max_tokens": 6},
    "audio": {"codebooks": 2, "codebook_size": 64},
    "cameras": list(CAMERAS),
    "numeric": [
        {"name": "imu", "width": 6},
        {"name": "can", "width": 2, "mode": "discrete", "bins": 32, "low": [0.0, -1.0], "high": [40.0, 1.0]},
        {"name": "action", "width": 3, "role": "action"},
    ],
}


def build_mixed(root: Path) -> ShardSet:
    """Builds a shard set with every kind of sample; slices have several rows of `imu`, and some have texts."""
    sources = load_settings(make_inputs(root, drives=0), BuildConfig).resolve_paths(root).samples
    make_recording(root / "drive", CameraSettings(seconds=2.0, size=(48, 64)), seed=3, faults=False)
    config = parse_settings(
        {
            "recordings": [str(root / "drive")],
            "sync": {"streams": {"imu": {"policy": "window"}, "subtitles": {"once": False}}},
            "layout": _LAYOUT,
        },
        BuildConfig,
        where="build.toml",
    )
    return _build(config, root / "out", sources)


def build_tubelets(root: Path) -> ShardSet:
    """Builds a shard set of slices with tubelets of two or three frames."""
    make_recording(root / "drive", CameraSettings(seconds=2.0, size=(48, 64)), seed=4, faults=False)
    config = parse_settings(
        {
            "recordings": [str(root / "drive")],
            "max_quarantine": 0.5,
            "sync": {"reference": "rate:5", "streams": {"cam_*": {"policy": "window"}}},
            "layout": _LAYOUT,
        },
        BuildConfig,
        where="build.toml",
    )
    return _build(config, root / "out", ())


def build_cameras(root: Path, real_data: Path) -> ShardSet:
    """Builds a shard set of real keyframes, three seconds apart, with the default vision layout."""
    tables = ['[recording]\nname = "six"\nclock = "vehicle"\n[clocks.vehicle]\ndomain = "utc"\n']
    for index, camera in enumerate(CAMERAS):
        (root / camera).mkdir()
        images = sorted((real_data / "nuscenes_drivelm" / "samples" / camera.upper()).glob("*.jpg"))
        for count, path in enumerate(images):
            timestamp_us = 1_600_000_000_000_000 + count * 3_000_000 + index * 7_000
            (root / camera / f"{camera}_{timestamp_us}.jpg").write_bytes(path.read_bytes())
        time = "{ pattern = '_(\\d+)\\.jpg$', unit = \"us\" }"
        tables.append(f'[streams.{camera}]\nkind = "camera"\npath = "{camera}"\ntime = {time}\n')
    (root / "recording.toml").write_text("".join(tables))
    config = parse_settings({"recordings": [str(root)]}, BuildConfig, where="build.toml")
    return _build(config, root / "out", ())


def _build(config: BuildConfig, out: Path, sources: Sequence[Any]) -> ShardSet:
    from msgspec.structs import replace

    outcome = build_shards(replace(config, samples=tuple(sources)), str(out))
    assert outcome.failures == []
    return ShardSet(str(out))


def open_layout(shards: ShardSet) -> Layout:
    """Opens the token layout of a shard set."""
    return Layout(parse_settings(shards.manifest.config["layout"], LayoutConfig, where="manifest.json"))


def make_assembler(shards: ShardSet, max_seq_len: int, rows: RowsConfig | None = None) -> RowAssembler:
    """Makes a row assembler for one shard set."""
    return RowAssembler(open_layout(shards), max_seq_len, [shards.manifest.numeric], rows or RowsConfig())


def plan_sample(row: Mapping[str, Any], number: int, shard_set: int = 0) -> PlannedSample:
    """Makes a planned sample of index row `number`."""
    fields = ("key", "kind", "shard", "offset_bytes", "size_bytes", "crc32", "tokens", "tokens_text")
    return PlannedSample(shard_set=shard_set, number=number, **{name: row[name] for name in fields})


def plan_document(
    shards: ShardSet, numbers: Iterable[int], *, dataset: int = 0, is_pair: bool = False, shard_set: int = 0
) -> PlannedDocument:
    """Plans a document of the index rows `numbers`: consecutive slices, or one stand-alone sample."""
    samples = tuple(
        plan_sample(shards.index.slice(number, 1).to_pylist()[0], number, shard_set) for number in numbers
    )
    tokens = sum(sample.tokens for sample in samples)
    overhead = open_layout(shards).document_overhead if samples[0].kind == "slice" else 0
    return PlannedDocument(dataset, samples, tokens + overhead, is_pair)


def plan_row(
    shards: ShardSet, documents: Iterable[tuple[Sequence[int], bool] | Sequence[int]], number: int = 0
) -> PlannedRow:
    """Plans a row. Each document is a list of index rows, or (index rows, whether it is a pair)."""
    planned = []
    for dataset, document in enumerate(documents):
        has_flag = isinstance(document[-1], bool)
        numbers: Any = document[0] if has_flag else document
        planned.append(
            plan_document(shards, numbers, dataset=dataset % 3, is_pair=has_flag and bool(document[1]))
        )
    return PlannedRow(number, tuple(planned))


def read_members(shards: ShardSet, planned: PlannedRow) -> dict[tuple[int, int], Any]:
    """Reads the members of every sample of a row, for `RowAssembler.assemble`."""
    members: MembersByKey = {
        (sample.shard_set, sample.number): shards.read(
            {name: getattr(sample, name) for name in ("key", "shard", "offset_bytes", "size_bytes", "crc32")}
        )
        for document in planned.documents
        for sample in document.samples
    }
    return dict(members)
