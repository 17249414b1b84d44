"""Makes a recording of a six-camera drive, with faults planted at known places.

The folder holds six mp4 cameras whose triggers are staggered, a microphone, IMU, CAN, actions and subtitles.
``recording.toml`` describes them, all on one clock called ``rig``; ``planted.json`` says what is wrong and
where. A seed gives the same bytes every time.

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
from tools.drive.video import write_video

# Trigger of each camera, counted from the middle of the group: order and spread of 404 nuScenes keyframes.
_OFFSETS_NS = {
    "cam_front": -13_700_000,
    "cam_front_left": -21_300_000,
    "cam_front_right": -5_700_000,
    "cam_back": 11_400_000,
    "cam_back_left": 21_300_000,
    "cam_back_right": 1_800_000,
}
_OFFSETS_PERIOD_NS = 100_000_000  # at shorter frame periods the offsets shrink in proportion
_MARGIN_S = 1.5  # how much longer than the cameras the other sensors record, at each end
_IMU_HZ, _CAN_HZ, _ACTION_HZ = 100, 50, 10
_SOUND_EVENT_NS = 120_000_000


@dataclass(frozen=True)
class GeneratedRecording:
    """What was made, and what is wrong with it.

    Attributes:
        toml: path of the ``recording.toml``.
        faults: the planted faults in order of time; empty for a fault-free recording.
        sound_events_ns: when the beeps and flashes begin, on the clock ``rig``.
        offsets_ns: each camera's trigger, counted from the middle of its group.
        rate_hz: frames per second of each camera.
    """

    toml: Path
    faults: tuple[PlantedFault, ...]
    sound_events_ns: tuple[int, ...]
    offsets_ns: dict[str, int]
    rate_hz: int


@dataclass(frozen=True)
class _DriveSpec:
    """The settings of one recording, with what follows from them."""

    out: Path
    seed: int
    rate_hz: int
    size: tuple[int, int]
    frames: int
    start_ns: int  # the first camera tick
    end_ns: int  # one period after the last
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
        """An own source for each purpose, so that planting faults changes nothing else."""
        return np.random.default_rng([self.seed, *purpose.encode()])

    def since_start_s(self, t_ns: Int64s) -> Floats:
        return (t_ns - self.start_ns) / 1e9


def make_recording(
    out: Path,
    *,
    seed: int = 0,
    seconds: float = 20.0,
    rate_hz: int = 10,
    size: tuple[int, int] = (192, 320),
    faults: bool = True,
    name: str | None = None,
) -> GeneratedRecording:
    """Writes a recording into the folder ``out``, which is made if need be.

    Args:
        out: the folder; files of an earlier recording in it are replaced.
        seed: decides the drive, the boot time, the jitter and the places of the faults.
        seconds: length of the cameras' part; the other sensors record 1.5 s more at each end.
        rate_hz: frames per second of each camera, 1 to 60.
        size: height and width of the pictures in pixels, both even, at least 32.
        faults: whether one fault of each kind of :mod:`tools.drive.faults` is planted.
        name: the recording's name; by default ``drive-`` and the seed in three digits.

    Returns:
        What was planted; the same is in ``planted.json``.

    Raises:
        ConfigError: a setting is out of its range, or the drive is too short for faults.
    """
    name = f"drive-{seed:03d}" if name is None else name
    plan = _plan(out, seed, seconds, rate_hz, size, name)
    truth = _true_rows(plan)
    written, planted_faults = _plant_faults(plan, truth) if faults else (truth, ())
    events_ns = _sound_events(plan)
    out.mkdir(parents=True, exist_ok=True)
    _write_cameras(plan, truth, written, events_ns)
    _write_numbers(plan, truth, written)
    _write_audio(plan, events_ns)
    write_subtitles(out / "subtitles.srt", plan.drive.manoeuvres, plan.seconds)
    toml = out / "recording.toml"
    toml.write_text(_recording_toml(plan, name), encoding="utf-8", newline="\n")
    planted = GeneratedRecording(toml, planted_faults, events_ns, _offsets_ns(plan.period_ns), rate_hz)
    _write_planted(out / "planted.json", planted)
    return planted


def _plan(out: Path, seed: int, seconds: float, rate_hz: int, size: tuple[int, int], name: str) -> _DriveSpec:
    height, width = size
    for wrong, what, mend in (
        (seed < 0, f"seed is {seed}", "Use 0 or more"),
        (not 1 <= rate_hz <= 60, f"rate_hz is {rate_hz}", "Use 1 to 60"),
        (round(seconds * rate_hz) < 2, f"{seconds} s at {rate_hz} Hz are not two frames", "Use more seconds"),
        (min(size) < 32 or height % 2 or width % 2, f"size is {height} x {width}", "Use even numbers >= 32"),
        (not re.fullmatch(r"[A-Za-z0-9_+-]+", name), f"name is {name!r}", "Use letters, digits, _ + -"),
    ):
        if wrong:
            raise ConfigError(what, where="make_recording", hint=mend)
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


def _offsets_ns(period_ns: int) -> dict[str, int]:
    scale = min(Fraction(1), Fraction(period_ns, _OFFSETS_PERIOD_NS))
    return {camera: round(offset_ns * scale) for camera, offset_ns in _OFFSETS_NS.items()}


def _true_rows(plan: _DriveSpec) -> dict[str, WrittenStream]:
    """Every stream with stamps as they would be without faults."""
    times: dict[str, Int64s] = {}
    for camera, offset_ns in _offsets_ns(plan.period_ns).items():
        times[camera] = ticks_ns(plan.start_ns, plan.frames, plan.rate_hz) + offset_ns
    for stream, rate_hz in (("imu", _IMU_HZ), ("can", _CAN_HZ), ("action", _ACTION_HZ)):
        count = int((plan.seconds + 2 * _MARGIN_S) * rate_hz)
        phase_ns = int(plan.rng(f"{stream} phase").integers(0, 10**9 // rate_hz))
        times[stream] = ticks_ns(plan.margin_start_ns + phase_ns, count, rate_hz)
    return {
        stream: WrittenStream(np.arange(len(t_ns)), t_ns + jitter_ns(plan.rng(f"{stream} jitter"), len(t_ns)))
        for stream, t_ns in times.items()
    }


def _plant_faults(
    plan: _DriveSpec, truth: dict[str, WrittenStream]
) -> tuple[dict[str, WrittenStream], tuple[PlantedFault, ...]]:
    rng = plan.rng("faults")
    late, dead = (MOUNTS[index].name for index in rng.choice(len(MOUNTS), size=2, replace=False))
    streams = {"gap": "imu", "duplicate": "can", "outlier": late, "backward": "imu", "dead_camera": dead}
    written, planted = dict(truth), []
    for kind, place_ns in choose_fault_times(rng, plan.start_ns, plan.end_ns, plan.period_ns).items():
        stream = streams[kind]
        written[stream], fault = plant_fault(kind, stream, written[stream], place_ns, plan.period_ns)
        planted.append(fault)
    return written, tuple(planted)


def _sound_events(plan: _DriveSpec) -> tuple[int, ...]:
    """One in about three seconds, on whole milliseconds (so whole samples) after the microphone's start."""
    count = max(1, int(plan.seconds / 3))
    part_s = plan.seconds / count
    inside = plan.rng("sound events").uniform(0.2, 0.7, size=count)
    times_ms = np.rint((np.arange(count) + inside) * part_s * 1000 + _MARGIN_S * 1000).astype(np.int64)
    return tuple(plan.margin_start_ns + int(time_ms) * 10**6 for time_ms in times_ms)


