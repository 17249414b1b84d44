"""The world along the road: houses, and cars that move. Each thing is an upright box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tools.drive.motion import ROAD_BEYOND_M, Drive, Floats

Colours = npt.NDArray[np.uint8]

# Left of the line that the car follows: it drives in the right of two lanes, each 3.5 m wide.
ROAD_RIGHT_EDGE_M = -1.75
ROAD_CENTRE_M = 1.75
ROAD_LEFT_EDGE_M = 5.25

_ONCOMING_LANE_M = 3.5
_ONCOMING_M_S = 9.0
_HOUSE_EVERY_M = 17.0
_WALLS = ((200, 84, 62), (222, 170, 84), (92, 140, 190), (176, 176, 168), (140, 104, 164), (96, 160, 122))
_PAINTS = ((210, 30, 36), (30, 80, 200), (240, 240, 236), (250, 200, 30), (40, 44, 52), (20, 150, 120))
_GLASS = (44, 60, 76)


@dataclass(frozen=True)
class Boxes:
    """Upright boxes; N of them, one entry or row each.

    Attributes:
        x_m, y_m, heading_rad: centre and direction in the world, shape (N,).
        size_m: length along the direction and width across it, shape (N, 2).
        span_m: height of bottom and top above the ground, shape (N, 2).
        colour: RGB, uint8, shape (N, 3).
        windows: whether windows are painted on the walls, bool, shape (N,).
    """

    x_m: Floats
    y_m: Floats
    heading_rad: Floats
    size_m: Floats
    span_m: Floats
    colour: Colours
    windows: npt.NDArray[np.bool_]

    def __add__(self, other: Boxes) -> Boxes:
        mine, others = vars(self), vars(other)
        return Boxes(**{name: np.concatenate([mine[name], others[name]]) for name in mine})


class Scene:
    """Everything that stands or moves beside the car of ``drive``."""

    def __init__(self, rng: np.random.Generator, drive: Drive) -> None:
        self.drive = drive
        self.hills = rng.uniform(0.0, 2 * np.pi, size=3)  # phases of the skyline's three waves
        self._houses = _houses(rng, drive)
        length_m = drive.road_end_m
        self._oncoming_m = 40.0 + np.cumsum(rng.uniform(35.0, 70.0, size=4 + int(length_m / 25)))
        self._paint = rng.permutation(len(_PAINTS))

    def boxes(self, time_s: float) -> Boxes:
        """All boxes at ``time_s`` seconds from the drive's start."""
        own_m = self.drive.at(np.array([time_s])).arc_m
        ahead_m = own_m + 17.0 + 4.0 * np.sin(0.5 * time_s)
        behind_m = own_m - 14.0 + 3.0 * np.sin(0.4 * time_s + 1.0)
        oncoming_m = self._oncoming_m - _ONCOMING_M_S * time_s
        arc_m = np.concatenate([ahead_m, behind_m, oncoming_m])
        left_m = np.where(np.arange(len(arc_m)) < 2, 0.0, _ONCOMING_LANE_M)
        return self._houses + self._cars(arc_m, left_m)

    def _cars(self, arc_m: Floats, left_m: Floats) -> Boxes:
        """A body for each car, and a smaller cabin that rises out of it."""
        x, y, heading = self.drive.road(arc_m, left_m)
        count = len(arc_m)
        paint = np.array(_PAINTS, dtype=np.uint8)[np.resize(self._paint, count)]

        def part(size_m: tuple[float, float], span_m: tuple[float, float], colour: Colours) -> Boxes:
            return Boxes(
                x_m=x,
                y_m=y,
                heading_rad=heading,
                size_m=np.tile(size_m, (count, 1)),
                span_m=np.tile(span_m, (count, 1)),
                colour=colour,
                windows=np.zeros(count, dtype=np.bool_),
            )

        cabin = np.tile(np.array(_GLASS, dtype=np.uint8), (count, 1))
        return part((4.4, 1.9), (0.25, 0.95), paint) + part((2.3, 1.6), (0.5, 1.5), cabin)


def _houses(rng: np.random.Generator, drive: Drive) -> Boxes:
    """A row of houses on each side of the road, from well behind the drive to well ahead."""
    along_m = np.arange(-ROAD_BEYOND_M / 2, drive.road_end_m + ROAD_BEYOND_M / 2, _HOUSE_EVERY_M)
    arc_m = np.repeat(along_m, 2)
    count = len(arc_m)
    side = np.resize([1.0, -1.0], count)
    left_m = ROAD_CENTRE_M + side * rng.uniform(14.0, 22.0, size=count)
    x, y, heading = drive.road(arc_m + rng.uniform(-3.0, 3.0, size=count), left_m)
    return Boxes(
        x_m=x,
        y_m=y,
        heading_rad=heading,
        size_m=rng.uniform((8.0, 7.0), (12.0, 11.0), size=(count, 2)),
        span_m=np.stack([np.zeros(count), rng.uniform(5.0, 14.0, size=count)], axis=1),
        colour=np.array(_WALLS, dtype=np.uint8)[rng.integers(len(_WALLS), size=count)],
        windows=np.ones(count, dtype=np.bool_),
    )
