"""Planted faults of a drive: their times, and their effects on timestamps and rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmpack.errors import ConfigError

KINDS = ("gap", "duplicate", "outlier", "backward", "dead_camera")

GAP_NS = 150_000_000
OUTLIER_NS = 7_000_000
BACKWARD_NS = 25_000_000
DEAD_CAMERA_NS = 300_000_000
_END_MARGIN_NS = 1_000_000_000  # time without faults at both ends of the drive
_DISTANCE_NS = 500_000_000  # usual distance between faults
_MIN_DISTANCE_NS = 250_000_000
_ROW_PERIOD_NS = 20_000_000  # the longer one of the periods of IMU and CAN
_SNAP_NS = 1_000_000  # more than the jitter of two timestamps, less than any period

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class PlantedFault:
    """One planted fault.

    Attributes:
        kind: one of :data:`KINDS`.
        stream: the stream that has it.
        t_ns: true time, on the clock ``rig``, of the (first) frame or row of the fault.
        row: row of the fault in the csv file of the stream, counted from 0 after the header: the first row after a gap or
            after the missing frames of a camera, the second of two duplicates, or the row with the wrong timestamp.
        duration_ns: length of a gap or of the missing frames; shift of the timestamp for an outlier (later) or a backward
            timestamp (earlier); 0 for a duplicate.
        note: description of the fault in words.
    """

    kind: str
    stream: str
    t_ns: int
    row: int
    duration_ns: int
    note: str


@dataclass(frozen=True)
class WrittenStream:
    """The written rows of a stream: `rows`, int64 (n,), indices of its true rows; `t_ns`, int64 (n,), their timestamps."""

    rows: Int64s
    t_ns: Int64s


def choose_fault_times(
    rng: np.random.Generator, begin_ns: int, end_ns: int, frame_period_ns: int
) -> dict[str, int]:
    """Chooses a random time for each kind of fault; the result is in order of time.

    A fault begins at the first row or frame at or after its time. No fault is within 1 s of the ends of the drive. Between
    the end of a fault and the start of the next there are at least 0.5 s; in drives that are too short for that (under 5 s
    at 10 Hz) there is less time, but at least 0.25 s.

    Raises:
        ConfigError: the drive is too short even for the smallest distance.
    """
    order = [KINDS[index] for index in rng.permutation(len(KINDS))]
    reserved_ns = {kind: _reserved_ns(kind, frame_period_ns) for kind in KINDS}
    free_ns = end_ns - begin_ns - 2 * _END_MARGIN_NS - sum(reserved_ns.values())
    distance_ns = min(_DISTANCE_NS, int(free_ns / (len(KINDS) - 0.5)))
    if distance_ns < _MIN_DISTANCE_NS:
        raise ConfigError(
            f"a drive of {(end_ns - begin_ns) / 1e9:.3g} s is too short for {len(KINDS)} faults",
            where="make_recording",
            hint="Use more seconds, or generate the drive without faults.",
        )
    spare_ns = free_ns - (len(KINDS) - 1) * distance_ns
    times_ns: dict[str, int] = {}
    earliest_ns = begin_ns + _END_MARGIN_NS
    delays_ns = np.sort(rng.integers(0, spare_ns, size=len(KINDS), endpoint=True)).tolist()
    for kind, delay_ns in zip(order, delays_ns, strict=True):
        times_ns[kind] = earliest_ns + delay_ns
        earliest_ns += reserved_ns[kind] + distance_ns
    return times_ns


def plant_fault(
    kind: str, stream: str, written: WrittenStream, time_ns: int, frame_period_ns: int
) -> tuple[WrittenStream, PlantedFault]:
    """Plants one fault in a stream at the first row at or after ``time_ns``.

    Faults of one stream must be planted in order of time: then no fault changes the row index of an earlier one. Because
    faults are at least 0.25 s apart, a shifted timestamp does not disturb the search for the row of the next fault.

    Raises:
        ConfigError: `kind` is unknown.
    """
    row = int(np.searchsorted(written.t_ns, time_ns))
    t_ns = int(written.t_ns[row])
    match kind:
        case "gap":
            stop = int(np.searchsorted(written.t_ns, t_ns + GAP_NS - _SNAP_NS))
            damaged = _remove_rows(written, row, stop)
            duration_ns, note = GAP_NS, f"{stop - row} rows are missing before row {row}"
        case "dead_camera":
            count = _count_missing_frames(frame_period_ns)
            damaged = _remove_rows(written, row, row + count)
            duration_ns = count * frame_period_ns
            note = f"{count} frames are missing before row {row}; the other cameras continue"
        case "duplicate":
            damaged = WrittenStream(
                np.insert(written.rows, row, written.rows[row]), np.insert(written.t_ns, row, t_ns)
            )
            duration_ns, note = 0, f"row {row} is repeated with the same timestamp"
            row += 1
        case "outlier":
            damaged = _shift_timestamp(written, row, OUTLIER_NS)
            duration_ns, note = OUTLIER_NS, "the timestamp is 7 ms late; the image was taken on time"
        case "backward":
            damaged = _shift_timestamp(written, row, -BACKWARD_NS)
            duration_ns, note = BACKWARD_NS, "the timestamp jumps back by 25 ms; the row keeps its position"
        case _:
            raise ConfigError(f"{kind!r} is not a kind of fault", hint=f"Use one of {', '.join(KINDS)}.")
    return damaged, PlantedFault(
        kind=kind, stream=stream, t_ns=t_ns, row=row, duration_ns=duration_ns, note=note
    )


def _count_missing_frames(frame_period_ns: int) -> int:
    """Returns the number of frames that a dead camera misses: the frames of 300 ms, at least one."""
    return max(1, round(DEAD_CAMERA_NS / frame_period_ns))


def _reserved_ns(kind: str, frame_period_ns: int) -> int:
    """Returns the longest time from the chosen time of a fault to its end: at most one row period, then its length."""
    match kind:
        case "gap":
            return GAP_NS + _ROW_PERIOD_NS + _SNAP_NS
        case "dead_camera":
            return (_count_missing_frames(frame_period_ns) + 1) * frame_period_ns + _SNAP_NS
        case "outlier":
            return frame_period_ns + _SNAP_NS
        case _:
            return _ROW_PERIOD_NS + _SNAP_NS


def _remove_rows(written: WrittenStream, first: int, stop: int) -> WrittenStream:
    removed = np.s_[first:stop]
    return WrittenStream(np.delete(written.rows, removed), np.delete(written.t_ns, removed))


def _shift_timestamp(written: WrittenStream, row: int, shift_ns: int) -> WrittenStream:
    t_ns = written.t_ns.copy()
    t_ns[row] += shift_ns
    return WrittenStream(written.rows, t_ns)
