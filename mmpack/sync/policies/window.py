"""The policy window: all items or audio samples of a time window."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmpack.clock import first_sample_at_or_after, samples_to_ns
from mmpack.errors import ConfigError
from mmpack.recording import Stream
from mmpack.recording.sources.images import ImageFiles
from mmpack.sync.alignment.align import AlignedStream, apply_clock_maps
from mmpack.sync.policies.match import MatchStatus, StreamMatch
from mmpack.sync.policies.policy import ALL_KINDS, JudgedBy, SyncPolicy
from mmpack.sync.policies.rule import MatchRule


def match_window(
    stream: AlignedStream, rule: MatchRule, ticks_ns: NDArray[np.int64], tick_period_ns: int
) -> StreamMatch:
    """Matches each tick to all items, or all audio samples, in [tick + offset − before, tick + offset + after)."""
    target_ns = ticks_ns + rule.offset_ns
    low, high = target_ns - rule.before_ns, target_ns + rule.after_ns
    if stream.stream.kind == "audio":
        return _match_audio_window(stream, rule, low, high)
    first = np.searchsorted(stream.t_ns, low, side="left")
    stop = np.searchsorted(stream.t_ns, high, side="left")
    count = stop - first
    # The gap is the longest time without an item, including the start and the end of the window.
    bounded = np.concatenate([stream.t_ns, [np.iinfo(np.int64).max]])
    steps = np.concatenate([np.diff(stream.t_ns), [0]])
    inner = np.array(
        [steps[a : max(a, b - 1)].max(initial=0) for a, b in zip(first, stop, strict=True)], np.int64
    )
    lead = np.minimum(bounded[first], high) - low
    trail = high - np.where(count > 0, stream.t_ns[np.maximum(stop - 1, 0)], low)
    gap = np.maximum(inner, np.maximum(lead, trail))
    limit = max(rule.limit_ns, 3 * stream.period_ns)
    status = np.where(gap > limit, MatchStatus.COVERAGE, MatchStatus.OK)
    outside = (high <= stream.t_ns[0]) | (low > stream.t_ns[-1])
    status = np.where(outside, MatchStatus.EDGE, np.where(count == 0, MatchStatus.MISSING, status))
    # A window that only extends past the first or last item has lost nothing: it is at an edge.
    is_cut = (
        (inner <= limit) & ((lead <= limit) | (first == 0)) & ((trail <= limit) | (stop == len(stream.t_ns)))
    )
    status = np.where((status == MatchStatus.COVERAGE) & is_cut, MatchStatus.EDGE, status)
    clipped = np.minimum(first, len(stream.t_ns) - 1)
    aligned = np.where(count > 0, stream.t_ns[clipped], low)
    zero = np.zeros(len(target_ns), np.int64)
    return StreamMatch(
        stream=stream,
        rule=rule,
        first=first,
        count=count,
        items=stream.items,
        aligned_ns=aligned,
        residual_ns=zero,
        status=status.astype(np.uint8),
        judged_ns=gap,
    )


def _match_audio_window(
    stream: AlignedStream, rule: MatchRule, low: NDArray[np.int64], high: NDArray[np.int64]
) -> StreamMatch:
    """Matches each tick to the audio samples in [low, high) of one segment; every sample of the window must exist.

    Samples are counted on the stream's own clock, because their rate holds on that clock.

    Args:
        stream: aligned audio stream.
        rule: match rule of the stream.
        low, high: int64, shape (T,), start and end of each window on the reference's clock.
    """
    timeline = stream.stream.audio_timeline
    rate_hz, starts = timeline.rate_hz, timeline.t_ns
    window_start = low
    low, high = stream.to_own_clock(low), stream.to_own_clock(high)
    segment = np.clip(np.searchsorted(starts, low, side="right") - 1, 0, len(starts) - 1)
    origin = starts[segment]
    begin = first_sample_at_or_after(low - origin, rate_hz, 0)
    end = first_sample_at_or_after(high - origin, rate_hz, 0)
    available = timeline.samples[segment]
    first, stop = np.clip(begin, 0, available), np.clip(end, 0, available)
    count = stop - first
    lost = (end - begin) - count
    status = np.where(lost > 0, MatchStatus.COVERAGE, MatchStatus.OK)
    last_end = starts[-1] + samples_to_ns(int(timeline.samples[-1]), rate_hz, 0)
    outside = (low < starts[0]) | (high > last_end + 10**9 // rate_hz)
    status = np.where((lost > 0) & outside, MatchStatus.EDGE, status)
    usable = status == MatchStatus.OK
    aligned = apply_clock_maps(stream.clock_maps, origin + samples_to_ns(first, rate_hz, 0))
    return StreamMatch(
        stream=stream,
        rule=rule,
        first=timeline.first_sample[segment] + first,
        count=np.where(usable, count, 0),
        items=np.empty(0, np.int64),
        aligned_ns=np.where(usable, aligned, window_start),
        # The residual is the time from the start of the window to the first sample, less than one sample period.
        residual_ns=np.where(usable, aligned - window_start, 0),
        status=status.astype(np.uint8),
        judged_ns=lost * 10**9 // rate_hz,
    )


def _check_video(stream: Stream) -> None:
    """Raises ConfigError for a camera that is a folder of images."""
    if isinstance(stream.source, ImageFiles):
        raise ConfigError(
            "policy = 'window' builds tubelets from a video, but this camera is a folder of images",
            where=f'sync.streams."{stream.name}"',
            hint="Use policy = 'nearest'.",
        )


WINDOW = SyncPolicy(
    name="window",
    match=match_window,
    judged_by=JudgedBy.SPAN,
    kinds=ALL_KINDS - {"text"},
    default_kinds=frozenset({"audio"}),
    check_stream=_check_video,
    plot_label="all items of the window",
)
