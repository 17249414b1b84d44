"""Reader of folders with a recording.toml, which names each stream's file, time column, time unit and clock."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from mmpack.clock import UNIT_NS, Clock, ClockMap, parse_duration
from mmpack.errors import ConfigError, DataError
from mmpack.recording.files import require_file, sanitise_name
from mmpack.recording.formats.folder_tables import (
    MapTable,
    RecordingFile,
    StreamTable,
    TimeTable,
    check_unused_keys,
    check_unused_time_keys,
)
from mmpack.recording.formats.input_format import InputFormat
from mmpack.recording.model import TABLE_KINDS, Recording, Source, Stream
from mmpack.recording.sources.audio import AudioFile, AudioTrack
from mmpack.recording.sources.images import ImageFiles, list_images, timestamps_from_names
from mmpack.recording.sources.subtitles import SubtitleFile, SubtitleTrack, TimedTexts
from mmpack.recording.sources.tables import NumericTable, TimeColumn, read_text_column
from mmpack.recording.sources.timestamps import TimestampColumn
from mmpack.recording.sources.video import VideoTrack
from mmpack.settings import load_settings

FILE_NAME = "recording.toml"
_AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".aiff", ".aif"}
_SUBTITLE_SUFFIXES = {".srt", ".vtt", ".ass", ".ssa"}


def has_recording_toml(path: Path) -> bool:
    """Returns True if `path` is a toml file or a folder with a recording.toml."""
    return path.suffix == ".toml" or (path / FILE_NAME).is_file()


def open_folder(path: Path, *, root: Path | None = None) -> Recording:
    """Opens the recording that a recording.toml describes.

    Args:
        path: the recording.toml or its folder.
        root: folder that replaces `recording.root` as the base of relative paths.

    Raises:
        ConfigError: the recording.toml has an unknown key, a wrong type or an unknown clock.
        DataError: a file named in it is missing or empty.
    """
    file = path / FILE_NAME if path.is_dir() else path
    description = load_settings(file, RecordingFile)
    # Environment variables in `root` let one recording.toml serve machines that store the files in different folders.
    base = root or (file.parent / os.path.expandvars(description.recording.root))
    clocks = {"media": Clock("media", "media")}
    clocks.update({name: Clock(name, table.domain) for name, table in description.clocks.items()})
    if not description.streams:
        raise ConfigError(
            "no [streams.NAME] table", where=str(file), hint="Add a [streams.NAME] table for each stream."
        )
    streams: dict[str, Stream] = {}
    for name, table in description.streams.items():
        stream_name = sanitise_name(name).lower()
        if stream_name in streams or "." in name:
            raise ConfigError(f"stream name '{name}' is used twice or contains a dot", where=str(file))
        clock_name = table.clock or description.recording.clock
        if clock_name not in clocks:
            raise ConfigError(
                f"clock '{clock_name}' has no [clocks] table",
                where=f"{file} [streams.{name}]",
                hint=f'Add [clocks.{clock_name}] with domain = "boot" (or utc, tai, gps, device, media).',
            )
        try:
            streams[stream_name] = _open_stream(stream_name, table, clocks[clock_name], base)
        except ConfigError as error:
            raise ConfigError(error.message, where=f"{file} [streams.{name}]", hint=error.hint) from None
    maps = tuple(_load_clock_map(table, clocks, base, where=str(file)) for table in description.clock_maps)
    name = description.recording.name or sanitise_name(file.parent.resolve().name)
    return Recording(sanitise_name(name), streams, maps, str(file), description.recording.reference)


def _open_stream(name: str, table: StreamTable, clock: Clock, base: Path) -> Stream:
    return Stream(
        name,
        table.kind,
        clock,
        _open_source(name, table, base),
        semantics=table.semantics,
        nominal_offset_ns=parse_duration(table.offset) if table.offset else None,
        latency_ns=parse_duration(table.latency),
        nominal_period_ns=parse_duration(table.period) if table.period else None,
    )


def _open_source(name: str, table: StreamTable, base: Path) -> Source:
    start_ns = parse_duration(table.start)
    if not table.path:
        if table.time is None or not table.time.path:
            raise ConfigError("the stream needs path, or time.path if it has timestamps without content")
        check_unused_keys(table, "timestamps alone", "time", "start")
        return TimestampColumn(_open_time_column(name, table.time, base, base), name, start_ns)
    path = base / table.path
    if table.kind == "camera":
        return _open_camera(name, table, path, base, start_ns)
    require_file(path, stream=name)
    if table.kind == "audio":
        if path.suffix.lower() in _AUDIO_SUFFIXES and not table.track:
            check_unused_keys(table, "an audio file", "track", "start")
            return AudioFile(path, name, start_ns)
        check_unused_keys(table, "a track", "track", "start")
        return AudioTrack(path, table.track or "a:0", name, start_ns)
    if table.kind == "text":
        return _open_texts(name, table, path, base, start_ns)
    if table.time is None:
        raise ConfigError("a numeric stream needs time = { column = ..., unit = ... }")
    check_unused_keys(table, "a table", "time", "start", "columns")
    time = _open_time_column(name, table.time, base, path)
    if table.kind in TABLE_KINDS or table.columns or table.kind == "radar":
        return NumericTable(path, time, name, table.columns, start_ns)
    return TimestampColumn(time, name, start_ns)


def _open_camera(name: str, table: StreamTable, path: Path, base: Path, start_ns: int) -> Source:
    if path.is_dir():
        check_unused_keys(table, "a folder of images", "time", "start")
        return _open_images(name, table, path, base, start_ns)
    check_unused_keys(table, "a video", "time", "start", "track")
    require_file(path, stream=name)
    frame_timestamps = None
    if table.time is not None:
        frame_timestamps = _open_time_column(name, table.time, base, path).read(stream=name).shift(start_ns)
    return VideoTrack(path, table.track or "v:0", name, start_ns, frame_timestamps)


def _open_images(name: str, table: StreamTable, path: Path, base: Path, start_ns: int) -> ImageFiles:
    if table.time is None:
        raise ConfigError(
            "a folder of images needs time = { pattern = ..., unit = ... } or a table of timestamps"
        )
    if table.time.pattern:
        check_unused_time_keys(table.time, is_images=True)
        names = list_images(path, stream=name)
        unit = table.time.unit
        t_ns = timestamps_from_names(path, names, table.time.pattern, unit, stream=name)
        order = np.argsort(t_ns, kind="stable")
        ordered = tuple(names[index] for index in order)
        return ImageFiles(
            folder=path,
            names=ordered,
            t_ns=t_ns[order] + start_ns,
            origin="file name",
            stream=name,
            resolution_ns=UNIT_NS[unit],
            unit=unit,
        )
    timestamps = (
        _open_time_column(name, table.time, base, path, is_images=True).read(stream=name).shift(start_ns)
    )
    if table.time.file_column:
        names = list(read_text_column(base / table.time.path, table.time.file_column, stream=name))
    else:
        names = list_images(path, stream=name)
    if len(names) != len(timestamps):
        raise DataError(
            f"{len(names)} images but {len(timestamps)} timestamps", where=f"stream '{name}', {path}"
        )
    for image in names:
        require_file(path / image, stream=name)
    return ImageFiles(
        folder=path,
        names=tuple(names),
        t_ns=timestamps.t_ns,
        origin=timestamps.origin,
        stream=name,
        resolution_ns=timestamps.resolution_ns,
        unit=timestamps.unit,
    )


def _open_texts(name: str, table: StreamTable, path: Path, base: Path, start_ns: int) -> Source:
    if table.time is not None:
        check_unused_keys(table, "a timed table", "time", "start", "text", "end")
        starts = _open_time_column(name, table.time, base, path).read(stream=name)
        ends = starts
        if table.end:
            ends = TimeColumn(path, table.end, table.time.unit).read(stream=name)
        timestamps = replace(starts, end_ns=ends.t_ns).shift(start_ns)
        return TimedTexts(tuple(read_text_column(path, table.text, stream=name)), timestamps, path)
    if path.suffix.lower() in _SUBTITLE_SUFFIXES and not table.track:
        check_unused_keys(table, "a subtitle file", "track", "start")
        return SubtitleFile(path, name, start_ns)
    check_unused_keys(table, "a track", "track", "start")
    return SubtitleTrack(path, table.track or "s:0", name, start_ns)


def _open_time_column(
    name: str, table: TimeTable, base: Path, media_path: Path, *, is_images: bool = False
) -> TimeColumn:
    check_unused_time_keys(table, is_images=is_images)
    path = base / table.path if table.path else media_path
    require_file(path, stream=name)
    return TimeColumn(path, table.column, table.unit, table.columns)


def _load_clock_map(table: MapTable, clocks: dict[str, Clock], base: Path, *, where: str) -> ClockMap:
    for name in (table.source, table.target):
        if name not in clocks:
            raise ConfigError(f"clock '{name}' has no [clocks] table", where=f"{where} [[clock_maps]]")
    if table.pairs is not None and (table.offset or table.drift_ppm):
        raise ConfigError(
            "offset and drift_ppm have no meaning next to pairs, because both are fitted to the pairs",
            where=f"{where} [[clock_maps]] {table.source} to {table.target}",
            hint="Remove pairs, or remove offset and drift_ppm.",
        )
    if table.pairs is not None:
        label = f"{table.source} to {table.target}"
        source = _open_time_column(label, table.pairs.source, base, base).read(stream=label)
        target = _open_time_column(label, table.pairs.target, base, base).read(stream=label)
        if len(source) != len(target):
            raise DataError(
                f"the pairs have {len(source)} source and {len(target)} target timestamps",
                where=f"{where} [[clock_maps]] {label}",
            )
        return ClockMap.fit(source.t_ns, target.t_ns, table.source, table.target)
    if not table.offset:
        raise ConfigError(
            "the clock map needs offset or pairs",
            where=f"{where} [[clock_maps]] {table.source} to {table.target}",
        )
    return ClockMap(
        source=table.source,
        target=table.target,
        anchor_source_ns=0,
        anchor_target_ns=parse_duration(table.offset),
        drift_ppm=table.drift_ppm,
        residual_ns=0,
    )


FOLDER = InputFormat(
    "folder with recording.toml", has_recording_toml, lambda path, root: [open_folder(path, root=root)]
)
