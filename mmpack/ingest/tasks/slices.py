"""A synchronised recording as samples: media read once, in one forward pass, a slice at a time."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from mmpack.errors import ConfigError, DataError
from mmpack.ingest.tasks.build_config import ShardsConfig
from mmpack.ingest.tasks.encode_images import encode_image, encode_tubelet
from mmpack.layout import SliceMetadata
from mmpack.prefetch import Prefetcher
from mmpack.recording import TABLE_KINDS, Frame, FrameSource, TableSource, TextSource
from mmpack.samples.description import NUMERIC_MEMBER
from mmpack.samples.npz import encode_npz
from mmpack.samples.statistics import NumericStatistics, compute_statistics
from mmpack.serialisation import canonical_json
from mmpack.shards.index import IndexEntry
from mmpack.sync import MatchStatus, StreamMatch, SyncResult, interpolate_rows
from mmpack.sync.synchronise import describe_failure

#: A step between ticks longer than this many periods ends a run: what lies across it is not consecutive.
MAX_STEP_PERIODS = 1.5
#: Decoded frames held back at once: 256 of 1080p are 800 MB.
MAX_BUFFERED_FRAMES = 256

#: Encoded parts of a camera kept ready: enough to bridge a slow slice, few enough for 4K frames.
PREFETCH_DEPTH = 8

MAX_FLAC_CHANNELS = 8


@dataclass(frozen=True)
class SlicePart:
    """What one stream gives to one slice."""

    members: tuple[tuple[str, bytes], ...] = ()
    arrays: tuple[tuple[str, NDArray[Any]], ...] = ()
    camera: tuple[str, int, int, int] | None = None
    audio: tuple[str, int, int] | None = None
    numeric: tuple[str, int] | None = None
    texts: tuple[str, ...] = ()
    statistics: NumericStatistics | None = None
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True)
class EncodedSample:
    """A sample ready to be written: its index row, its members, the statistics of its numbers."""

    row: IndexEntry
    members: list[tuple[str, bytes]]
    statistics: dict[str, NumericStatistics]


def encode_slices(
    result: SyncResult, config: ShardsConfig, *, skip: int = 0, threads: bool = False
) -> Iterator[EncodedSample]:
    """The slices of a recording that passed, in order.

    Args:
        result: the synchronised recording.
        config: how media are written.
        skip: slices at the start that are published already; their media are passed over without encoding.
        threads: one decoding thread per camera.

    Raises:
        DataError: media cannot be read.
    """
    todo = np.flatnonzero(result.passed)[skip:]
    tables = _tick_columns(result)
    parts: dict[str, Iterator[SlicePart]] = {}
    with ExitStack() as prefetchers:
        # By name, which is also the order of a sample's description.
        for name, match in sorted(result.matches.items()):
            pieces = _stream_parts(match, result, todo, config)
            if pieces is None:
                continue
            if threads and match.stream.stream.kind == "camera":
                # Decoders and encoders release the interpreter's lock, so one thread per camera uses as many cores.
                prefetcher = Prefetcher(lambda part: part, pieces, threads=1, depth=PREFETCH_DEPTH)
                parts[name] = prefetchers.enter_context(prefetcher)
            else:
                parts[name] = pieces
        for tick in todo.tolist():
            pieces = {name: next(part) for name, part in parts.items()}
            yield _sample(result, tables, tick, pieces)


def number_runs(result: SyncResult) -> NDArray[np.int64]:
    """int64, shape (T,): number of the run of consecutive slices that each tick belongs to.

    A slice that was set aside, or a step of more than RUN_BREAK periods, ends a run.
    """
    passed, t_ns = result.passed, result.ticks.t_ns
    breaks = np.zeros(len(t_ns), np.int64)
    breaks[1:] = ~passed[:-1] | (np.diff(t_ns) > MAX_STEP_PERIODS * result.ticks.period_ns)
    starts = passed & (breaks > 0)
    return np.cumsum(starts, dtype=np.int64)


@dataclass(frozen=True)
class _TickColumns:
    """Facts of all T ticks, found for whole columns at once.

    Attributes:
        run: int64, shape (T,), of :func:`number_runs`.
        residual_ns: int64, shape (T,): largest |residual| of the streams that are matched to one item.
        absent: by stream, bool, shape (T,): ticks at which it fails its rule.
    """

    run: NDArray[np.int64]
    residual_ns: NDArray[np.int64]
    absent: dict[str, NDArray[np.bool_]]


def _tick_columns(result: SyncResult) -> _TickColumns:
    residual_ns = np.zeros(len(result.passed), np.int64)
    for found in result.matches.values():
        if found.rule.policy in ("exact", "nearest"):
            np.maximum(residual_ns, np.abs(found.residual_ns), out=residual_ns, where=found.has_item)
    absent = {
        name: (found.status != MatchStatus.OK) & (found.status != MatchStatus.EMPTY)
        for name, found in result.matches.items()
    }
    return _TickColumns(number_runs(result), residual_ns, absent)


def _sample(
    result: SyncResult, tables: _TickColumns, tick: int, parts: dict[str, SlicePart]
) -> EncodedSample:
    name, t_ns = result.recording.name, int(result.ticks.t_ns[tick])
    run, residual_ns = int(tables.run[tick]), int(tables.residual_ns[tick])
    arrays = {key: array for piece in parts.values() for key, array in piece.arrays}
    members = [member for piece in parts.values() for member in piece.members]
    if arrays:
        members.append((NUMERIC_MEMBER, encode_npz(arrays)))
    texts = tuple(text for piece in parts.values() for text in piece.texts)
    description = {
        "version": 1,
        "kind": "slice",
        "recording": name,
        "ordinal": tick,
        "run": run,
        "t_ns": t_ns,
        "clock": result.clock.name,
        "residual_ns": residual_ns,
        "streams": {stream: piece.metadata for stream, piece in parts.items() if piece.metadata},
        "absent": {
            stream: describe_failure(found, tick)
            for stream, found in result.matches.items()
            if tables.absent[stream][tick]
        },
    }
    facts = SliceMetadata(
        cameras=tuple(piece.camera for piece in parts.values() if piece.camera),
        audio=tuple(piece.audio for piece in parts.values() if piece.audio),
        numeric=tuple(piece.numeric for piece in parts.values() if piece.numeric),
        text=texts,
    )
    key = f"{name}-{tick:08d}"
    text_bytes = sum(len(text.encode()) for text in texts)
    row = IndexEntry(key, "slice", name, tick, run, t_ns, residual_ns, facts, text_bytes)
    statistics = {stream: piece.statistics for stream, piece in parts.items() if piece.statistics}
    return EncodedSample(row, [*members, ("json", canonical_json(description))], statistics)


def _stream_parts(
    match: StreamMatch, result: SyncResult, pending_ticks: NDArray[np.int64], config: ShardsConfig
) -> Iterator[SlicePart] | None:
    """One stream's pieces for the ticks in `todo`, or None for a stream without content (lidar, events)."""
    stream = match.stream.stream
    source = stream.source
    if stream.kind == "camera" and isinstance(source, FrameSource):
        if match.rule.policy == "window":
            return _tubelet_parts(match, source, pending_ticks, config)
        return _image_parts(match, source, pending_ticks, config)
    if stream.kind == "audio":
        return _audio_parts(match, pending_ticks, config)
    if stream.kind in TABLE_KINDS | {"radar"} and isinstance(source, TableSource):
        return _numeric_parts(match, source, result, pending_ticks)
    if stream.kind == "text" and isinstance(source, TextSource):
        return _text_parts(match, source, pending_ticks)
    if stream.kind == "camera":
        raise DataError(
            "its pictures are not there, so no shards can be built from it",
            where=f"{result.recording.path}, stream '{stream.name}'",
            hint="Only `mmpack sync` works on stamps alone.",
        )
    return None


