"""Reader of stand-alone samples: texts, images with captions, speech with transcripts, from jsonl or parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmpack.errors import DataError
from mmpack.ingest.tasks.build_config import SourceConfig
from mmpack.ingest.tasks.slices import EncodedSample
from mmpack.layout import StandAloneMetadata
from mmpack.recording.files import require_content, sanitise_name
from mmpack.samples.description import (
    DESCRIPTION_VERSION,
    JSON_MEMBER,
    StandAloneDescription,
    encode_description,
)
from mmpack.samples.kinds import KINDS
from mmpack.settings import suggest
from mmpack.shards.index import IndexEntry

#: Largest line of a jsonl file. Larger lines are mistakes, not samples.
MAX_TEXT_BYTES = 64 << 20
#: Largest image or audio file of a sample.
MAX_MEDIA_BYTES = 1 << 30


def read_source(source: SourceConfig, *, skip: int = 0) -> Iterator[EncodedSample]:
    """Yields the samples of a source in file order, without the first `skip` ones.

    Raises:
        DataError: the file or a sample cannot be read; the error names the row.
    """
    path, name = Path(source.path), sanitise_name(source.name)
    for ordinal, record in enumerate(_read_records(path, source)):
        if ordinal < skip:
            continue
        where = f"{path}, row {ordinal}"
        text = _read_text(record, source.text, where=where)
        members: list[tuple[str, bytes]] = [("txt", text.encode())] if text else []
        metadata, measure = StandAloneMetadata(text), KINDS[source.kind].measure
        if measure is not None:
            extension, data = _read_media(record, source, path.parent, where=where)
            members.append((extension, data))
            metadata = replace(measure(extension, data, where), text=text)
            if any(samples <= 0 for samples, _ in metadata.audio):
                raise DataError("the audio file has no audio samples", where=where)
        key = f"{name}-{ordinal:08d}"
        other_columns = {
            column: value
            for column, value in record.items()
            if column != source.text and _is_plain_value(value)
        }
        description = StandAloneDescription(
            version=DESCRIPTION_VERSION,
            kind=source.kind,
            recording=name,
            ordinal=ordinal,
            source=other_columns,
        )
        members.append((JSON_MEMBER, encode_description(description)))
        entry = IndexEntry(
            key=key,
            kind=source.kind,
            recording=name,
            ordinal=ordinal,
            run=ordinal,
            t_ns=0,
            residual_ns=0,
            metadata=metadata,
            text_bytes=len(text.encode()),
        )
        yield EncodedSample(entry, members, {})


def count_rows(source: SourceConfig) -> int:
    """Counts the samples of a source. Raises DataError."""
    path = _require_source(source)
    if path.suffix == ".parquet":
        with _open_parquet(path) as file:
            return file.metadata.num_rows
    return sum(1 for _ in _read_records(path, source))


def _require_source(source: SourceConfig) -> Path:
    """Returns the path of the source's file after checking that it has content. Raises DataError."""
    return require_content(
        Path(source.path),
        where=f"source '{source.name}', {source.path}",
        missing_hint="Correct the path in the [[samples]] table of the build config.",
        empty_hint="Copy it again or remove its [[samples]] table from the build config.",
    )


@contextmanager
def _open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"cannot be read as Parquet ({error})", where=str(path)) from None


def _read_records(path: Path, source: SourceConfig) -> Iterator[dict[str, Any]]:
    """Yields the records of a jsonl or parquet file as dicts. Raises DataError."""
    _require_source(source)
    if path.suffix == ".parquet":
        with _open_parquet(path) as file:
            for batch in file.iter_batches(batch_size=256):
                yield from batch.to_pylist()
        return
    if path.suffix not in (".jsonl", ".json", ".ndjson"):
        raise DataError("the file is neither jsonl nor parquet", where=str(path))
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_TEXT_BYTES + 1), b""), 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line) if len(line) <= MAX_TEXT_BYTES else None
            except (ValueError, RecursionError) as error:
                raise DataError(f"line {number} is not JSON ({error})", where=str(path)) from None
            if not isinstance(record, dict):
                raise DataError(
                    f"line {number} is not a JSON object of at most {MAX_TEXT_BYTES} bytes", where=str(path)
                )
            yield record


def _read_text(record: dict[str, Any], column: str, *, where: str) -> str:
    if column not in record:
        raise DataError(f"no column '{column}'", where=where, hint=suggest(column, record))
    value = record[column]
    if not isinstance(value, str):
        raise DataError(f"column '{column}' holds {type(value).__name__}, not text", where=where)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"column '{column}' holds half of a surrogate pair, which is not valid text", where=where
        ) from None
    return value


def _read_media(record: dict[str, Any], source: SourceConfig, base: Path, *, where: str) -> tuple[str, bytes]:
    """Reads the media file of a record; returns its extension and bytes. Raises DataError."""
    name = _read_text(record, source.media, where=where)
    relative = Path(name)
    if ".." in relative.parts:
        raise DataError(f"the path '{name}' is outside the source's folder", where=where)
    extensions = KINDS[source.kind].extensions
    extension = extensions.get(relative.suffix.lower().removeprefix("."))
    if extension is None:
        raise DataError(
            f"'{name}' has an unknown suffix",
            where=where,
            hint=f"Use a file with one of the suffixes .{', .'.join(extensions)}.",
        )
    path = require_content(
        base / relative,
        where=f"{where}, {base / relative}",
        missing_hint="Correct the path in the source file.",
        empty_hint="Copy it again or remove the row from the source file.",
    )
    if path.stat().st_size > MAX_MEDIA_BYTES:
        raise DataError(f"'{name}' is larger than {MAX_MEDIA_BYTES} bytes", where=where)
    return extension, path.read_bytes()


def _is_plain_value(value: Any) -> bool:
    return isinstance(value, str | int | float | bool) or value is None
