"""The faults planted in a drive: where they go, and what they do to stamps and rows."""

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
_FROM_ENDS_NS = 1_000_000_000
_APART_NS = 500_000_000
_MIN_DISTANCE_NS = 250_000_000
_ROW_PERIOD_NS = 20_000_000  # the longer of IMU's and CAN's
_SNAP_NS = 1_000_000  # more than the jitter of two stamps, less than any period

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class PlantedFault:
    """One planted fault.

    Attributes:
        kind: one of :data:`KINDS`.
        stream: the stream that has it.
        t_ns: true time, on the rig's clock, of the (first) frame or row concerned.
        row: where the fault shows in the stream's csv, counted from 0 for the first row below the header: the
            first row after a gap or a camera's silence, the second of two duplicates, the row whose stamp is
            wrong.
        duration_ns: length of a gap or silence; how far the stamp is moved for an outlier (later) or a
            backward stamp (earlier); 0 for a duplicate.
        note: the fault in words.
    """

    kind: str
    stream: str
    t_ns: int
    row: int
    duration_ns: int
    note: str


@dataclass(frozen=True)
class WrittenStream:
    """What of a stream is written: numbers of its true rows, in order, and the stamp of each."""

    rows: Int64s
    t_ns: Int64s


def choose_fault_times(
    rng: np.random.Generator, begin_ns: int, end_ns: int, frame_period_ns: int
) -> dict[str, int]:
    """Draws a time for each kind of fault; the answer is in order of time.

    A fault begins at the first row or frame at or after its time. None comes within 1 s of the drive's ends.
    From the end of one to the begin of the next are 0.5 s or more; drives too short for that (under 5 s at 10
    Hz) have less, but never less than 0.25 s.

    Raises:
        ConfigError: the drive is too short even so.
    """
    order = [KINDS[index] for index in rng.permutation(len(KINDS))]
    room_ns = {kind: _room_ns(kind, frame_period_ns) for kind in KINDS}
    free_ns = end_ns - begin_ns - 2 * _FROM_ENDS_NS - sum(room_ns.values())
    apart_ns = min(_APART_NS, int(free_ns / (len(KINDS) - 0.5)))
    if apart_ns < _MIN_DISTANCE_NS:
        raise ConfigError(
            f"a drive of {(end_ns - begin_ns) / 1e9:.3g} s has no room for {len(KINDS)} faults",
            where="make_recording",
            hint="Ask for more seconds, or for a drive without faults",
        )
    spare_ns = free_ns - (len(KINDS) - 1) * apart_ns
    places: dict[str, int] = {}
    now_ns = begin_ns + _FROM_ENDS_NS
    moved_ns = np.sort(rng.integers(0, spare_ns, size=len(KINDS), endpoint=True)).tolist()
    for kind, later_ns in zip(order, moved_ns, strict=True):
        places[kind] = now_ns + later_ns
        now_ns += room_ns[kind] + apart_ns
    return places


def plant_fault(
    kind: str, stream: str, written: WrittenStream, place_ns: int, frame_period_ns: int
) -> tuple[WrittenStream, PlantedFault]:
    """Does one fault to a stream, at the first row at or after ``place_ns``.

    Faults of one stream are planted in order of time: then none changes the row number of another, and since
    they lie 0.25 s apart a stamp already moved does not mislead the search for the place.
    """
    row = int(np.searchsorted(written.t_ns, place_ns))
    t_ns = int(written.t_ns[row])
    match kind:
        case "gap":
            stop = int(np.searchsorted(written.t_ns, t_ns + GAP_NS - _SNAP_NS))
            damaged = _without(written, row, stop)
            duration_ns, note = GAP_NS, f"{stop - row} rows are missing before row {row}"
        case "dead_camera":
            count = _silent_frames(frame_period_ns)
            damaged = _without(written, row, row + count)
            duration_ns = count * frame_period_ns
            note = f"{count} frames are missing before row {row}; the other cameras go on"
        case "duplicate":
            damaged = WrittenStream(
                np.insert(written.rows, row, written.rows[row]), np.insert(written.t_ns, row, t_ns)
            )
            duration_ns, note = 0, f"row {row} is repeated with the same stamp"
            row += 1
        case "outlier":
            damaged = _moved(written, row, OUTLIER_NS)
            duration_ns, note = OUTLIER_NS, "the stamp is 7 ms late; the picture was taken on time"
        case "backward":
            damaged = _moved(written, row, -BACKWARD_NS)
            duration_ns, note = BACKWARD_NS, "the stamp jumps back by 25 ms; the row stays in its place"
        case _:
            raise ConfigError(f"no fault is called {kind!r}", hint=f"Use one of {', '.join(KINDS)}")
    return damaged, PlantedFault(
        kind=kind, stream=stream, t_ns=t_ns, row=row, duration_ns=duration_ns, note=note
    )


def _silent_frames(frame_period_ns: int) -> int:
    """How many frames a dead camera leaves out: those of 300 ms, at least one."""
    return max(1, round(DEAD_CAMERA_NS / frame_period_ns))


def _room_ns(kind: str, frame_period_ns: int) -> int:
    """The longest time from a fault's place to its end: one row's period to its begin, then its length."""
    match kind:
        case "gap":
            return GAP_NS + _ROW_PERIOD_NS + _SNAP_NS
        case "dead_camera":
            return (_silent_frames(frame_period_ns) + 1) * frame_period_ns + _SNAP_NS
        case "outlier":
            return frame_period_ns + _SNAP_NS
        case _:
            return _ROW_PERIOD_NS + _SNAP_NS


def _without(written: WrittenStream, first: int, stop: int) -> WrittenStream:
    lost = np.s_[first:stop]
    return WrittenStream(np.delete(written.rows, lost), np.delete(written.t_ns, lost))


def _moved(written: WrittenStream, row: int, by_ns: int) -> WrittenStream:
    t_ns = written.t_ns.copy()
    t_ns[row] += by_ns
    return WrittenStream(written.rows, t_ns)
