"""CPU time of a build compared with the bare libraries, its peak memory, and the share of each part.

    python -m benchmarks.build_shards

The floors run in the same process and alternate with the build:

- JPEG pass-through: a loop that reads the files and writes them into one tar with the standard library's
  tarfile, once without and once with the sha256 of the tar, which a build records for every shard.
- Video: a loop that decodes with PyAV and encodes with simplejpeg, with the same quality and colour conversion, and
  discards the result.

A build does more than its floor: it synchronises, checks, counts tokens, writes descriptions, checksums and an index,
and calls fsync.
"""

from __future__ import annotations

import argparse
import cProfile
import datetime
import hashlib
import io
import json
import pstats
import shutil
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
import simplejpeg
from av.video.reformatter import ColorRange
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.support.build_inputs import Clip, list_jpeg_files, make_clips, make_jpeg_recording
from benchmarks.support.measure import (
    ROOT,
    describe_machine,
    measure_interleaved,
    measure_peak_bytes,
    median_ratio,
    read_own_peak_bytes,
)
from mmpack.ingest.build import build_shards as build
from mmpack.ingest.tasks.build_config import BuildConfig, ShardsConfig
from tools.make_recording import CameraSettings, make_recording

RESULT = ROOT / "benchmarks" / "results" / "build_shards.json"
TARGET = 0.7
NOT_MEASURED = (
    "wall time: disk and network waits, cold page cache, object stores",
    "several workers or ranks (each does the same work on its own recordings)",
    "tubelets, PNG, stand-alone samples; other codecs than H.264",
    "verify and report",
    "other programs that build shards: the floors are the libraries that they use",
)
# Maps a row of the split to its functions (file, name); the time of their callees is included.
_PARTS: dict[str, tuple[tuple[str, str], ...]] = {
    "open the recording": (("build_plan.py", "plan_build"),),
    "sync": (("synchronise.py", "synchronise"),),
    "read or decode": (("images.py", "frames"), ("video.py", "frames")),
    "encode": (("encode_images.py", "_to_jpeg"),),
    "sha256": (("~", "<method 'update' of '_hashlib.HASH' objects>"),),
    "crc32": (("~", "<built-in method zlib.crc32>"),),
    "write": (("~", "<method 'write' of '_io.BufferedWriter' objects>"),),
    "json": (("serialisation.py", "canonical_json"),),
    "index, counts, fsync": (("writer.py", "close_shard"), ("merge_parts.py", "finish_build")),
}


class HashingWriter:
    """A writable file that computes the sha256 of its content."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Updates the hash and writes `data`."""
        self.sha256.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        """Returns the position in the file."""
        return self._file.tell()


def run_tar_floor(rows: Sequence[Sequence[Path]], out: Path, *, with_sha256: bool) -> None:
    """Reads the files of each slice and writes them into one tar, with or without its sha256."""
    out.mkdir()
    with (out / "floor.tar").open("wb") as file:
        target: Any = HashingWriter(file) if with_sha256 else file
        with tarfile.open(fileobj=target, mode="w") as tar:
            for number, paths in enumerate(rows):
                for path in paths:
                    data = path.read_bytes()
                    info = tarfile.TarInfo(f"six-{number:08d}.{path.parent.name}.jpg")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


def run_video_floor(path: Path, quality: int) -> int:
    """Decodes and encodes every frame. Returns the number of frames."""
    count = 0
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        video.thread_type = "NONE"
        for frame in container.decode(video):
            count += 1
            if frame.format.name == "yuv420p":
                full_range = frame.reformat(
                    format="yuvj420p", src_color_range=ColorRange.MPEG, dst_color_range=ColorRange.JPEG
                )
                planes: list[NDArray[np.uint8]] = []
                for plane in full_range.planes:
                    lines = np.frombuffer(plane, np.uint8)  # pyright: ignore[reportCallIssue, reportArgumentType]
                    lines = lines.reshape(-1, plane.line_size)[: plane.height, : plane.width]
                    planes.append(np.ascontiguousarray(lines))
                simplejpeg.encode_jpeg_yuv_planes(*planes, quality=quality)
            else:
                rgb = frame.to_ndarray(format="rgb24")
                simplejpeg.encode_jpeg(rgb, quality=quality, colorspace="RGB", colorsubsampling="420")
    return count


