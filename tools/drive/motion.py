"""How the car moves: one list of manoeuvres, from which every sensor of the drive is derived."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

WHEELBASE_M = 2.7
ROAD_BEYOND_M = 200.0  # the road goes straight on, this far behind the drive's first place and past its last
_STEP_S = 0.005
_CRUISE_M_S = (9.0, 14.0)
_TURN_M_S = (6.5, 8.5)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Manoeuvre:
    """What the car does from ``begin_s`` to ``end_s``, in seconds from the drive's start."""

    begin_s: float
    end_s: float
    sentence: str
    speed_m_s: float
    turn_rad: float


@dataclass(frozen=True)
class VehicleState:
    """The car at some instants; every array has one entry per instant.

    The vehicle frame is x forward, y left, z up. ``heading_rad`` is counter-clockwise from the world's x.
    ``arc_m`` is the distance along the road. ``steering_rad`` is the angle of the front wheels, positive to
    the left, by the bicycle model: tan(steering) = wheelbase * yaw rate / speed.
    """

    arc_m: Floats
    speed_m_s: Floats
    accel_m_s2: Floats
    yaw_rate_rad_s: Floats
    steering_rad: Floats
    x_m: Floats
    y_m: Floats
    heading_rad: Floats


class Drive:
    """A smooth drive along a two-lane road; the road is the curve that the car follows.

    Args:
        rng: source of the manoeuvres.
        begin_s, end_s: seconds from the drive's start that must be covered.
    """

    def __init__(self, rng: np.random.Generator, begin_s: float, end_s: float) -> None:
        self.manoeuvres = _choose_manoeuvres(rng, begin_s, end_s)
        time_s = np.arange(begin_s, end_s + _STEP_S, _STEP_S)
        speed, yaw_rate = _profiles(self.manoeuvres, time_s)
        heading = _integral(yaw_rate)
        self._time_s = time_s
        self._table = VehicleState(
            arc_m=_integral(speed),
            speed_m_s=speed,
            accel_m_s2=np.gradient(speed, _STEP_S),
            yaw_rate_rad_s=yaw_rate,
            steering_rad=np.arctan(WHEELBASE_M * yaw_rate / speed),
            x_m=_integral(speed * np.cos(heading)),
            y_m=_integral(speed * np.sin(heading)),
            heading_rad=heading,
        )
        self._road = _extended(self._table)
        self.road_end_m = float(self._table.arc_m[-1])

    def at(self, time_s: Floats) -> VehicleState:
        """The car at the given seconds from the drive's start."""
        table = vars(self._table)
        return VehicleState(
            **{name: np.interp(time_s, self._time_s, column) for name, column in table.items()}
        )

    def road(self, arc_m: Floats, left_m: Floats | float = 0.0) -> tuple[Floats, Floats, Floats]:
        """World x, y (metres) and heading (rad) of places ``left_m`` to the left of the road's line.

        Places past either end of the road are given as its end.
        """
        arc, *line = self._road
        x, y, heading = (np.interp(arc_m, arc, column) for column in line)
        return x - left_m * np.sin(heading), y + left_m * np.cos(heading), heading


def _choose_manoeuvres(rng: np.random.Generator, begin_s: float, end_s: float) -> tuple[Manoeuvre, ...]:
    chosen: list[Manoeuvre] = []
    now_s = begin_s
    side = int(rng.choice((-1, 1)))
    turns_next = False
    while now_s < end_s:
        length_s = round(float(rng.uniform(2.8, 4.2)), 3)
        if turns_next:
            turn_rad = side * float(rng.uniform(0.5, 0.9))
            speed = float(rng.uniform(*_TURN_M_S))
            to_side = f"{'left' if side > 0 else 'right'} by {abs(np.degrees(turn_rad)):.0f} degrees"
            sentence = f"Turning {to_side} at {speed * 3.6:.0f} km/h."
            side = -side  # the road winds and never bends back on itself
        else:
            turn_rad = 0.0
            speed = float(rng.uniform(*_CRUISE_M_S))
            faster = not chosen or speed > chosen[-1].speed_m_s
            verb = "Driving" if not chosen else "Speeding up" if faster else "Slowing down"
            sentence = f"{verb} straight on {'at' if not chosen else 'to'} {speed * 3.6:.0f} km/h."
        chosen.append(Manoeuvre(now_s, now_s + length_s, sentence, speed, turn_rad))
        turns_next = not turns_next and bool(rng.random() < 0.8)
        now_s += length_s
    return tuple(chosen)


def _profiles(manoeuvres: tuple[Manoeuvre, ...], time_s: Floats) -> tuple[Floats, Floats]:
    """Speed and yaw rate, both smooth: speed follows a smoothstep, yaw rate a raised cosine."""
    speed = np.full(time_s.shape, manoeuvres[0].speed_m_s)
    yaw_rate = np.zeros(time_s.shape)
    before = manoeuvres[0].speed_m_s
    for manoeuvre in manoeuvres:
        inside = (time_s >= manoeuvre.begin_s) & (time_s < manoeuvre.end_s)
        length_s = manoeuvre.end_s - manoeuvre.begin_s
        part = (time_s[inside] - manoeuvre.begin_s) / length_s
        speed[inside] = before + (manoeuvre.speed_m_s - before) * part**2 * (3 - 2 * part)
        yaw_rate[inside] = manoeuvre.turn_rad / length_s * (1 - np.cos(2 * np.pi * part))
        before = manoeuvre.speed_m_s
    return speed, yaw_rate


def _integral(rate: Floats) -> Floats:
    """Trapezoid rule over the table's steps, from 0."""
    return np.concatenate([[0.0], np.cumsum((rate[1:] + rate[:-1]) * (_STEP_S / 2))])


def _extended(table: VehicleState) -> tuple[Floats, Floats, Floats, Floats]:
    """Arc, x, y and heading of the road, with a straight piece added at both ends."""
    ends = []
    for place, step in ((0, -ROAD_BEYOND_M), (-1, ROAD_BEYOND_M)):
        heading = table.heading_rad[place]
        x = table.x_m[place] + step * np.cos(heading)
        y = table.y_m[place] + step * np.sin(heading)
        ends.append((table.arc_m[place] + step, x, y, heading))
    columns = (table.arc_m, table.x_m, table.y_m, table.heading_rad)
    arc, x, y, heading = (
        np.concatenate([[first], column, [last]])
        for first, column, last in zip(ends[0], columns, ends[1], strict=True)
    )
    return arc, x, y, heading
