"""The tables of a recording.toml, and checks for keys that have no meaning together."""

from __future__ import annotations

from mmpack.clock import Clock, parse_duration
from mmpack.clock.convert import GPS_WEEK_UNIT
from mmpack.errors import ConfigError
from mmpack.recording.model import StreamKind, TimestampSemantics
from mmpack.settings import Settings

# Keys that every stream can have.
_COMMON_KEYS = frozenset({"kind", "path", "clock", "semantics", "offset", "latency", "period"})


class TimeTable(Settings, frozen=True, kw_only=True):
    """`time = {...}`: the location of a stream's timestamps.

    Fields:
        path: file of the timestamps; default: the stream's own file.
        column: column name, or column index in a npy array.
        columns: the two columns (week, second of week) for unit gps_week_s.
        unit: s, ms, us, ns or gps_week_s.
        pattern: for images, a regular expression whose first group is the timestamp in the file name.
        file_column: for images, the column of file names in `path`; default: the sorted file names.
    """

    path: str = ""
    column: str | int | None = None
    columns: tuple[str | int, str | int] | None = None
    unit: str = "ns"
    pattern: str = ""
    file_column: str = ""


class StreamTable(Settings, frozen=True, kw_only=True):
    """`[streams.NAME]`: one sensor or track.

    Fields:
        kind: camera, audio, imu, can, action, numeric, text, lidar, radar or event.
        path: file or folder of the stream; may be omitted for a stream of timestamps alone.
        track: track of a container: v:0, a:0, s:0.
        time: location of the timestamps; default: the timestamps of the media file.
        clock: name of the stream's clock; default: the recording's clock.
        semantics: point of an item's duration that its timestamp marks: start, mid, end or receive.
        start: timestamp of media time zero, audio sample 0 or subtitle time zero, with a unit.
        offset: nominal offset from the reference tick, with a unit.
        latency: known delay between event and timestamp, with a unit.
        period: intended distance between items, with a unit; drift is measured against it.
        columns: value columns of a numeric stream.
        text: text column of a timed csv.
        end: end column of a timed csv, in the unit of `time`.
    """

    kind: StreamKind
    path: str = ""
    track: str = ""
    time: TimeTable | None = None
    clock: str = ""
    semantics: TimestampSemantics = "start"
    start: str = "0s"
    offset: str = ""
    latency: str = "0s"
    period: str = ""
    columns: tuple[str, ...] = ()
    text: str = "text"
    end: str = ""


class ClockTable(Settings, frozen=True, kw_only=True):
    """`[clocks.NAME]`: a clock of timestamps.

    Fields:
        domain: what the clock counts from: boot, utc, tai, gps, device or media.
    """

    domain: str


class PairsTable(Settings, frozen=True, kw_only=True):
    """Timestamps of the same events on two clocks, paired row by row.

    Fields:
        source: timestamps on the source clock.
        target: timestamps on the target clock.
    """

    source: TimeTable
    target: TimeTable


class MapTable(Settings, frozen=True, kw_only=True):
    """`[[clock_maps]]`: target = source + offset, with a drift; stated, or fitted to pairs.

    Fields:
        source, target: clock names.
        offset: target minus source, with a unit.
        drift_ppm: rate of the target clock relative to the source clock, in parts per million.
        pairs: paired timestamps to which offset and drift are fitted.
    """

    source: str
    target: str
    offset: str = ""
    drift_ppm: float = 0.0
    pairs: PairsTable | None = None


class RecordingTable(Settings, frozen=True, kw_only=True):
    """`[recording]`: settings of the recording as a whole.

    Fields:
        name: name of the recording; default: the name of its folder.
        root: base of relative paths, itself relative to the folder of recording.toml.
        clock: clock of streams that name none.
        reference: preferred ticks, in the syntax of `sync.reference`; used where `sync.reference` is `auto`.
    """

    name: str = ""
    root: str = "."
    clock: str = "media"
    reference: str = ""


class RecordingFile(Settings, frozen=True, kw_only=True):
    """The content of a recording.toml.

    Raises:
        ConfigError: a duration of a stream or of a clock map is invalid, or the domain of a clock is unknown.
    """

    streams: dict[str, StreamTable]
    recording: RecordingTable = RecordingTable()
    clocks: dict[str, ClockTable] = {}
    clock_maps: tuple[MapTable, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, table in self.streams.items():
            for key in ("start", "offset", "latency", "period"):
                if text := getattr(table, key):
                    parse_duration(text, where=f"streams.{name}.{key}")
        for map_table in self.clock_maps:
            if map_table.offset:
                where = f"clock_maps, {map_table.source} to {map_table.target}, offset"
                parse_duration(map_table.offset, where=where)
        for name, clock in self.clocks.items():
            try:
                Clock(name, clock.domain)
            except ConfigError as error:
                raise ConfigError(error.message, where=f"clocks.{name}.domain", hint=error.hint) from None


def check_unused_keys(table: StreamTable, format_: str, *used: str) -> None:
    """Raises ConfigError if `table` sets a key that has no meaning for its kind and source.

    Args:
        table: table of one stream.
        format_: description of the source, for the message ('an audio file').
        used: keys with a meaning for this source, in addition to those that every stream can have.
    """
    blank = StreamTable(kind=table.kind)
    for key in table.__struct_fields__:
        if key not in _COMMON_KEYS and key not in used and getattr(table, key) != getattr(blank, key):
            raise ConfigError(
                f"key '{key}' has no meaning for kind '{table.kind}' from {format_}",
                hint=f"Remove it. Keys with a meaning here: {', '.join(sorted(_COMMON_KEYS | set(used)))}.",
            )


def check_unused_time_keys(table: TimeTable, *, is_images: bool = False) -> None:
    """Raises ConfigError if `time = {...}` sets a key that would not be read."""
    if table.pattern and is_images:
        used = {"pattern"}
    elif table.unit == GPS_WEEK_UNIT:
        used = {"path", "columns"}
    else:
        used = {"path", "column"}
    if is_images and not table.pattern:
        used.add("file_column")
    for key in ("path", "column", "columns", "pattern", "file_column"):
        if key not in used and getattr(table, key) not in ("", None):
            raise ConfigError(
                f"key 'time.{key}' has no meaning here",
                hint=f"Remove it. Keys with a meaning here: {', '.join(sorted(used | {'unit'}))}.",
            )