def run_build(recording: Path, out: Path) -> int:
    """Runs a build in this process. Returns the number of slices."""
    outcome = build(BuildConfig(recordings=(str(recording),)), str(out))
    if outcome.manifest is None:
        raise RuntimeError(f"the build failed: {outcome.failures}")
    return outcome.manifest.samples


def measure_jpeg(folder: Path, slices: int, repetitions: int) -> list[dict[str, Any]]:
    """Measures JPEG pass-through against both tar floors."""
    out, rows = folder.parent / "out", list_jpeg_files(folder)
    jobs: dict[str, Callable[[], None]] = {
        "tarfile": lambda: run_tar_floor(rows, out, with_sha256=False),
        "tarfile + sha256": lambda: run_tar_floor(rows, out, with_sha256=True),
        "mmpack": lambda: _expect_count(run_build(folder, out), slices),
    }
    times = measure_interleaved(jobs, repetitions=repetitions, clean_up=lambda: shutil.rmtree(out))
    return [
        _make_result("JPEG pass-through", "slices", slices, floor, times)
        for floor in jobs
        if floor != "mmpack"
    ]


def measure_clip(clip: Clip, repetitions: int) -> dict[str, Any]:
    """Measures the build of one clip against decoding and encoding alone."""
    out, quality = clip.folder.parent / "out", ShardsConfig().jpeg_quality
    frames = run_video_floor(clip.path, quality)
    jobs: dict[str, Callable[[], None]] = {
        "decode + encode": lambda: _expect_count(run_video_floor(clip.path, quality), frames),
        "mmpack": lambda: _expect_count(run_build(clip.folder, out), frames),
    }
    times = measure_interleaved(
        jobs, repetitions=repetitions, clean_up=lambda: shutil.rmtree(out, ignore_errors=True)
    )
    return _make_result(f"video, {clip.description}", "frames", frames, "decode + encode", times)


def measure_memory(job: str, short: Path, long: Path, out: Path) -> dict[str, Any]:
    """Measures the peak memory of a build of the short and the long recording, each in its own process."""
    result: dict[str, Any] = {"job": job}
    for name, folder in (("short", short), ("long", long)):
        command = ["-m", "benchmarks.build_shards", "--peak-of", str(folder), str(out)]
        result[f"{name}_peak_bytes"] = measure_peak_bytes(command)
        result[f"{name}_slices"] = json.loads((out / "manifest.json").read_bytes())["samples"]
        result[f"{name}_output_bytes"] = sum(path.stat().st_size for path in (out / "shards").iterdir())
        shutil.rmtree(out)
    growth_bytes = result["long_peak_bytes"] - result["short_peak_bytes"]
    num_more_slices = result["long_slices"] - result["short_slices"]
    return {**result, "growth_bytes_per_slice": growth_bytes / num_more_slices}


def measure_split(job: str, recording: Path, out: Path) -> dict[str, Any]:
    """Measures the CPU time of the parts of one build in ms per slice, under cProfile, which slows down Python code."""
    profile = cProfile.Profile(time.process_time)
    profile.enable()
    slices = run_build(recording, out)
    profile.disable()
    shutil.rmtree(out)
    entries: Mapping[tuple[str, int, str], Any] = pstats.Stats(profile).stats  # pyright: ignore[reportAttributeAccessIssue]
    total_s = sum(entry[2] for entry in entries.values())
    parts = {
        part: sum(
            entry[3] for (file, _, name), entry in entries.items() if (Path(file).name, name) in functions
        )
        for part, functions in _PARTS.items()
    }
    parts["the rest"] = total_s - sum(parts.values())
    return {"job": job, "ms_per_slice": {part: taken_s * 1000 / slices for part, taken_s in parts.items()}}


def _expect_count(count: int, expected: int) -> None:
    if count != expected:
        raise RuntimeError(f"{count} items instead of {expected}: the two jobs do different work")


def _make_result(
    job: str, unit: str, count: int, floor: str, times: dict[str, list[float]]
) -> dict[str, Any]:
    return {
        "job": job,
        "unit": unit,
        "count": count,
        "floor": floor,
        "floor_per_cpu_s": count / statistics.median(times[floor]),
        "mmpack_per_cpu_s": count / statistics.median(times["mmpack"]),
        "ratio": median_ratio(times, floor, "mmpack"),
        "floor_cpu_s": times[floor],
        "mmpack_cpu_s": times["mmpack"],
    }


