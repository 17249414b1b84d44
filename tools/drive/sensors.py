"""Data of the sensors other than cameras: numeric tables, a microphone, and subtitles about the drive."""

from __future__ import annotations

import csv
import io
import wave
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tools.drive.motion import Drive, Floats, Manoeuvre

MIC_RATE_HZ = 48_000
BEEP_HZ = 1_000
_GRAVITY_M_S2 = 9.80665  # standard gravity, CGPM 1901
_FULL_STEERING_RAD = 0.5
_FULL_THROTTLE_M_S2 = 3.0
_FULL_BRAKE_M_S2 = 5.0

Int64s = npt.NDArray[np.int64]


def ticks_ns(begin_ns: int, count: int, rate_hz: int) -> Int64s:
    """Returns ``begin_ns + n / rate_hz`` for n < ``count``, each value rounded independently to the nearest nanosecond."""
    n = np.arange(count, dtype=np.int64)
    return begin_ns + (2 * n * 10**9 + rate_hz) // (2 * rate_hz)


def jitter_ns(rng: np.random.Generator, count: int) -> Int64s:
    """Returns the jitter of a hardware trigger: some microseconds, 30 at most."""
    return np.clip(np.rint(rng.normal(0.0, 8_000.0, size=count)), -30_000, 30_000).astype(np.int64)


def imu_rows(rng: np.random.Generator, drive: Drive, time_s: Floats) -> Floats:
    """Returns ax, ay, az in m/s² (az includes gravity) and gx, gy, gz in rad/s, in the vehicle frame; shape (N, 6)."""
    state = drive.state_at(time_s)
    zero = np.zeros_like(time_s)
    sideways = state.speed_m_s * state.yaw_rate_rad_s
    exact = (state.accel_m_s2, sideways, zero + _GRAVITY_M_S2, zero, zero, state.yaw_rate_rad_s)
    noise = rng.normal(size=(len(time_s), 6)) * np.repeat([0.02, 0.002], 3)
    return np.stack(exact, axis=1) + noise


def can_rows(drive: Drive, time_s: Floats) -> Floats:
    """Returns the speed in m/s and the angle of the front wheels in rad, positive to the left; shape (N, 2)."""
    state = drive.state_at(time_s)
    return np.stack([state.speed_m_s, state.steering_rad], axis=1)


def action_rows(drive: Drive, time_s: Floats) -> Floats:
    """Returns steer (-1 to 1, positive to the left), throttle and brake (0 to 1); shape (N, 3)."""
    state = drive.state_at(time_s)
    steer = np.clip(state.steering_rad / _FULL_STEERING_RAD, -1.0, 1.0)
    throttle = np.clip(state.accel_m_s2 / _FULL_THROTTLE_M_S2, 0.0, 1.0)
    brake = np.clip(-state.accel_m_s2 / _FULL_BRAKE_M_S2, 0.0, 1.0)
    return np.stack([steer, throttle, brake], axis=1)


def write_csv(path: Path, header: tuple[str, ...], rows: Iterable[Iterable[object]]) -> None:
    """Writes a CSV file with a header line and LF line ends."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    path.write_bytes(text.getvalue().encode())


def write_microphone(
    path: Path, rng: np.random.Generator, count: int, beeps: Iterable[int], beep_samples: int
) -> None:
    """Writes a 48 kHz mono PCM16 file with quiet noise and 1 kHz beeps.

    Args:
        path: path of the wav file.
        rng: random generator of the noise, whose standard deviation is 0.003 of full scale.
        count: number of audio samples.
        beeps: indices of the audio samples at which beeps start; a beep starts at its maximum, half of full scale.
        beep_samples: number of audio samples of a beep.
    """
    audio = rng.standard_normal(count, dtype=np.float32) * np.float32(0.003)
    tone = 0.5 * np.cos(2 * np.pi * BEEP_HZ / MIC_RATE_HZ * np.arange(beep_samples))
    for beep in beeps:
        audio[beep : beep + beep_samples] += tone.astype(np.float32)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(MIC_RATE_HZ)
        file.writeframes(np.rint(audio * 32767).astype("<i2").tobytes())


def write_subtitles(path: Path, manoeuvres: Iterable[Manoeuvre], end_s: float) -> None:
    """Writes an srt file with one sentence for each manoeuvre, limited to 0 to ``end_s`` seconds."""
    blocks = []
    for manoeuvre in manoeuvres:
        begin_s, stop_s = max(0.0, manoeuvre.begin_s), min(end_s, manoeuvre.end_s)
        if stop_s - begin_s >= 0.1:
            times = f"{_srt_time(begin_s)} --> {_srt_time(stop_s)}"
            blocks.append(f"{len(blocks) + 1}\n{times}\n{manoeuvre.sentence}\n")
    path.write_bytes("\n".join(blocks).encode())


def _srt_time(seconds: float) -> str:
    total_seconds, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{total_seconds // 3600:02d}:{total_seconds // 60 % 60:02d}:{total_seconds % 60:02d},{milliseconds:03d}"
