"""Generates a synthetic recording of a six-camera drive, with faults planted at known times.

The folder contains six cameras as mp4 files with staggered triggers, a microphone, IMU, CAN, actions and subtitles.
``recording.toml`` describes them, all on one clock called ``rig``; ``planted.json`` lists the planted faults. The same seed
always gives the same bytes.

    python -m tools.make_recording OUT --seed 3 --seconds 20
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np

from mmpack.errors import ConfigError, MmpackError
from tools.drive.camera import MOUNTS, Camera, Image, clock_text
from tools.drive.faults import PlantedFault, WrittenStream, choose_fault_times, plant_fault
from tools.drive.motion import Drive, Floats
from tools.drive.scene import Scene
from tools.drive.sensors import (
    MIC_RATE_HZ,
    Int64s,
    action_rows,
    can_rows,
    imu_rows,
    jitter_ns,
    ticks_ns,
    write_csv,
    write_microphone,
    write_subtitles,
)
from tools.drive.video_writer import write_video

# Trigger time of each camera relative to the middle of the group: order and spread are those of 404 nuScenes keyframes.
_OFFSETS_NS = {
    "cam_front": -13_700_000,
    "cam_front_left": -21_300_000,
    "cam_front_right": -5_700_000,
    "cam_back": 11_400_000,
    "cam_back_left": 21_300_000,
    "cam_back_right": 1_800_000,
}
_OFFSETS_PERIOD_NS = 100_000_000  # with shorter frame periods the offsets shrink proportionally
_MARGIN_S = 1.5  # time that the other sensors record before and after the cameras
_IMU_HZ, _CAN_HZ, _ACTION_HZ = 100, 50, 10
_AUDIO_EVENT_NS = 120_000_000


@dataclass(frozen=True)
class CameraSettings:
    """The settings of the camera streams.

    Attributes:
        seconds: duration of the camera streams; the other sensors record 1.5 s more before and after it.
        rate_hz: frames per second of each camera, 1 to 60.
        size: height and width of the images in pixels, both even and at least 32.
    """

    seconds: float = 20.0
    rate_hz: int = 10
    size: tuple[int, int] = (192, 320)


_DEFAULT_CAMERAS = CameraSettings()


@dataclass(frozen=True)
class GeneratedRecording:
    """A generated recording and its planted faults.

    Attributes:
        toml: path of the ``recording.toml``.
        faults: the planted faults in order of time; empty for a recording without faults.
        audio_events_ns: start times of the beeps and flashes on the clock ``rig``.
        offsets_ns: trigger time of each camera relative to the middle of the group.
        rate_hz: frames per second of each camera.
    """

    toml: Path
    faults: tuple[PlantedFault, ...]
    audio_events_ns: tuple[int, ...]
    offsets_ns: dict[str, int]
    rate_hz: int


@dataclass(frozen=True, kw_only=True)
class _DriveSpec:
    """The settings of one recording, and the values derived from them."""

    out: Path
    seed: int
    rate_hz: int
    size: tuple[int, int]
    frames: int
    start_ns: int  # first camera tick
    end_ns: int  # one period after the last camera tick
    drive: Drive

    @property
    def period_ns(self) -> int:
        return round(Fraction(10**9, self.rate_hz))

    @property
    def margin_start_ns(self) -> int:
        return self.start_ns - round(_MARGIN_S * 10**9)

    @property
    def seconds(self) -> float:
        return self.frames / self.rate_hz

    def rng(self, purpose: str) -> np.random.Generator:
        """Returns a separate random generator for each purpose, so that planted faults change nothing else."""
        return np.random.default_rng([self.seed, *purpose.encode()])

    def seconds_since_start(self, t_ns: Int64s) -> Floats:
        return (t_ns - self.start_ns) / 1e9


def make_recording(
    out: Path,
    cameras: CameraSettings = _DEFAULT_CAMERAS,
    *,
    seed: int = 0,
    faults: bool = True,
    name: str | None = None,
) -> GeneratedRecording:
    """Writes a recording into the folder ``out``, which is created if necessary.

    Args:
        out: output folder; files of an earlier recording in it are replaced.
        cameras: duration, frame rate and image size of the camera streams.
        seed: seed of the drive, the boot time, the jitter and the times of the faults.
        faults: whether one fault of each kind of :mod:`tools.drive.faults` is planted.
        name: name of the recording; by default ``drive-`` and the seed with three digits.

    Returns:
        The path of the recording and its planted faults; ``planted.json`` contains the same information.

    Raises:
        ConfigError: a setting is out of range, or the drive is too short for the faults.
    """
    name = f"drive-{seed:03d}" if name is None else name
    spec = _make_spec(out, cameras, seed, name)
    true_streams = _make_true_streams(spec)
    written, planted_faults = _plant_faults(spec, true_streams) if faults else (true_streams, ())
    events_ns = _choose_audio_events(spec)
    out.mkdir(parents=True, exist_ok=True)
    _write_cameras(spec, true_streams, written, events_ns)
    _write_tables(spec, true_streams, written)
    _write_audio(spec, events_ns)
    write_subtitles(out / "subtitles.srt", spec.drive.manoeuvres, spec.seconds)
    toml = out / "recording.toml"
    toml.write_text(_recording_toml(spec, name), encoding="utf-8", newline="\n")
    recording = GeneratedRecording(
        toml, planted_faults, events_ns, _camera_offsets_ns(spec.period_ns), cameras.rate_hz
    )
    _write_planted(out / "planted.json", recording)
    return recording


def _make_spec(out: Path, cameras: CameraSettings, seed: int, name: str) -> _DriveSpec:
    seconds, rate_hz, size = cameras.seconds, cameras.rate_hz, cameras.size
    height, width = size
    for is_invalid, message, hint in (
        (seed < 0, f"seed is {seed}", "Use 0 or more."),
        (not 1 <= rate_hz <= 60, f"rate_hz is {rate_hz}", "Use 1 to 60."),
        (
            round(seconds * rate_hz) < 2,
            f"{seconds} s at {rate_hz} Hz are fewer than two frames",
            "Use more seconds.",
        ),
        (
            min(size) < 32 or height % 2 or width % 2,
            f"size is {height} x {width}",
            "Use even numbers of at least 32.",
        ),
        (
            not re.fullmatch(r"[A-Za-z0-9_+-]+", name),
            f"name is {name!r}",
            "Use letters, digits, '_', '+' and '-' only.",
        ),
    ):
        if is_invalid:
            raise ConfigError(message, where="make_recording", hint=hint)
    rng = np.random.default_rng([seed, *b"plan"])
    frames = round(seconds * rate_hz)
    start_ns = int(rng.integers(4_000 * 10**9, 90_000 * 10**9))
    return _DriveSpec(
        out=out,
        seed=seed,
        rate_hz=rate_hz,
        size=size,
        frames=frames,
        start_ns=start_ns,
        end_ns=start_ns + round(Fraction(frames * 10**9, rate_hz)),
        drive=Drive(rng, -_MARGIN_S, frames / rate_hz + _MARGIN_S),
    )


def _camera_offsets_ns(period_ns: int) -> dict[str, int]:
    scale = min(Fraction(1), Fraction(period_ns, _OFFSETS_PERIOD_NS))
    return {camera: round(offset_ns * scale) for camera, offset_ns in _OFFSETS_NS.items()}


def _make_true_streams(spec: _DriveSpec) -> dict[str, WrittenStream]:
    """Returns every stream with the timestamps that it has without faults."""
    times: dict[str, Int64s] = {}
    for camera, offset_ns in _camera_offsets_ns(spec.period_ns).items():
        times[camera] = ticks_ns(spec.start_ns, spec.frames, spec.rate_hz) + offset_ns
    for stream, rate_hz in (("imu", _IMU_HZ), ("can", _CAN_HZ), ("action", _ACTION_HZ)):
        count = int((spec.seconds + 2 * _MARGIN_S) * rate_hz)
        phase_ns = int(spec.rng(f"{stream} phase").integers(0, 10**9 // rate_hz))
        times[stream] = ticks_ns(spec.margin_start_ns + phase_ns, count, rate_hz)
    return {
        stream: WrittenStream(np.arange(len(t_ns)), t_ns + jitter_ns(spec.rng(f"{stream} jitter"), len(t_ns)))
        for stream, t_ns in times.items()
    }


def _plant_faults(
    spec: _DriveSpec, true_streams: dict[str, WrittenStream]
) -> tuple[dict[str, WrittenStream], tuple[PlantedFault, ...]]:
    rng = spec.rng("faults")
    outlier_camera, dead_camera = (
        MOUNTS[index].name for index in rng.choice(len(MOUNTS), size=2, replace=False)
    )
    streams = {
        "gap": "imu",
        "duplicate": "can",
        "outlier": outlier_camera,
        "backward": "imu",
        "dead_camera": dead_camera,
    }
    written, planted = dict(true_streams), []
    for kind, time_ns in choose_fault_times(rng, spec.start_ns, spec.end_ns, spec.period_ns).items():
        stream = streams[kind]
        written[stream], fault = plant_fault(kind, stream, written[stream], time_ns, spec.period_ns)
        planted.append(fault)
    return written, tuple(planted)


def _choose_audio_events(spec: _DriveSpec) -> tuple[int, ...]:
    """Chooses one event in about three seconds, at whole milliseconds (and so whole audio samples) after the start of the
    microphone."""
    count = max(1, int(spec.seconds / 3))
    interval_s = spec.seconds / count
    fraction = spec.rng("audio events").uniform(0.2, 0.7, size=count)
    times_ms = np.rint((np.arange(count) + fraction) * interval_s * 1000 + _MARGIN_S * 1000).astype(np.int64)
    return tuple(spec.margin_start_ns + int(time_ms) * 10**6 for time_ms in times_ms)


def _audio_event_duration_ns(spec: _DriveSpec) -> int:
    """Returns the duration of a beep and a flash, long enough for every camera to take an image during it."""
    return max(_AUDIO_EVENT_NS, spec.period_ns * 6 // 5)


def _write_cameras(
    spec: _DriveSpec,
    true_streams: dict[str, WrittenStream],
    written: dict[str, WrittenStream],
    events_ns: tuple[int, ...],
) -> None:
    scene = Scene(spec.rng("scene"), spec.drive)
    for mount in MOUNTS:
        camera = Camera(scene, mount, spec.size)
        stream = written[mount.name]
        taken_ns = true_streams[mount.name].t_ns[stream.rows]
        images = _camera_images(spec, camera, taken_ns, events_ns)
        write_video(spec.out / f"{mount.name}.mp4", images, spec.size, spec.rate_hz)
        write_csv(spec.out / f"{mount.name}.csv", ("frame", "t_ns"), enumerate(stream.t_ns.tolist()))


def _camera_images(
    spec: _DriveSpec, camera: Camera, taken_ns: Int64s, events_ns: tuple[int, ...]
) -> Iterator[Image]:
    length_ns = _audio_event_duration_ns(spec)
    for t_ns, time_s in zip(taken_ns.tolist(), spec.seconds_since_start(taken_ns).tolist(), strict=True):
        flash = any(event_ns <= t_ns < event_ns + length_ns for event_ns in events_ns)
        yield camera.render(time_s, clock_text(t_ns), flash=flash)


def _write_tables(
    spec: _DriveSpec, true_streams: dict[str, WrittenStream], written: dict[str, WrittenStream]
) -> None:
    tables: dict[str, tuple[tuple[str, ...], Callable[[Floats], Floats]]] = {
        "imu": (("ax", "ay", "az", "gx", "gy", "gz"), partial(imu_rows, spec.rng("imu"), spec.drive)),
        "can": (("speed", "steering"), partial(can_rows, spec.drive)),
        "action": (("steer", "throttle", "brake"), partial(action_rows, spec.drive)),
    }
    for stream, (columns, compute) in tables.items():
        values = compute(spec.seconds_since_start(true_streams[stream].t_ns))[written[stream].rows]
        rows = zip(written[stream].t_ns.tolist(), values.tolist(), strict=True)
        lines = ((t_ns, *(f"{value:.6f}" for value in row)) for t_ns, row in rows)
        write_csv(spec.out / f"{stream}.csv", ("t_ns", *columns), lines)


def _write_audio(spec: _DriveSpec, events_ns: tuple[int, ...]) -> None:
    beeps = [(event_ns - spec.margin_start_ns) // 10**6 * (MIC_RATE_HZ // 1000) for event_ns in events_ns]
    count = round((spec.seconds + 2 * _MARGIN_S) * MIC_RATE_HZ)
    beep_samples = _audio_event_duration_ns(spec) * MIC_RATE_HZ // 10**9
    write_microphone(spec.out / "mic.wav", spec.rng("mic"), count, beeps, beep_samples)


def _recording_toml(spec: _DriveSpec, name: str) -> str:
    tables = [f'[recording]\nname = "{name}"\nclock = "rig"', '[clocks.rig]\ndomain = "boot"']
    for mount in MOUNTS:
        time = f'{{ path = "{mount.name}.csv", column = "t_ns", unit = "ns" }}'
        tables.append(f'[streams.{mount.name}]\nkind = "camera"\npath = "{mount.name}.mp4"\ntime = {time}')
    start = _exact_seconds(spec.margin_start_ns)
    tables.append(f'[streams.mic]\nkind = "audio"\npath = "mic.wav"\nstart = "{start}"')
    for stream in ("imu", "can", "action"):
        time = '{ column = "t_ns", unit = "ns" }'
        tables.append(f'[streams.{stream}]\nkind = "{stream}"\npath = "{stream}.csv"\ntime = {time}')
    start = _exact_seconds(spec.start_ns)
    tables.append(f'[streams.subtitles]\nkind = "text"\npath = "subtitles.srt"\nstart = "{start}"')
    return "\n\n".join(tables) + "\n"


def _exact_seconds(t_ns: int) -> str:
    return f"{t_ns // 10**9}.{t_ns % 10**9:09d}s"


def _write_planted(path: Path, recording: GeneratedRecording) -> None:
    content = {
        "faults": [asdict(fault) for fault in recording.faults],
        "audio_events_ns": recording.audio_events_ns,
        "offsets_ns": recording.offsets_ns,
        "rate_hz": recording.rate_hz,
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8", newline="\n")


def main() -> None:
    """Runs the command line of :func:`make_recording`."""
    parser = argparse.ArgumentParser(prog="make_recording", description="Generates a six-camera drive.")
    parser.add_argument("out", type=Path, help="output folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate-hz", type=int, default=10, help="frames per second of each camera")
    parser.add_argument("--size", type=int, nargs=2, default=(192, 320), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--no-faults", action="store_true", help="generate the recording without faults")
    parser.add_argument("--name", help="name of the recording (default: drive-SEED)")
    options = parser.parse_args()
    try:
        recording = make_recording(
            options.out,
            CameraSettings(options.seconds, options.rate_hz, tuple(options.size)),
            seed=options.seed,
            faults=not options.no_faults,
            name=options.name,
        )
    except MmpackError as error:
        parser.exit(1, f"error: {error}\n")
    print(f"{recording.toml}: {len(MOUNTS)} cameras, {len(recording.faults)} planted faults")
    for fault in recording.faults:
        time = _exact_seconds(fault.t_ns)
        print(f"  {fault.kind:12} {fault.stream:16} row {fault.row:<6} at {time}  {fault.note}")


if __name__ == "__main__":
    main()