def measure(slices: int, repetitions: int, folder: Path) -> dict[str, Any]:
    """Runs all measurements; inputs and outputs are written to `folder`."""
    log = Console(stderr=True).print
    log("writing the inputs")
    origin = make_jpeg_recording(folder / "six", slices)
    make_jpeg_recording(folder / "six_short", slices // 10)
    clips = make_clips(folder)
    for name, seconds in (("drive", 600), ("drive_short", 60)):
        make_recording(folder / name, CameraSettings(seconds=seconds, size=(48, 64)), faults=False)
    log("JPEG pass-through")
    lines = measure_jpeg(folder / "six", slices, repetitions)
    log("video")
    lines += [measure_clip(clip, repetitions) for clip in clips]
    log("memory")
    out = folder / "out"
    memory = [
        measure_memory("JPEG, six cameras", folder / "six_short", folder / "six", out),
        measure_memory("drive: 6 mp4, audio, numeric, text", folder / "drive_short", folder / "drive", out),
    ]
    split = [measure_split("JPEG, six cameras", folder / "six", out)]
    split += [measure_split(clip.description, clip.folder, out) for clip in clips]
    return {
        "benchmark": "build_shards",
        "date": datetime.date.today().isoformat(),
        "command": "python -m benchmarks.build_shards",
        "machine": describe_machine(),
        "images_from": origin,
        "repetitions": repetitions,
        "throughput": lines,
        "memory": memory,
        "split": split,
        "not_measured": NOT_MEASURED,
    }


def show(report: dict[str, Any]) -> None:
    """Prints the tables."""
    console = Console()
    table = Table(
        "job", "floor", "floor, per CPU s", "mmpack, per CPU s", "share of the floor", title="CPU time"
    )
    for line in report["throughput"]:
        note = "" if line["ratio"] >= TARGET else f" (target {TARGET:.0%})"
        rates = [f"{line[key]:.0f} {line['unit']}" for key in ("floor_per_cpu_s", "mmpack_per_cpu_s")]
        table.add_row(line["job"], line["floor"], *rates, f"{line['ratio']:.0%}{note}")
    console.print(table)
    headings = ("job", "slices", "peak", "slices", "peak", "growth per slice", "written")
    table = Table(*headings, title="Peak memory")
    for line in report["memory"]:
        pairs = [
            text
            for name in ("short", "long")
            for text in (str(line[f"{name}_slices"]), f"{line[f'{name}_peak_bytes'] / 1e6:.0f} MB")
        ]
        written = f"{line['long_output_bytes'] / 1e6:.0f} MB"
        table.add_row(line["job"], *pairs, f"{line['growth_bytes_per_slice'] / 1e3:.1f} kB", written)
    console.print(table)
    jobs = [line["job"] for line in report["split"]]
    table = Table("part", *jobs, title="CPU ms per slice, under a profiler")
    for part in (*_PARTS, "the rest"):
        table.add_row(part, *(f"{line['ms_per_slice'][part]:.3f}" for line in report["split"]))
    console.print(table)
    console.print(
        "Memory grows with timestamps, tables and index rows; media are released slice by slice.",
        "Not measured:",
        *(f"- {line}" for line in report["not_measured"]),
        sep="\n",
    )
    computer = report["machine"]
    console.print(
        f"{computer['cpu']}, {computer['cores']} cores, {report['date']}; images: {report['images_from']}"
    )


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description="Measures the cost of building shards against the bare libraries."
    )
    parser.add_argument("--slices", type=int, default=600, help="number of slices of the JPEG recording")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument(
        "--peak-of", nargs=2, metavar=("RECORDING", "OUT"), help="run one build and print its peak memory"
    )
    arguments = parser.parse_args()
    if arguments.peak_of:
        run_build(Path(arguments.peak_of[0]), Path(arguments.peak_of[1]))
        sys.stdout.write(f"{read_own_peak_bytes()}\n")
        return
    with tempfile.TemporaryDirectory(prefix="mmpack-bench-") as folder:
        report = measure(arguments.slices, arguments.repetitions, Path(folder))
    show(report)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