def _common_description(match: StreamMatch, tick: int, **more: Any) -> dict[str, Any]:
    return {
        "policy": match.rule.policy,
        "t_ns": int(match.aligned_ns[tick]),
        "offset_ns": match.rule.offset_ns,
        "residual_ns": int(match.residual_ns[tick]),
        "tolerance_ns": match.rule.tolerance_ns,
        **more,
    }


def _is_present(match: StreamMatch) -> NDArray[np.bool_]:
    """bool, shape (T,): ticks a stream has something good for.

    An optional one that fails its rule is absent, not padded.
    """
    return match.has_item & (match.status == MatchStatus.OK)


def _image_parts(
    match: StreamMatch, source: FrameSource, pending_ticks: NDArray[np.int64], config: ShardsConfig
) -> Iterator[SlicePart]:
    present = _is_present(match)
    frames = _frames_in_order(
        match.name, source, match.items[match.first[pending_ticks[present[pending_ticks]]]].tolist()
    )
    for tick in pending_ticks.tolist():
        if not present[tick]:
            yield SlicePart()
            continue
        frame = next(frames)
        data, extension, height, width = encode_image(frame, config.jpeg_quality)
        member = f"{match.name}.{extension}"
        facts = _common_description(match, tick, member=member, item=frame.index, height=height, width=width)
        yield SlicePart(((member, data),), camera=(match.name, height, width, 1), metadata=facts)


def _tubelet_parts(
    match: StreamMatch, source: FrameSource, pending_ticks: NDArray[np.int64], config: ShardsConfig
) -> Iterator[SlicePart]:
    present = _is_present(match)
    windows = [
        match.items[match.first[tick] : match.first[tick] + match.count[tick]] if present[tick] else []
        for tick in pending_ticks.tolist()
    ]
    frames = _frames_in_order(match.name, source, [int(item) for window in windows for item in window])
    for tick, window in zip(pending_ticks.tolist(), windows, strict=True):
        if not len(window):
            yield SlicePart()
            continue
        shown = [next(frames) for _ in window]
        decoded = [frame.decoded for frame in shown if frame.decoded is not None]
        if len(decoded) != len(shown):
            raise ConfigError(
                "policy 'window' makes tubelets from video, and this camera is a folder of pictures",
                where=f"stream '{match.name}'",
                hint="Use policy = 'nearest'.",
            )
        first = int(match.first[tick])
        stamps = match.stream.t_ns[first : first + len(shown)].tolist()
        member = f"{match.name}.mp4"
        data, height, width = encode_tubelet(decoded, stamps, crf=config.tubelet_crf)
        facts = _common_description(
            match, tick, member=member, item=shown[0].index, height=height, width=width, stamps_ns=stamps
        )
        yield SlicePart(((member, data),), camera=(match.name, height, width, len(shown)), metadata=facts)


