"""The tables of a recording.toml, and which of their keys mean something together."""

from __future__ import annotations

from mmpack.clock.convert import GPS_WEEK_UNIT
from mmpack.errors import ConfigError
from mmpack.recording.model import StreamKind, TimestampSemantics
from mmpack.settings import Settings

# Keys that every stream has a use for.
_COMMON = frozenset({"kind", "path", "clock", "semantics", "offset", "latency", "period"})


class TimeTable(Settings, frozen=True, kw_only=True):
    """`time = {...}`: where a stream's stamps are.

    Fields:
        path: file of the stamps; default the stream's own file.
        column: column name, or number in a npy array.
        columns: the two columns (week, second of week) where unit is gps_week_s.
        unit: s, ms, us, ns or gps_week_s.
        pattern: for pictures, a regular expression whose first group is the stamp in the file name.
        file_column: for pictures, the column of file names in `path`; default is the sorted order of the
            names.
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
        path: its file or folder; may be left out for a stream of stamps alone.
        track: which track of a container: v:0, a:0, s:0.
        time: where its stamps are; default: the media's own.
        clock: name of its clock; default: the recording's.
        semantics: which moment of an item the stamp names.
        start: stamp of media time zero, sample 0 or subtitle zero, with a unit.
        offset: nominal offset to the reference tick, with a unit.
        latency: known delay between event and stamp, with a unit.
        period: intended distance of items, with a unit; a drift is measured against it.
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
    """`[clocks.NAME]`: what stamps count from."""

    domain: str


class PairsTable(Settings, frozen=True, kw_only=True):
    """Paired stamps of the same moments on two clocks, row by row."""

    source: TimeTable
    target: TimeTable


class MapTable(Settings, frozen=True, kw_only=True):
    """`[[clock_maps]]`: target = source + offset, with a drift; stated, or fitted from pairs.

    Fields:
        source, target: clock names.
        offset: target less source, with a unit.
        drift_ppm: rate of target against source.
        pairs: stamps to fit both from.
    """

    source: str
    target: str
    offset: str = ""
    drift_ppm: float = 0.0
    pairs: PairsTable | None = None


class RecordingTable(Settings, frozen=True, kw_only=True):
    """`[recording]`: its name, where its paths start, its default clock, and its own ticks.

    Fields:
        reference: the ticks that suit it, as `sync.reference` says them; holds where that is `auto`.
    """

    name: str = ""
    root: str = "."
    clock: str = "media"
    reference: str = ""


class RecordingFile(Settings, frozen=True, kw_only=True):
    """The whole recording.toml."""

    streams: dict[str, StreamTable]
    recording: RecordingTable = RecordingTable()
    clocks: dict[str, ClockTable] = {}
    clock_maps: tuple[MapTable, ...] = ()


def check_unused_keys(table: StreamTable, format_: str, *used: str) -> None:
    """Raises ConfigError for a key of `table` that is set and that its kind, in this form of file, has no use for.

    Args:
        table: one stream's.
        form: what its source is, for the message ('a sound file').
        used: keys that mean something there, besides those that every stream has.
    """
    blank = StreamTable(kind=table.kind)
    for key in table.__struct_fields__:
        if key not in _COMMON and key not in used and getattr(table, key) != getattr(blank, key):
            raise ConfigError(
                f"key '{key}' has no meaning for kind '{table.kind}' from {format_}",
                hint=f"Remove it. Keys with a meaning here: {', '.join(sorted(_COMMON | set(used)))}.",
            )


def check_unused_time_keys(table: TimeTable, *, is_images: bool = False) -> None:
    """Raises ConfigError for a key of `time = {...}` that would not be read."""
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
