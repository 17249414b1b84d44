"""Finished builds changed on purpose, with every digest and checksum made right again: what is left to notice is
only what was changed.
"""

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
    """manifest.json after `edit` of its JSON."""
    path = out / "manifest.json"
    manifest = json.loads(path.read_bytes())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def write_file(out: Path, name: str, data: bytes) -> None:
    """A file beside the manifest, with its digest there."""
    (out / name).write_bytes(data)
    edit_manifest(out, lambda manifest: manifest["files"].update({name: hashlib.sha256(data).hexdigest()}))


def read_index(out: Path) -> list[Table]:
    """The rows of the index."""
    return index.decode_parquet((out / "index.parquet").read_bytes(), where=str(out)).to_pylist()


def write_index(out: Path, rows: list[Table]) -> None:
    """The index with these rows."""
    write_file(
        out, "index.parquet", index.encode_parquet(pa.Table.from_pylist(rows, schema=index.INDEX_SCHEMA))
    )


def edit_row(out: Path, key: str, edit: Callable[[Table], None]) -> None:
    """The index after `edit` of one row."""
    rows = read_index(out)
    edit(next(row for row in rows if row["key"] == key))
    write_index(out, rows)


def edit_members(out: Path, key: str, edit: Callable[[dict[str, bytes]], None]) -> None:
    """The shard of one sample, written again after `edit` of its members."""
    rows = read_index(out)
    shard = next(row["shard"] for row in rows if row["key"] == key)
    before, after = (out / shard).read_bytes(), b""
    for row in sorted((row for row in rows if row["shard"] == shard), key=lambda row: row["offset_bytes"]):
        start = row["offset_bytes"]
        members = read_members(before[start : start + row["size_bytes"]], row)
        if row["key"] == key:
            edit(members)
        data = b"".join(
            tar.make_header(f"{row['key']}.{name}", len(content)) + content + tar.make_padding(len(content))
            for name, content in sorted(members.items())
        )
        row |= {"offset_bytes": len(after), "size_bytes": len(data), "crc32": zlib.crc32(data)}
        after += data
    after += tar.END_OF_ARCHIVE
    (out / shard).write_bytes(after)
    write_index(out, rows)

    def seal(manifest: Table) -> None:
        entry = next(entry for entry in manifest["shards"] if entry["name"] == shard)
        entry |= {"size_bytes": len(after), "sha256": hashlib.sha256(after).hexdigest()}

    edit_manifest(out, seal)


def edit_description(out: Path, key: str, edit: Callable[[Table], None]) -> None:
    """One sample after `edit` of its JSON."""

    def change(members: dict[str, bytes]) -> None:
        description = json.loads(members["json"])
        edit(description)
        members["json"] = json.dumps(description).encode()

    edit_members(out, key, change)
