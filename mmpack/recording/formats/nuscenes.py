"""The nuScenes layout: from its JSON tables, or from file names alone.

File names carry the capture stamp in microseconds: LOG__CHANNEL__STAMP.jpg. Without tables each log is a
recording; with tables each scene is one. Only keyframes are read (`samples/`); sweeps are not synchronised
groups.
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
from mmpack.recording.model import Recording, Source, Stream, StreamKind
from mmpack.recording.sources.images import ImageFiles
from mmpack.recording.sources.timestamps import FileNameTimestamps

_NAME = re.compile(r"(?P<log>[^/]+?)__(?P<channel>[A-Za-z0-9_]+?)__(?P<stamp>[0-9]{1,40})\.[A-Za-z0-9.]+$")
_KINDS: tuple[tuple[str, StreamKind], ...] = (("CAM", "camera"), ("LIDAR", "lidar"), ("RADAR", "radar"))
_CLOCK = Clock("capture", "utc", 1000)
# nuScenes' largest table, sample_data.json of the full set, is 1.2 GB.
MAX_JSON_BYTES = 4 << 30


# One sensor item: (stamp in ns, the picture's name under its root, or None where there is only a stamp).
_Item = tuple[int, str | None]


def is_nuscenes(path: Path) -> bool:
    """Whether `path` looks like this layout: a data root, a table, or a list of names."""
    if path.is_dir():
        return (path / "samples").is_dir() or _find_tables(path) is not None
    return path.name == "sample_data.json" or path.name.endswith("_sample_data.json") or _is_list(path)


def open_nuscenes(path: Path) -> Iterator[Recording]:
    """The recordings at `path`, sorted by name: a data root, a sample_data.json, or a text file of names.

    Raises:
        DataError: no keyframe found, a table that is not what it should be, or stamps that went through
            float.
    """
    if path.is_dir():
        tables = _find_tables(path)
        groups = _from_tables(tables, path) if tables else _from_names(_walk(path), path)
    elif path.suffix == ".json":
        groups = _from_rows(_read_json(path), path)
    else:
        try:
            lines = path.read_text(encoding="utf-8").split()
        except UnicodeDecodeError as error:
            raise DataError(f"is not UTF-8 text ({error.reason})", where=str(path)) from None
        groups = _from_names(((line, None) for line in lines), path)
    if not groups:
        raise DataError("no keyframe of the form LOG__CHANNEL__MICROSECONDS.jpg", where=str(path))
    for name in sorted(groups):
        yield _recording(name, groups[name], path)


def _recording(name: str, channels: dict[str, list[_Item]], where: Path) -> Recording:
    streams: dict[str, Stream] = {}
    for channel in sorted(channels):
        items = sorted(channels[channel], key=lambda item: item[0])
        t_ns = np.array([stamp for stamp, _ in items], np.int64)
        stream, kind = channel.lower(), _kind(channel)
        names = [picture for _, picture in items if picture is not None]
        source: Source
        if kind == "camera" and len(names) == len(items):
            source = ImageFiles(where, tuple(names), t_ns, "file name", stream, resolution_ns=1000)
        else:
            source = FileNameTimestamps(t_ns, "file name")
        streams[stream] = Stream(stream, kind, _CLOCK, source)
    return Recording(sanitise_name(name), streams, path=str(where))


def _kind(channel: str) -> StreamKind:
    for prefix, kind in _KINDS:
        if channel.upper().startswith(prefix):
            return kind
    return "event"


def _from_names(names: Iterable[tuple[str, str | None]], where: Path) -> dict[str, dict[str, list[_Item]]]:
    groups: dict[str, dict[str, list[_Item]]] = defaultdict(lambda: defaultdict(list))
    for name, picture in names:
        match = _NAME.search(name)
        if match is None:
            raise DataError(
                f"'{name[:120]}' is not of the form LOG__CHANNEL__MICROSECONDS.jpg", where=str(where)
            )
        groups[match["log"]][match["channel"]].append((_to_ns(int(match["stamp"]), where), picture))
    return groups


def _walk(root: Path) -> Iterator[tuple[str, str | None]]:
    for channel in sorted((root / "samples").iterdir()):
        for file in sorted(channel.iterdir() if channel.is_dir() else ()):
            if _NAME.search(file.name):
                yield file.name, file.relative_to(root).as_posix()


def _from_tables(tables: Path, root: Path) -> dict[str, dict[str, list[_Item]]]:
    """Keyframes grouped by scene, stamps from the sample_data table."""
    scene_of = _by_token(tables / "sample.json", "scene_token")
    scene_name = _by_token(tables / "scene.json", "name")
    groups: dict[str, dict[str, list[_Item]]] = defaultdict(lambda: defaultdict(list))
    for row in _read_json(tables / "sample_data.json"):
        if row.get("is_key_frame"):
            try:
                scene = scene_name[scene_of[row["sample_token"]]]
            except (KeyError, TypeError) as missing:
                raise DataError(f"token {missing} is in no table", where=str(tables)) from None
            _add_item(groups[scene], row, tables / "sample_data.json", root)
    return groups


def _by_token(path: Path, field: str) -> dict[str, str]:
    """One text field of a table by the rows' tokens. Raises DataError for a row without."""
    found: dict[str, str] = {}
    for number, row in enumerate(_read_json(path)):
        token, value = row.get("token"), row.get(field)
        if not isinstance(token, str) or not isinstance(value, str):
            raise DataError(f"row {number} has no text in 'token' or '{field}'", where=str(path))
        found[token] = value
    return found


