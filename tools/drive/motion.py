"""Motion of the car: one list of manoeuvres, from which all sensor data of the drive are derived."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

WHEELBASE_M = 2.7
ROAD_BEYOND_M = 200.0  # straight road before the first position and after the last position of the car
_STEP_S = 0.005
_CRUISE_M_S = (9.0, 14.0)
_TURN_M_S = (6.5, 8.5)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Manoeuvre:
    """One action of the car from ``begin_s`` to ``end_s``, in seconds from the start of the drive."""

    begin_s: float
    end_s: float
    sentence: str
    speed_m_s: float
    turn_rad: float


@dataclass(frozen=True, kw_only=True)
class VehicleState:
    """The state of the car at several times; every array has one entry per time.

    In the vehicle frame x points forward, y left and z up. ``heading_rad`` is counter-clockwise from the x axis of the
    world. ``arc_m`` is the distance along the road. ``steering_rad`` is the angle of the front wheels, positive to the left,
    by the bicycle model: tan(steering) = wheelbase * yaw rate / speed.
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
    """A smooth drive along a two-lane road; the road follows the path of the car.

    Args:
        rng: random generator of the manoeuvres.
        begin_s, end_s: time range of the drive, in seconds from its start.
    """

    def __init__(self, rng: np.random.Generator, begin_s: float, end_s: float) -> None:
        self.manoeuvres = _choose_manoeuvres(rng, begin_s, end_s)
        time_s = np.arange(begin_s, end_s + _STEP_S, _STEP_S)
        speed, yaw_rate = _compute_profiles(self.manoeuvres, time_s)
        heading = _integrate(yaw_rate)
        self._time_s = time_s
        self._table = VehicleState(
            arc_m=_integrate(speed),
            speed_m_s=speed,
            accel_m_s2=np.gradient(speed, _STEP_S),
            yaw_rate_rad_s=yaw_rate,
            steering_rad=np.arctan(WHEELBASE_M * yaw_rate / speed),
            x_m=_integrate(speed * np.cos(heading)),
            y_m=_integrate(speed * np.sin(heading)),
            heading_rad=heading,
        )
        self._road = _extend_road(self._table)
        self.road_end_m = float(self._table.arc_m[-1])

    def state_at(self, time_s: Floats) -> VehicleState:
        """Returns the state of the car at `time_s` seconds from the start of the drive."""
        table = vars(self._table)
        return VehicleState(
            **{name: np.interp(time_s, self._time_s, column) for name, column in table.items()}
        )

    def road_pose(self, arc_m: Floats, left_m: Floats | float = 0.0) -> tuple[Floats, Floats, Floats]:
        """Returns world x, y (metres) and heading (rad) of points that are ``left_m`` to the left of the path of the car.

        Args:
            arc_m: distances along the road; a distance beyond an end of the road stands for that end.
            left_m: distances to the left.
        """
        arc, *columns = self._road
        x, y, heading = (np.interp(arc_m, arc, column) for column in columns)
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
            side = -side  # turns alternate, so that the road does not cross itself
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


def _compute_profiles(manoeuvres: tuple[Manoeuvre, ...], time_s: Floats) -> tuple[Floats, Floats]:
    """Returns smooth speed and yaw rate: speed follows a smoothstep, yaw rate follows a raised cosine."""
    speed = np.full(time_s.shape, manoeuvres[0].speed_m_s)
    yaw_rate = np.zeros(time_s.shape)
    previous = manoeuvres[0].speed_m_s
    for manoeuvre in manoeuvres:
        inside = (time_s >= manoeuvre.begin_s) & (time_s < manoeuvre.end_s)
        length_s = manoeuvre.end_s - manoeuvre.begin_s
        part = (time_s[inside] - manoeuvre.begin_s) / length_s
        speed[inside] = previous + (manoeuvre.speed_m_s - previous) * part**2 * (3 - 2 * part)
        yaw_rate[inside] = manoeuvre.turn_rad / length_s * (1 - np.cos(2 * np.pi * part))
        previous = manoeuvre.speed_m_s
    return speed, yaw_rate


def _integrate(rate: Floats) -> Floats:
    """Integrates over the time steps of the table by the trapezoidal rule, starting at 0."""
    return np.concatenate([[0.0], np.cumsum((rate[1:] + rate[:-1]) * (_STEP_S / 2))])


def _extend_road(table: VehicleState) -> tuple[Floats, Floats, Floats, Floats]:
    """Returns arc, x, y and heading of the road, with a straight part added at both ends."""
    ends = []
    for index, step in ((0, -ROAD_BEYOND_M), (-1, ROAD_BEYOND_M)):
        heading = table.heading_rad[index]
        x = table.x_m[index] + step * np.cos(heading)
        y = table.y_m[index] + step * np.sin(heading)
        ends.append((table.arc_m[index] + step, x, y, heading))
    columns = (table.arc_m, table.x_m, table.y_m, table.heading_rad)
    arc, x, y, heading = (
        np.concatenate([[first], column, [last]])
        for first, column, last in zip(ends[0], columns, ends[1], strict=True)
    )
    return arc, x, y, heading
