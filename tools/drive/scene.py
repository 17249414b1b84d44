"""The scene along the road: houses and moving cars, each made of upright boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tools.drive.motion import ROAD_BEYOND_M, Drive, Floats

Colours = npt.NDArray[np.uint8]

# Distances to the left of the path of the car, which drives in the right one of two lanes of 3.5 m.
ROAD_RIGHT_EDGE_M = -1.75
ROAD_CENTRE_M = 1.75
ROAD_LEFT_EDGE_M = 5.25

_ONCOMING_LANE_M = 3.5
_ONCOMING_M_S = 9.0
_HOUSE_EVERY_M = 17.0
_WALLS = ((200, 84, 62), (222, 170, 84), (92, 140, 190), (176, 176, 168), (140, 104, 164), (96, 160, 122))
_PAINTS = ((210, 30, 36), (30, 80, 200), (240, 240, 236), (250, 200, 30), (40, 44, 52), (20, 150, 120))
_GLASS = (44, 60, 76)


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """A set of N upright boxes; every array has one entry or row per box.

    Attributes:
        x_m, y_m, heading_rad: centre in metres and direction in the world, shape (N,).
        size_m: length along the direction and width across it, in metres, shape (N, 2).
        span_m: heights of bottom and top above the ground, in metres, shape (N, 2).
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
        arrays, others = vars(self), vars(other)
        return Boxes(**{name: np.concatenate([arrays[name], others[name]]) for name in arrays})


class Scene:
    """The houses and the other cars around the car of ``drive``."""

    def __init__(self, rng: np.random.Generator, drive: Drive) -> None:
        self.drive = drive
        self.hills = rng.uniform(0.0, 2 * np.pi, size=3)  # phases of the three waves of the skyline
        self._houses = _make_houses(rng, drive)
        length_m = drive.road_end_m
        self._oncoming_m = 40.0 + np.cumsum(rng.uniform(35.0, 70.0, size=4 + int(length_m / 25)))
        self._paint = rng.permutation(len(_PAINTS))

    def boxes(self, time_s: float) -> Boxes:
        """Returns all boxes at ``time_s`` seconds from the start of the drive."""
        own_m = self.drive.state_at(np.array([time_s])).arc_m
        front_car_m = own_m + 17.0 + 4.0 * np.sin(0.5 * time_s)
        rear_car_m = own_m - 14.0 + 3.0 * np.sin(0.4 * time_s + 1.0)
        oncoming_m = self._oncoming_m - _ONCOMING_M_S * time_s
        arc_m = np.concatenate([front_car_m, rear_car_m, oncoming_m])
        left_m = np.where(np.arange(len(arc_m)) < 2, 0.0, _ONCOMING_LANE_M)
        return self._houses + self._make_cars(arc_m, left_m)

    def _make_cars(self, arc_m: Floats, left_m: Floats) -> Boxes:
        """Returns two boxes per car: the body and a smaller cabin on top."""
        x, y, heading = self.drive.road_pose(arc_m, left_m)
        count = len(arc_m)
        paint = np.array(_PAINTS, dtype=np.uint8)[np.resize(self._paint, count)]

        def make_part(size_m: tuple[float, float], span_m: tuple[float, float], colour: Colours) -> Boxes:
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
        return make_part((4.4, 1.9), (0.25, 0.95), paint) + make_part((2.3, 1.6), (0.5, 1.5), cabin)


def _make_houses(rng: np.random.Generator, drive: Drive) -> Boxes:
    """Returns a row of houses on each side of the road, from before the start of the drive to after its end."""
    along_m = np.arange(-ROAD_BEYOND_M / 2, drive.road_end_m + ROAD_BEYOND_M / 2, _HOUSE_EVERY_M)
    arc_m = np.repeat(along_m, 2)
    count = len(arc_m)
    side = np.resize([1.0, -1.0], count)
    left_m = ROAD_CENTRE_M + side * rng.uniform(14.0, 22.0, size=count)
    x, y, heading = drive.road_pose(arc_m + rng.uniform(-3.0, 3.0, size=count), left_m)
    return Boxes(
        x_m=x,
        y_m=y,
        heading_rad=heading,
        size_m=rng.uniform((8.0, 7.0), (12.0, 11.0), size=(count, 2)),
        span_m=np.stack([np.zeros(count), rng.uniform(5.0, 14.0, size=count)], axis=1),
        colour=np.array(_WALLS, dtype=np.uint8)[rng.integers(len(_WALLS), size=count)],
        windows=np.ones(count, dtype=np.bool_),
    )