def _sound_event_ns(plan: _DriveSpec) -> int:
    """How long a beep and a flash last: long enough that every camera takes a picture in it."""
    return max(_SOUND_EVENT_NS, plan.period_ns * 6 // 5)


def _write_cameras(
    plan: _DriveSpec,
    truth: dict[str, WrittenStream],
    written: dict[str, WrittenStream],
    events_ns: tuple[int, ...],
) -> None:
    scene = Scene(plan.rng("scene"), plan.drive)
    for mount in MOUNTS:
        camera = Camera(scene, mount, plan.size)
        kept = written[mount.name]
        taken_ns = truth[mount.name].t_ns[kept.rows]
        pictures = _camera_images(plan, camera, taken_ns, events_ns)
        write_video(plan.out / f"{mount.name}.mp4", pictures, plan.size, plan.rate_hz)
        write_csv(plan.out / f"{mount.name}.csv", ("frame", "t_ns"), enumerate(kept.t_ns.tolist()))


def _camera_images(
    plan: _DriveSpec, camera: Camera, taken_ns: Int64s, events_ns: tuple[int, ...]
) -> Iterator[Image]:
    length_ns = _sound_event_ns(plan)
    for t_ns, time_s in zip(taken_ns.tolist(), plan.since_start_s(taken_ns).tolist(), strict=True):
        flash = any(event_ns <= t_ns < event_ns + length_ns for event_ns in events_ns)
        yield camera.render(time_s, clock_text(t_ns), flash=flash)


def _write_numbers(
    plan: _DriveSpec, truth: dict[str, WrittenStream], written: dict[str, WrittenStream]
) -> None:
    makers: dict[str, tuple[tuple[str, ...], Callable[[Floats], Floats]]] = {
        "imu": (("ax", "ay", "az", "gx", "gy", "gz"), partial(imu_rows, plan.rng("imu"), plan.drive)),
        "can": (("speed", "steering"), partial(can_rows, plan.drive)),
        "action": (("steer", "throttle", "brake"), partial(action_rows, plan.drive)),
    }
    for stream, (columns, make) in makers.items():
        values = make(plan.since_start_s(truth[stream].t_ns))[written[stream].rows]
        rows = zip(written[stream].t_ns.tolist(), values.tolist(), strict=True)
        lines = ((t_ns, *(f"{value:.6f}" for value in row)) for t_ns, row in rows)
        write_csv(plan.out / f"{stream}.csv", ("t_ns", *columns), lines)


def _write_audio(plan: _DriveSpec, events_ns: tuple[int, ...]) -> None:
    beeps = [(event_ns - plan.margin_start_ns) // 10**6 * (MIC_RATE_HZ // 1000) for event_ns in events_ns]
    count = round((plan.seconds + 2 * _MARGIN_S) * MIC_RATE_HZ)
    beep_samples = _sound_event_ns(plan) * MIC_RATE_HZ // 10**9
    write_microphone(plan.out / "mic.wav", plan.rng("mic"), count, beeps, beep_samples)


def _recording_toml(plan: _DriveSpec, name: str) -> str:
    tables = [f'[recording]\nname = "{name}"\nclock = "rig"', '[clocks.rig]\ndomain = "boot"']
    for mount in MOUNTS:
        time = f'{{ path = "{mount.name}.csv", column = "t_ns", unit = "ns" }}'
        tables.append(f'[streams.{mount.name}]\nkind = "camera"\npath = "{mount.name}.mp4"\ntime = {time}')
    start = _exact_seconds(plan.margin_start_ns)
    tables.append(f'[streams.mic]\nkind = "audio"\npath = "mic.wav"\nstart = "{start}"')
    for stream in ("imu", "can", "action"):
        time = '{ column = "t_ns", unit = "ns" }'
        tables.append(f'[streams.{stream}]\nkind = "{stream}"\npath = "{stream}.csv"\ntime = {time}')
    start = _exact_seconds(plan.start_ns)
    tables.append(f'[streams.subtitles]\nkind = "text"\npath = "subtitles.srt"\nstart = "{start}"')
    return "\n\n".join(tables) + "\n"


def _exact_seconds(t_ns: int) -> str:
    return f"{t_ns // 10**9}.{t_ns % 10**9:09d}s"


def _write_planted(path: Path, planted: GeneratedRecording) -> None:
    content = {
        "faults": [asdict(fault) for fault in planted.faults],
        "sound_events_ns": planted.sound_events_ns,
        "offsets_ns": planted.offsets_ns,
        "rate_hz": planted.rate_hz,
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8", newline="\n")


def main() -> None:
    """The command line of :func:`make_recording`."""
    parser = argparse.ArgumentParser(prog="make_recording", description="Make a six-camera drive.")
    parser.add_argument("out", type=Path, help="folder to write into")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate-hz", type=int, default=10, help="frames per second of each camera")
    parser.add_argument("--size", type=int, nargs=2, default=(192, 320), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--no-faults", action="store_true", help="plant no faults")
    parser.add_argument("--name", help="name of the recording (default: drive-SEED)")
    given = parser.parse_args()
    try:
        planted = make_recording(
            given.out,
            seed=given.seed,
            seconds=given.seconds,
            rate_hz=given.rate_hz,
            size=tuple(given.size),
            faults=not given.no_faults,
            name=given.name,
        )
    except MmpackError as error:
        parser.exit(1, f"error: {error}\n")
    print(f"{planted.toml}: {len(MOUNTS)} cameras, {len(planted.faults)} planted faults")
    for fault in planted.faults:
        when = _exact_seconds(fault.t_ns)
        print(f"  {fault.kind:12} {fault.stream:16} row {fault.row:<6} at {when}  {fault.note}")


if __name__ == "__main__":
    main()