def _from_rows(rows: list[dict[str, Any]], path: Path) -> dict[str, dict[str, list[_Item]]]:
    """A lone sample_data table: keyframes and all grouped by the log in their file names."""
    groups: dict[str, dict[str, list[_Item]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        log = PurePosixPath(str(row.get("filename", ""))).name.split("__")[0] or path.stem
        _add_item(groups[log], row, path, None)
    return groups


def _add_item(channels: dict[str, list[_Item]], row: dict[str, Any], where: Path, root: Path | None) -> None:
    try:
        stamp, relative = row["timestamp"], PurePosixPath(row["filename"])
    except (KeyError, TypeError):
        raise DataError("a row without timestamp or filename", where=str(where)) from None
    if isinstance(stamp, float):
        raise DataError(
            f"timestamp {stamp!r} is a float: stamps of this size went through float64 and lost up to "
            f"{int(np.spacing(stamp) / 2)} units",
            where=f"{where}, {relative.name}",
            hint="Write timestamps as integers at the source; what float64 dropped cannot be brought back.",
        )
    if not isinstance(stamp, int) or isinstance(stamp, bool):
        raise DataError(
            f"timestamp {str(stamp)[:40]!r} is no integer",
            where=f"{where}, {relative.name}",
            hint="Write timestamps as integers, in microseconds or nanoseconds.",
        )
    if relative.is_absolute() or ".." in relative.parts or len(relative.parts) < 2:
        raise DataError(f"filename '{relative}' leaves the data root", where=str(where))
    picture = root / relative if root is not None else None
    present = str(relative) if picture is not None and picture.is_file() else None
    if picture is not None and present is None and _kind(relative.parts[-2]) == "camera":
        raise DataError("a keyframe's picture is missing", where=str(picture), hint="Complete the download.")
    channels[relative.parts[-2]].append((_to_ns(stamp, where), present))


def _to_ns(stamp: int, where: Path) -> int:
    """nuScenes writes microseconds; forks of it write nanoseconds. 10**17 parts the two for years 1973 to
    5138.
    """
    if stamp <= 0:
        raise DataError(f"timestamp {stamp} is a sentinel, not a time", where=str(where))
    if stamp > np.iinfo(np.int64).max:
        raise DataError(
            f"timestamp {stamp} is past int64 nanoseconds",
            where=str(where),
            hint="Write microseconds or nanoseconds.",
        )
    return stamp * 1000 if stamp < 10**17 else stamp


def _find_tables(root: Path) -> Path | None:
    found = [folder for folder in sorted(root.glob("v1.0-*")) if (folder / "sample_data.json").is_file()]
    if len(found) > 1:
        raise DataError(
            f"several table folders: {', '.join(folder.name for folder in found)}",
            where=str(root),
            hint="Point at one set only.",
        )
    return found[0] if found else None


def _is_list(path: Path) -> bool:
    if path.suffix != ".txt" or not path.is_file():
        return False
    with path.open("rb") as file:
        return _NAME.search(file.readline(1000).decode("utf-8", "replace").strip()) is not None


def _read_json(path: Path) -> list[dict[str, Any]]:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise DataError(f"larger than {MAX_JSON_BYTES} bytes", where=str(path))
        rows = json.loads(path.read_bytes(), parse_constant=_reject_constant)
    except FileNotFoundError:
        raise DataError("the table is missing", where=str(path), hint="Complete the download.") from None
    except RecursionError:
        raise DataError("cannot be read as JSON (nested too deeply)", where=str(path)) from None
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read as JSON ({error})", where=str(path)) from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError("is not a list of objects", where=str(path))
    return rows


def _reject_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")
