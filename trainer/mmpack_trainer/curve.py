"""A loss curve in one line of text."""

from __future__ import annotations

import math
from itertools import pairwise


def curve(losses: list[float], *, width: int = 60) -> str:
    """Losses as one line of bars, the lowest and highest of them from ▁ to █; `·` where one is no number."""
    if not losses:
        return ""
    count = min(width, len(losses))
    edges = [number * len(losses) // count for number in range(count + 1)]
    parts = [losses[start:stop] for start, stop in pairwise(edges)]
    means = [sum(part) / len(part) for part in parts]
    known = [mean for mean in means if math.isfinite(mean)]
    if not known:
        return "·" * count
    low, span = min(known), max(known) - min(known)
    return "".join(
        "▁▂▃▄▅▆▇█"[round(7 * (mean - low) / span) if span else 0] if math.isfinite(mean) else "·"
        for mean in means
    )
