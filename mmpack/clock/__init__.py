"""Time as integer nanoseconds on declared clocks: exact conversions, clock maps and drift; no file formats."""

from mmpack.clock.clocks import DOMAINS, Clock, Domain
from mmpack.clock.convert import (
    UNIT_NS,
    first_sample_at_or_after,
    floats_to_ns,
    gps_week_s_to_ns,
    integers_to_ns,
    pts_to_ns,
    samples_to_ns,
)
from mmpack.clock.decimal_text import decimal_to_ns, decimals_to_ns, format_ns, parse_duration
from mmpack.clock.drift import DriftFit, fit_drift, period_drift
from mmpack.clock.leap import leap_second_map
from mmpack.clock.maps import ClockMap
from mmpack.lazy import make_dir

__all__ = [
    "DOMAINS",
    "UNIT_NS",
    "Clock",
    "ClockMap",
    "Domain",
    "DriftFit",
    "decimal_to_ns",
    "decimals_to_ns",
    "first_sample_at_or_after",
    "fit_drift",
    "floats_to_ns",
    "format_ns",
    "gps_week_s_to_ns",
    "integers_to_ns",
    "leap_second_map",
    "parse_duration",
    "period_drift",
    "pts_to_ns",
    "samples_to_ns",
]

__dir__ = make_dir(__all__)
