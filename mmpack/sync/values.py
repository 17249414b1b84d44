"""Values at the ticks: rows of a table by the match that chose them, linear in between, on the sphere for
rotations.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import ConfigError
from mmpack.sync.policies.match import StreamMatch


def interpolate_rows(
    match: StreamMatch, tick: int, tick_ns: int, values: NDArray[np.float64], columns: tuple[str, ...]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The rows of one tick.

    Args:
        match: how the stream was matched.
        tick: number of the tick.
        tick_ns: its time.
        values: float64, shape (n, columns), in file order.
        columns: names of the columns.

    Returns:
        (rows, float64, shape (r, columns); their stamps on the reference's clock, int64, shape (r,)). One row
        for an interpolated or held value; as many as there are for a window or for rows sharing a stamp; none
        where the tick has nothing.
    """
    first, count = int(match.first[tick]), int(match.count[tick])
    if not count:
        return np.empty((0, values.shape[1])), np.empty(0, np.int64)
    places = slice(first, first + count)
    rows, stamps = values[match.items[places]], match.stream.t_ns[places]
    if match.rule.policy != "interpolate" or count == 1:
        return rows, stamps
    wanted = tick_ns + match.rule.offset_ns
    share = (wanted - int(stamps[0])) / (int(stamps[1]) - int(stamps[0]))
    row = rows[0] + (rows[1] - rows[0]) * share
    if match.rule.quaternion:
        at = _quaternion_columns(match, columns)
        row[at] = slerp(rows[0][at], rows[1][at], share)
    return row[None], np.array([wanted], np.int64)


def slerp(start: NDArray[np.float64], stop: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Spherical interpolation of unit quaternions (Shoemake 1985), the short way round.

    Args:
        start, stop: float64, shape (4,); normalised first.
        share: 0 at start, 1 at stop.
    """
    start, stop = start / np.linalg.norm(start), stop / np.linalg.norm(stop)
    cosine = float(start @ stop)
    if cosine < 0:  # q and −q are one rotation
        stop, cosine = -stop, -cosine
    if cosine > 1 - 1e-9:  # the sines vanish; the chord is the arc
        blend = start + (stop - start) * share
    else:
        angle = np.arccos(cosine)
        blend = (np.sin((1 - share) * angle) * start + np.sin(share * angle) * stop) / np.sin(angle)
    return blend / np.linalg.norm(blend)


def _quaternion_columns(match: StreamMatch, columns: tuple[str, ...]) -> list[int]:
    missing = [name for name in match.rule.quaternion or () if name not in columns]
    if missing:
        raise ConfigError(
            f"quaternion column '{missing[0]}' is not among the stream's columns",
            where=f"stream '{match.name}'",
            hint=f"Columns: {', '.join(columns)}.",
        )
    return [columns.index(name) for name in match.rule.quaternion or ()]
