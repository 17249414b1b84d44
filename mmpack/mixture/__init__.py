"""The mixture: chooses the data set of each document so that shares in tokens follow the phases exactly.

    schedule = mixture_schedule(phases, {"drives": 4_000_000_000, "texts": 90_000_000_000})
    curve = quota_curve(schedule, available=[16_000_000_000, None])
    result = draw_documents(curve, zeros, lengths, offsets, until_tokens=16_777_216)

numba is imported by the first call of `draw_documents`.
"""

from __future__ import annotations

from mmpack.lazy import make_dir
from mmpack.mixture.draw import DrawResult, draw_documents, quota_lag, tokens_after
from mmpack.mixture.phase_config import PhaseConfig
from mmpack.mixture.quota import QuotaCurve, quota_curve
from mmpack.mixture.schedule import MixtureSchedule, mixture_schedule
from mmpack.mixture.weights import SCALE

__all__ = [
    "SCALE",
    "DrawResult",
    "MixtureSchedule",
    "PhaseConfig",
    "QuotaCurve",
    "draw_documents",
    "mixture_schedule",
    "quota_curve",
    "quota_lag",
    "tokens_after",
]

__dir__ = make_dir(__all__)