def _frames_in_order(name: str, source: FrameSource, items: list[int]) -> Iterator[Frame]:
    """Frames in the order of `items`, from one forward pass over their source.

    A frame that is wanted again (windows that overlap) or only later (a repaired order) is kept until then.
    Raises DataError if that would be more than MAX_KEPT_FRAMES of the stream `name` at once.
    """
    last_use = {item: place for place, item in enumerate(items)}
    coming = source.frames(sorted(last_use))
    kept: dict[int, Frame] = {}
    for place, item in enumerate(items):
        while item not in kept:
            frame = next(coming)
            kept[frame.index] = frame
            if len(kept) > MAX_BUFFERED_FRAMES:
                raise DataError(
                    f"more than {MAX_BUFFERED_FRAMES} frames would have to be kept to give frame {item}",
                    where=f"stream '{name}'",
                    hint="Shorten the windows that overlap, or write the frames in the order of their stamps.",
                )
        yield kept[item] if last_use[item] > place else kept.pop(item)


def _audio_parts(
    match: StreamMatch, pending_ticks: NDArray[np.int64], config: ShardsConfig
) -> Iterator[SlicePart]:
    stream = match.stream.stream
    timeline, source = stream.audio_timeline, stream.source
    read: Callable[[int, int], NDArray[np.int16]] = source.read  # pyright: ignore[reportAttributeAccessIssue]
    present = _is_present(match)
    for tick in pending_ticks.tolist():
        if not present[tick]:
            yield SlicePart()
            continue
        first, count = int(match.first[tick]), int(match.count[tick])
        data = _encode_audio(read(first, first + count), timeline.rate_hz, config.audio)
        member = f"{match.name}.{config.audio}"
        facts = _common_description(
            match,
            tick,
            member=member,
            first_sample=first,
            samples=count,
            rate_hz=timeline.rate_hz,
            channels=timeline.channels,
        )
        yield SlicePart(((member, data),), audio=(match.name, count, timeline.rate_hz), metadata=facts)


def _encode_audio(samples: NDArray[np.int16], rate_hz: int, format_: str) -> bytes:
    buffer = io.BytesIO()
    if format_ == "flac" and samples.shape[1] > MAX_FLAC_CHANNELS:
        raise ConfigError(
            f"flac holds {MAX_FLAC_CHANNELS} channels, and the sound has {samples.shape[1]}",
            where="shards.audio",
            hint="Set audio = 'wav' in [shards].",
        )
    soundfile.write(buffer, samples, rate_hz, format=format_.upper(), subtype="PCM_16")
    return buffer.getvalue()


def _numeric_parts(
    match: StreamMatch, source: TableSource, result: SyncResult, pending_ticks: NDArray[np.int64]
) -> Iterator[SlicePart]:
    values, columns = source.values(), source.columns()
    present = _is_present(match)
    for tick in pending_ticks.tolist():
        if not present[tick]:
            yield SlicePart()
            continue
        rows, stamps = interpolate_rows(match, tick, int(result.ticks.t_ns[tick]), values, columns)
        arrays = ((match.name, rows), (f"{match.name}.t_ns", stamps))
        facts = _common_description(
            match, tick, member=NUMERIC_MEMBER, array=match.name, rows=len(rows), columns=list(columns)
        )
        yield SlicePart(
            arrays=arrays,
            numeric=(match.name, len(rows)),
            statistics=compute_statistics(columns, rows),
            metadata=facts,
        )


def _text_parts(
    match: StreamMatch, source: TextSource, pending_ticks: NDArray[np.int64]
) -> Iterator[SlicePart]:
    texts, stream = source.texts(), match.stream
    place = {int(item): number for number, item in enumerate(stream.items)}
    for tick in pending_ticks.tolist():
        first, count = int(match.first[tick]), int(match.count[tick])
        if not count:
            yield SlicePart()
            continue
        entries: list[dict[str, Any]] = []
        for item in match.items[first : first + count].tolist():
            number = place[item]
            end_ns = int(stream.end_ns[number]) if stream.end_ns is not None else int(stream.t_ns[number])
            entries.append({"t_ns": int(stream.t_ns[number]), "end_ns": end_ns, "text": texts[item]})
        said = tuple(entry["text"] for entry in entries)
        yield SlicePart(texts=said, metadata={"policy": match.rule.policy, "texts": entries})
