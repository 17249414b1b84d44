"""Values of a table at the ticks: matched rows as they are, or interpolated, on the sphere for rotations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import ConfigError
from mmpack.sync.policies.match import StreamMatch
from mmpack.sync.policies.policy import JudgedBy
from mmpack.sync.policies.registry import judged_by


def interpolate_rows(
    match: StreamMatch, tick: int, tick_ns: int, values: NDArray[np.float64], columns: tuple[str, ...]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Returns the rows of one tick and their timestamps.

    Args:
        match: match of the stream.
        tick: index of the tick.
        tick_ns: time of the tick.
        values: float64, shape (n, c), all rows of the stream in file order.
        columns: names of the c columns.

    Returns:
        (rows, float64, shape (r, c); their timestamps on the reference's clock, int64, shape (r,)). r is 1 for an
        interpolated value, the number of matched rows for every other policy (a held value has one row, or all rows
        that share its timestamp or burst), and 0 for a tick without a value.

    Raises:
        ConfigError: a quaternion column of the rule is not in `columns`.
    """
    first, count = int(match.first[tick]), int(match.count[tick])
    if not count:
        return np.empty((0, values.shape[1])), np.empty(0, np.int64)
    matched = slice(first, first + count)
    rows, t_ns = values[match.items[matched]], match.stream.t_ns[matched]
    if judged_by(match) is not JudgedBy.COMPUTED or count == 1:
        return rows, t_ns
    target_ns = tick_ns + match.rule.offset_ns
    share = (target_ns - int(t_ns[0])) / (int(t_ns[1]) - int(t_ns[0]))
    row = rows[0] + (rows[1] - rows[0]) * share
    if match.rule.quaternion:
        indices = _find_quaternion_columns(match, columns)
        row[indices] = slerp(rows[0][indices], rows[1][indices], share)
    return row[None], np.array([target_ns], np.int64)


def slerp(start: NDArray[np.float64], stop: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Returns the spherical linear interpolation of two quaternions (Shoemake 1985) along the shorter arc.

    Args:
        start, stop: float64, shape (4,); normalised before use.
        share: position on the arc: 0 at `start`, 1 at `stop`.

    Returns:
        A unit quaternion, float64, shape (4,).
    """
    start, stop = start / np.linalg.norm(start), stop / np.linalg.norm(stop)
    cosine = float(start @ stop)
    if cosine < 0:  # q and −q are the same rotation
        stop, cosine = -stop, -cosine
    if cosine > 1 - 1e-9:  # sin(angle) is almost zero; the chord replaces the arc
        blend = start + (stop - start) * share
    else:
        angle = np.arccos(cosine)
        blend = (np.sin((1 - share) * angle) * start + np.sin(share * angle) * stop) / np.sin(angle)
    return blend / np.linalg.norm(blend)


def _find_quaternion_columns(match: StreamMatch, columns: tuple[str, ...]) -> list[int]:
    """Returns the column indices of (w, x, y, z)."""
    missing = [name for name in match.rule.quaternion or () if name not in columns]
    if missing:
        raise ConfigError(
            f"quaternion column '{missing[0]}' is not among the stream's columns",
            where=f"stream '{match.name}'",
            hint=f"Choose four of the columns: {', '.join(columns)}.",
        )
    return [columns.index(name) for name in match.rule.quaternion or ()]
