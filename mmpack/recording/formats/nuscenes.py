"""Reader of the nuScenes layout, by its JSON tables or by file names alone.

File names contain the capture time in microseconds: LOG__CHANNEL__MICROSECONDS.jpg. Without tables each log is
one recording; with tables each scene is one. Only keyframes (`samples/`) are read, because sweeps are not
synchronised groups.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mmpack.clock import Clock
from mmpack.errors import DataError
from mmpack.recording.files import sanitise_name
from mmpack.recording.formats.input_format import InputFormat
from mmpack.recording.model import Recording, Source, Stream, StreamKind
from mmpack.recording.sources.images import ImageFiles
from mmpack.recording.sources.timestamps import FileNameTimestamps

_NAME = re.compile(r"(?P<log>[^/]+?)__(?P<channel>[A-Za-z0-9_]+?)__(?P<time>[0-9]{1,40})\.[A-Za-z0-9.]+$")
_KINDS: tuple[tuple[str, StreamKind], ...] = (("CAM", "camera"), ("LIDAR", "lidar"), ("RADAR", "radar"))
_CLOCK = Clock("capture", "utc", 1000)
# The largest nuScenes table, sample_data.json of the full data set, has 1.2 GB.
MAX_JSON_BYTES = 4 << 30


# One sensor item: timestamp in ns, and the image's path relative to the data root, or None if only its time is
# known.
_Item = tuple[int, str | None]
# Items by recording name, then by channel.
_Groups = dict[str, dict[str, list[_Item]]]


def is_nuscenes(path: Path) -> bool:
    """Returns True if `path` looks like nuScenes: a data root, a sample_data table, or a list of file names."""
    if path.is_dir():
        return (path / "samples").is_dir() or _find_tables(path) is not None
    is_table = path.name == "sample_data.json" or path.name.endswith("_sample_data.json")
    return is_table or _is_name_list(path)


def open_nuscenes(path: Path) -> Iterator[Recording]:
    """Yields the recordings at `path`, sorted by name.

    Args:
        path: a data root, a sample_data.json, or a text file of file names.

    Raises:
        DataError: there is no keyframe, a table is invalid, or timestamps were rounded to float.
    """
    if path.is_dir():
        tables = _find_tables(path)
        groups = _group_by_scene(tables, path) if tables else _group_names_by_log(_list_images(path), path)
    elif path.suffix == ".json":
        groups = _group_rows_by_log(_read_json(path), path)
    else:
        try:
            lines = path.read_text(encoding="utf-8").split()
        except UnicodeDecodeError as error:
            raise DataError(f"is not UTF-8 text ({error.reason})", where=str(path)) from None
        groups = _group_names_by_log(((line, None) for line in lines), path)
    if not groups:
        raise DataError("there is no keyframe named LOG__CHANNEL__MICROSECONDS.jpg", where=str(path))
    for name in sorted(groups):
        yield _build_recording(name, groups[name], path)


def _build_recording(name: str, channels: dict[str, list[_Item]], root: Path) -> Recording:
    streams: dict[str, Stream] = {}
    for channel in sorted(channels):
        items = sorted(channels[channel], key=lambda item: item[0])
        t_ns = np.array([item_ns for item_ns, _ in items], np.int64)
        stream, kind = channel.lower(), _channel_kind(channel)
        names = [image for _, image in items if image is not None]
        source: Source
        if kind == "camera" and len(names) == len(items):
            source = ImageFiles(
                folder=root,
                names=tuple(names),
                t_ns=t_ns,
                origin="file name",
                stream=stream,
                resolution_ns=1000,
            )
        else:
            source = FileNameTimestamps(t_ns, "file name")
        streams[stream] = Stream(stream, kind, _CLOCK, source)
    return Recording(sanitise_name(name), streams, path=str(root))


def _channel_kind(channel: str) -> StreamKind:
    for prefix, kind in _KINDS:
        if channel.upper().startswith(prefix):
            return kind
    return "event"


def _group_names_by_log(names: Iterable[tuple[str, str | None]], where: Path) -> _Groups:
    """Groups keyframes by the log in their file names.

    Args:
        names: file name of each keyframe, and the image's path relative to the data root or None.
        where: input of the names, for messages.
    """
    groups: _Groups = defaultdict(lambda: defaultdict(list))
    for name, image in names:
        match = _NAME.search(name)
        if match is None:
            raise DataError(
                f"'{name[:120]}' is not of the form LOG__CHANNEL__MICROSECONDS.jpg", where=str(where)
            )
        groups[match["log"]][match["channel"]].append((_to_ns(int(match["time"]), where), image))
    return groups


def _list_images(root: Path) -> Iterator[tuple[str, str | None]]:
    for channel in sorted((root / "samples").iterdir()):
        for file in sorted(channel.iterdir() if channel.is_dir() else ()):
            if _NAME.search(file.name):
                yield file.name, file.relative_to(root).as_posix()


def _group_by_scene(tables: Path, root: Path) -> _Groups:
    """Groups keyframes by scene, with the timestamps of the sample_data table."""
    scene_tokens = _read_field(tables / "sample.json", "scene_token")
    scene_names = _read_field(tables / "scene.json", "name")
    groups: _Groups = defaultdict(lambda: defaultdict(list))
    for row in _read_json(tables / "sample_data.json"):
        if row.get("is_key_frame"):
            try:
                scene = scene_names[scene_tokens[row["sample_token"]]]
            except (KeyError, TypeError) as error:
                raise DataError(f"token {error} is not in the tables", where=str(tables)) from None
            _add_item(groups[scene], row, tables / "sample_data.json", root)
    return groups


def _read_field(path: Path, field: str) -> dict[str, str]:
    """Returns the text `field` of every table row by the row's token.

    Raises:
        DataError: a row has no text in one of the two fields.
    """
    values: dict[str, str] = {}
    for index, row in enumerate(_read_json(path)):
        token, value = row.get("token"), row.get(field)
        if not isinstance(token, str) or not isinstance(value, str):
            raise DataError(f"row {index} has no text in 'token' or '{field}'", where=str(path))
        values[token] = value
    return values


def _group_rows_by_log(rows: list[dict[str, Any]], path: Path) -> _Groups:
    """Groups all rows of a sample_data table without its other tables by the log in their file names."""
    groups: _Groups = defaultdict(lambda: defaultdict(list))
    for row in rows:
        log = PurePosixPath(str(row.get("filename", ""))).name.split("__")[0] or path.stem
        _add_item(groups[log], row, path, None)
    return groups


def _add_item(channels: dict[str, list[_Item]], row: dict[str, Any], where: Path, root: Path | None) -> None:
    try:
        timestamp, relative = row["timestamp"], PurePosixPath(row["filename"])
    except (KeyError, TypeError):
        raise DataError("a row has no timestamp or no filename", where=str(where)) from None
    if isinstance(timestamp, float):
        raise DataError(
            f"timestamp {timestamp!r} is a float: rounding to float64 loses up to "
            f"{int(np.spacing(timestamp) / 2)} units at this size",
            where=f"{where}, {relative.name}",
            hint="Write timestamps as integers at the source; the lost digits cannot be restored.",
        )
    if not isinstance(timestamp, int) or isinstance(timestamp, bool):
        raise DataError(
            f"timestamp {str(timestamp)[:40]!r} is not an integer",
            where=f"{where}, {relative.name}",
            hint="Write timestamps as integers, in microseconds or nanoseconds.",
        )
    if relative.is_absolute() or ".." in relative.parts or len(relative.parts) < 2:
        raise DataError(f"filename '{relative}' is not a path inside the data root", where=str(where))
    image = root / relative if root is not None else None
    image_name = str(relative) if image is not None and image.is_file() else None
    if image is not None and image_name is None and _channel_kind(relative.parts[-2]) == "camera":
        raise DataError("the image of a keyframe is missing", where=str(image), hint="Complete the download.")
    channels[relative.parts[-2]].append((_to_ns(timestamp, where), image_name))


def _to_ns(timestamp: int, where: Path) -> int:
    """Converts a timestamp in microseconds (nuScenes) or nanoseconds (forks of it) to nanoseconds.

    The threshold 10**17 separates the two units for the years 1973 to 5138. Raises DataError.
    """
    if timestamp <= 0:
        raise DataError(f"timestamp {timestamp} is a sentinel, not a time", where=str(where))
    if timestamp > np.iinfo(np.int64).max:
        raise DataError(
            f"timestamp {timestamp} exceeds int64 nanoseconds",
            where=str(where),
            hint="Write microseconds or nanoseconds.",
        )
    return timestamp * 1000 if timestamp < 10**17 else timestamp


def _find_tables(root: Path) -> Path | None:
    """Returns the folder of the JSON tables, or None. Raises DataError if there are several."""
    folders = [folder for folder in sorted(root.glob("v1.0-*")) if (folder / "sample_data.json").is_file()]
    if len(folders) > 1:
        raise DataError(
            f"there are several table folders: {', '.join(folder.name for folder in folders)}",
            where=str(root),
            hint="Keep one of them under this root.",
        )
    return folders[0] if folders else None


def _is_name_list(path: Path) -> bool:
    if path.suffix != ".txt" or not path.is_file():
        return False
    with path.open("rb") as file:
        return _NAME.search(file.readline(1000).decode("utf-8", "replace").strip()) is not None


def _read_json(path: Path) -> list[dict[str, Any]]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise DataError(f"the table is larger than {MAX_JSON_BYTES} bytes", where=str(path))
        rows = json.loads(path.read_bytes(), parse_constant=_reject_constant)
    except FileNotFoundError:
        raise DataError("the table is missing", where=str(path), hint="Complete the download.") from None
    except RecursionError:
        raise DataError("cannot be read as JSON (nested too deeply)", where=str(path)) from None
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read as JSON ({error})", where=str(path)) from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError("the table is not a list of JSON objects", where=str(path))
    return rows


def _reject_constant(word: str) -> None:
    raise ValueError(f"{word} is not a JSON number")


NUSCENES = InputFormat("nuScenes", is_nuscenes, lambda path, _: open_nuscenes(path))
