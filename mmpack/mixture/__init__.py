"""Which data set the next document comes from, so that shares in tokens follow the phases exactly.

    schedule = schedule_of(phases, {"drives": 4_000_000_000, "texts": 90_000_000_000})
    course = course_of(schedule, available=[16_000_000_000, None])
    drawn = draw(course, zeros, lengths, offsets, until_tokens=16_777_216)

numba is imported when a draw first needs it.
"""

from __future__ import annotations

from mmpack.mixture.draw import Drawn, behind, draw, tokens_after
from mmpack.mixture.phase_config import PhaseConfig
from mmpack.mixture.quota import Course, course_of
from mmpack.mixture.schedule import Schedule, schedule_of
from mmpack.mixture.weights import SCALE

__all__ = [
    "SCALE",
    "Course",
    "Drawn",
    "PhaseConfig",
    "Schedule",
    "behind",
    "course_of",
    "draw",
    "schedule_of",
    "tokens_after",
]
