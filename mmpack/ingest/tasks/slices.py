"""Encoding of a synchronised recording as samples, slice by slice, in one forward pass over its media."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import soundfile
from numpy.typing import NDArray

from mmpack.errors import ConfigError, DataError
from mmpack.ingest.tasks.build_config import ShardsConfig
from mmpack.ingest.tasks.encode_images import encode_image, encode_tubelet
from mmpack.layout import SliceMetadata
from mmpack.prefetch import Prefetcher
from mmpack.recording import TABLE_KINDS, Frame, FrameSource, TableSource, TextSource
from mmpack.samples.description import (
    DESCRIPTION_VERSION,
    JSON_MEMBER,
    NUMERIC_MEMBER,
    AnyStreamDescription,
    AudioDescription,
    ImageDescription,
    NumericDescription,
    SliceDescription,
    TextDescription,
    TextEntry,
    encode_description,
)
from mmpack.samples.npz import encode_npz
from mmpack.samples.statistics import NumericStatistics, compute_statistics
from mmpack.shards.index import IndexEntry
from mmpack.sync import MatchStatus, StreamMatch, SyncResult, interpolate_rows
from mmpack.sync.policies.policy import JudgedBy
from mmpack.sync.policies.registry import judged_by
from mmpack.sync.synchronise import describe_failure

#: Largest step between consecutive slices of a run, in tick periods.
MAX_STEP_PERIODS = 1.5
#: Largest number of decoded frames in memory at once; 256 frames of 1080p are 800 MB.
MAX_BUFFERED_FRAMES = 256
#: Number of encoded parts of a camera that are computed ahead: enough to bridge a slow slice, few enough for 4K frames.
PREFETCH_DEPTH = 8
#: Largest number of channels that flac supports.
MAX_FLAC_CHANNELS = 8


@dataclass(frozen=True, kw_only=True)
class SlicePart:
    """The members, arrays and metadata that one stream contributes to one slice; empty where it is absent.

    Attributes:
        members: (member name, bytes) of each file.
        arrays: (array name, array) of each array of the numeric member.
        camera: (stream name, height, width, number of frames) of an image or tubelet.
        audio: (stream name, number of audio samples, rate in Hz).
        numeric: (stream name, number of table rows).
        texts: texts of the stream.
        statistics: statistics of the numeric values.
        description: description of the stream in the `json` member.
    """

    members: tuple[tuple[str, bytes], ...] = ()
    arrays: tuple[tuple[str, NDArray[Any]], ...] = ()
    camera: tuple[str, int, int, int] | None = None
    audio: tuple[str, int, int] | None = None
    numeric: tuple[str, int] | None = None
    texts: tuple[str, ...] = ()
    statistics: NumericStatistics | None = None
    description: AnyStreamDescription | None = None


@dataclass(frozen=True)
class EncodedSample:
    """A sample that is ready to be written.

    Attributes:
        entry: index entry.
        members: (member name, bytes) of each file, in the order of the tar.
        statistics: statistics of the numeric values, by stream.
    """

    entry: IndexEntry
    members: list[tuple[str, bytes]]
    statistics: dict[str, NumericStatistics]


def encode_slices(
    result: SyncResult, config: ShardsConfig, *, skip: int = 0, threads: bool = False
) -> Iterator[EncodedSample]:
    """Yields the slices of a recording that passed synchronisation, in order.

    Args:
        result: synchronised recording.
        config: encoding of the media.
        skip: number of slices at the start that are already published; their media are not encoded.
        threads: if True, every camera is decoded in a thread of its own.

    Raises:
        DataError: media cannot be read.
        ConfigError: a setting does not fit the media.
    """
    pending_ticks = np.flatnonzero(result.passed)[skip:]
    columns = _compute_tick_columns(result)
    streams: dict[str, Iterator[SlicePart]] = {}
    with ExitStack() as prefetchers:
        # Streams are sorted by name, which is also their order in the `json` member.
        for name, match in sorted(result.matches.items()):
            stream_parts = _encode_stream(match, result, pending_ticks, config)
            if stream_parts is None:
                continue
            if threads and match.stream.stream.kind == "camera":
                # Decoders and encoders release the interpreter's lock, so one thread per camera uses as many cores.
                prefetcher = Prefetcher(lambda part: part, stream_parts, threads=1, depth=PREFETCH_DEPTH)
                streams[name] = prefetchers.enter_context(prefetcher)
            else:
                streams[name] = stream_parts
        for tick in pending_ticks.tolist():
            parts = {name: next(stream_parts) for name, stream_parts in streams.items()}
            yield _encode_slice(result, columns, tick, parts)


def number_runs(result: SyncResult) -> NDArray[np.int64]:
    """Numbers the runs of consecutive slices.

    A quarantined slice, or a step of more than `MAX_STEP_PERIODS` periods, ends a run.

    Returns:
        int64, shape (T,), for each tick the number of its run, ascending. The number of a tick that did not pass has
        no meaning.
    """
    passed, t_ns = result.passed, result.ticks.t_ns
    breaks = np.zeros(len(t_ns), np.int64)
    breaks[1:] = ~passed[:-1] | (np.diff(t_ns) > MAX_STEP_PERIODS * result.ticks.period_ns)
    starts = passed & (breaks > 0)
    return np.cumsum(starts, dtype=np.int64)


@dataclass(frozen=True)
class _TickColumns:
    """Values of all T ticks, computed for whole columns at once.

    Attributes:
        run: int64, shape (T,), run of each tick, from :func:`number_runs`.
        residual_ns: int64, shape (T,), largest |residual| of the streams that are matched to one item per tick.
        absent: bool, shape (T,), by stream: True at the ticks at which the stream fails its match rule.
    """

    run: NDArray[np.int64]
    residual_ns: NDArray[np.int64]
    absent: dict[str, NDArray[np.bool_]]


def _compute_tick_columns(result: SyncResult) -> _TickColumns:
    residual_ns = np.zeros(len(result.passed), np.int64)
    for match in result.matches.values():
        if judged_by(match).is_compared:
            np.maximum(residual_ns, np.abs(match.residual_ns), out=residual_ns, where=match.has_item)
    absent = {
        name: (match.status != MatchStatus.OK) & (match.status != MatchStatus.EMPTY)
        for name, match in result.matches.items()
    }
    return _TickColumns(number_runs(result), residual_ns, absent)


def _encode_slice(
    result: SyncResult, columns: _TickColumns, tick: int, parts: dict[str, SlicePart]
) -> EncodedSample:
    """Merges the parts of all streams at one tick into a sample."""
    name, t_ns = result.recording.name, int(result.ticks.t_ns[tick])
    run, residual_ns = int(columns.run[tick]), int(columns.residual_ns[tick])
    arrays = {key: array for part in parts.values() for key, array in part.arrays}
    members = [member for part in parts.values() for member in part.members]
    if arrays:
        members.append((NUMERIC_MEMBER, encode_npz(arrays)))
    texts = tuple(text for part in parts.values() for text in part.texts)
    description = SliceDescription(
        version=DESCRIPTION_VERSION,
        kind="slice",
        recording=name,
        ordinal=tick,
        run=run,
        t_ns=t_ns,
        clock=result.clock.name,
        residual_ns=residual_ns,
        streams={
            stream: msgspec.Raw(encode_description(part.description))
            for stream, part in parts.items()
            if part.description is not None
        },
        absent={
            stream: describe_failure(match, tick)
            for stream, match in result.matches.items()
            if columns.absent[stream][tick]
        },
    )
    metadata = SliceMetadata(
        cameras=tuple(part.camera for part in parts.values() if part.camera),
        audio=tuple(part.audio for part in parts.values() if part.audio),
        numeric=tuple(part.numeric for part in parts.values() if part.numeric),
        text=texts,
    )
    key = f"{name}-{tick:08d}"
    text_bytes = sum(len(text.encode()) for text in texts)
    entry = IndexEntry(
        key=key,
        kind="slice",
        recording=name,
        ordinal=tick,
        run=run,
        t_ns=t_ns,
        residual_ns=residual_ns,
        metadata=metadata,
        text_bytes=text_bytes,
    )
    statistics = {stream: part.statistics for stream, part in parts.items() if part.statistics}
    return EncodedSample(entry, [*members, (JSON_MEMBER, encode_description(description))], statistics)


def _encode_stream(
    match: StreamMatch, result: SyncResult, pending_ticks: NDArray[np.int64], config: ShardsConfig
) -> Iterator[SlicePart] | None:
    """Returns the parts of one stream at `pending_ticks`, or None for a stream without content (lidar, events).

    Raises:
        DataError: the stream is a camera without images.
    """
    stream = match.stream.stream
    source = stream.source
    if stream.kind == "camera" and isinstance(source, FrameSource):
        if judged_by(match) is JudgedBy.SPAN:
            return _encode_tubelets(match, source, pending_ticks, config)
        return _encode_images(match, source, pending_ticks, config)
    if stream.kind == "audio":
        return _encode_audio_clips(match, pending_ticks, config)
    if stream.kind in TABLE_KINDS | {"radar"} and isinstance(source, TableSource):
        return _encode_table_rows(match, source, result, pending_ticks)
    if stream.kind == "text" and isinstance(source, TextSource):
        return _encode_texts(match, source, pending_ticks)
    if stream.kind == "camera":
        raise DataError(
            "the image files are missing, so this camera cannot be built into shards",
            where=f"{result.recording.path}, stream '{stream.name}'",
            hint="Add the files, or set policy = 'ignore' for this stream; `mmpack sync` works without images.",
        )
    return None


def _describe_match(match: StreamMatch, tick: int) -> dict[str, Any]:
    """Returns the fields that the descriptions of all streams but texts share, for one tick."""
    return {
        "policy": match.rule.policy,
        "t_ns": int(match.aligned_ns[tick]),
        "offset_ns": match.rule.offset_ns,
        "residual_ns": int(match.residual_ns[tick]),
        "tolerance_ns": match.rule.tolerance_ns,
    }


def _is_present(match: StreamMatch) -> NDArray[np.bool_]:
    """Returns bool, shape (T,): True at the ticks at which the stream has an item that satisfies its match rule.

    An optional stream that fails its rule is absent from the slice, not padded.
    """
    return match.has_item & (match.status == MatchStatus.OK)


def _encode_images(
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
        description = ImageDescription(
            **_describe_match(match, tick), member=member, item=frame.index, height=height, width=width
        )
        yield SlicePart(
            members=((member, data),), camera=(match.name, height, width, 1), description=description
        )


def _encode_tubelets(
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
        tubelet = [next(frames) for _ in window]
        decoded = [frame.decoded for frame in tubelet if frame.decoded is not None]
        if len(decoded) != len(tubelet):
            raise ConfigError(
                "policy 'window' builds tubelets from video, but this camera is a folder of images",
                where=f"stream '{match.name}'",
                hint="Use policy = 'nearest'.",
            )
        first = int(match.first[tick])
        t_ns = match.stream.t_ns[first : first + len(tubelet)].tolist()
        member = f"{match.name}.mp4"
        data, height, width = encode_tubelet(decoded, t_ns, crf=config.tubelet_crf)
        description = ImageDescription(
            **_describe_match(match, tick),
            member=member,
            item=tubelet[0].index,
            height=height,
            width=width,
            timestamps_ns=t_ns,
        )
        yield SlicePart(
            members=((member, data),),
            camera=(match.name, height, width, len(tubelet)),
            description=description,
        )


def _frames_in_order(name: str, source: FrameSource, items: list[int]) -> Iterator[Frame]:
    """Yields frames in the order of `items`, from one forward pass over their source.

    A frame that is needed again (overlapping windows) or only later (a corrected order) stays in memory until its
    last use.

    Args:
        name: name of the stream, for messages.
        source: source of the frames.
        items: frame indices.

    Raises:
        DataError: more than `MAX_BUFFERED_FRAMES` frames would be in memory at once.
    """
    last_use = {item: index for index, item in enumerate(items)}
    ascending_frames = source.frames(sorted(last_use))
    buffered: dict[int, Frame] = {}
    for index, item in enumerate(items):
        while item not in buffered:
            frame = next(ascending_frames)
            buffered[frame.index] = frame
            if len(buffered) > MAX_BUFFERED_FRAMES:
                raise DataError(
                    f"frame {item} needs more than {MAX_BUFFERED_FRAMES} frames in memory",
                    where=f"stream '{name}'",
                    hint="Shorten the overlapping windows, or write the frames in the order of their timestamps.",
                )
        yield buffered[item] if last_use[item] > index else buffered.pop(item)


def _encode_audio_clips(
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
        description = AudioDescription(
            **_describe_match(match, tick),
            member=member,
            first_sample=first,
            samples=count,
            rate_hz=timeline.rate_hz,
            channels=timeline.channels,
        )
        yield SlicePart(
            members=((member, data),), audio=(match.name, count, timeline.rate_hz), description=description
        )


def _encode_audio(samples: NDArray[np.int16], rate_hz: int, format_: str) -> bytes:
    buffer = io.BytesIO()
    if format_ == "flac" and samples.shape[1] > MAX_FLAC_CHANNELS:
        raise ConfigError(
            f"flac supports {MAX_FLAC_CHANNELS} channels, but the audio has {samples.shape[1]}",
            where="shards.audio",
            hint="Set audio = 'wav' in [shards].",
        )
    soundfile.write(buffer, samples, rate_hz, format=format_.upper(), subtype="PCM_16")
    return buffer.getvalue()


def _encode_table_rows(
    match: StreamMatch, source: TableSource, result: SyncResult, pending_ticks: NDArray[np.int64]
) -> Iterator[SlicePart]:
    values, columns = source.values(), source.columns()
    present = _is_present(match)
    for tick in pending_ticks.tolist():
        if not present[tick]:
            yield SlicePart()
            continue
        rows, row_ns = interpolate_rows(match, tick, int(result.ticks.t_ns[tick]), values, columns)
        arrays = ((match.name, rows), (f"{match.name}.t_ns", row_ns))
        description = NumericDescription(
            **_describe_match(match, tick),
            member=NUMERIC_MEMBER,
            array=match.name,
            rows=len(rows),
            columns=list(columns),
        )
        yield SlicePart(
            arrays=arrays,
            numeric=(match.name, len(rows)),
            statistics=compute_statistics(columns, rows),
            description=description,
        )


def _encode_texts(
    match: StreamMatch, source: TextSource, pending_ticks: NDArray[np.int64]
) -> Iterator[SlicePart]:
    texts, stream = source.texts(), match.stream
    index_by_item = {int(item): index for index, item in enumerate(stream.items)}
    for tick in pending_ticks.tolist():
        first, count = int(match.first[tick]), int(match.count[tick])
        if not count:
            yield SlicePart()
            continue
        entries: list[TextEntry] = []
        for item in match.items[first : first + count].tolist():
            index = index_by_item[item]
            end_ns = int(stream.end_ns[index]) if stream.end_ns is not None else int(stream.t_ns[index])
            entries.append(TextEntry(t_ns=int(stream.t_ns[index]), end_ns=end_ns, text=texts[item]))
        yield SlicePart(
            texts=tuple(entry.text for entry in entries),
            description=TextDescription(policy=match.rule.policy, texts=entries),
        )
