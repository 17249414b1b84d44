"""Edits of shard sets that also update every digest and checksum, so that only the edit itself is wrong."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from mmpack.shards import index, tar
from mmpack.shards.reader import read_members

Table = dict[str, Any]


def edit_manifest(out: Path, edit: Callable[[Table], None]) -> None:
    """Applies `edit` to the JSON of manifest.json."""
    path = out / "manifest.json"
    manifest = json.loads(path.read_bytes())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def write_file(out: Path, name: str, data: bytes) -> None:
    """Writes a file of the shard set and its digest in the manifest."""
    (out / name).write_bytes(data)
    edit_manifest(out, lambda manifest: manifest["files"].update({name: hashlib.sha256(data).hexdigest()}))


def read_index(out: Path) -> list[Table]:
    """Reads the rows of the index."""
    return index.decode_parquet((out / "index.parquet").read_bytes(), where=str(out)).to_pylist()


def write_index(out: Path, rows: list[Table]) -> None:
    """Writes the index with these rows."""
    write_file(
        out, "index.parquet", index.encode_parquet(pa.Table.from_pylist(rows, schema=index.INDEX_SCHEMA))
    )


def edit_row(out: Path, key: str, edit: Callable[[Table], None]) -> None:
    """Applies `edit` to one row of the index."""
    rows = read_index(out)
    edit(next(row for row in rows if row["key"] == key))
    write_index(out, rows)


def edit_members(out: Path, key: str, edit: Callable[[dict[str, bytes]], None]) -> None:
    """Applies `edit` to the members of one sample and writes its shard again."""
    rows = read_index(out)
    shard = next(row["shard"] for row in rows if row["key"] == key)
    old_shard, new_shard = (out / shard).read_bytes(), b""
    for row in sorted((row for row in rows if row["shard"] == shard), key=lambda row: row["offset_bytes"]):
        start = row["offset_bytes"]
        members = read_members(old_shard[start : start + row["size_bytes"]], row)
        if row["key"] == key:
            edit(members)
        data = b"".join(
            tar.make_header(f"{row['key']}.{name}", len(content)) + content + tar.make_padding(len(content))
            for name, content in sorted(members.items())
        )
        row |= {"offset_bytes": len(new_shard), "size_bytes": len(data), "crc32": zlib.crc32(data)}
        new_shard += data
    new_shard += tar.END_OF_ARCHIVE
    (out / shard).write_bytes(new_shard)
    write_index(out, rows)

    def update_entry(manifest: Table) -> None:
        entry = next(entry for entry in manifest["shards"] if entry["name"] == shard)
        entry |= {"size_bytes": len(new_shard), "sha256": hashlib.sha256(new_shard).hexdigest()}

    edit_manifest(out, update_entry)


def edit_description(out: Path, key: str, edit: Callable[[Table], None]) -> None:
    """Applies `edit` to the description of one sample."""

    def edit_json(members: dict[str, bytes]) -> None:
        description = json.loads(members["json"])
        edit(description)
        members["json"] = json.dumps(description).encode()

    edit_members(out, key, edit_json)
