"""One sample's stretch of a shard: checked, then cut into its members."""

from __future__ import annotations

from isal.isal_zlib import crc32 as crc32_of

from mmpack.errors import IntegrityError
from mmpack.shards import tar

#: A slice of six 8K pictures is 100 MB.
MAX_SAMPLE_BYTES = 4 << 30


def split_members(
    data: bytes | memoryview, key: str, shard: str, offset_bytes: int, crc32: int
) -> dict[str, bytes]:
    """The members in a sample's stretch of tar by extension, checked against what the index says of it.

    Args:
        data: the stretch.
        key, shard, offset_bytes, crc32: as in the index.

    Raises:
        IntegrityError: the bytes are not those that were written, or hold anything else than this sample.
    """
    where = f"{shard}, sample '{key}'"
    if crc32_of(data) != crc32:
        raise IntegrityError("its bytes differ from what was written (crc32)", where=where)
    found: dict[str, bytes] = {}
    for member in tar.iter_members(data, where=where, base=offset_bytes):
        own, _, extension = member.name.partition(".")
        if own != key or extension in found:
            raise IntegrityError(f"the member '{member.name}' does not belong to it", where=where)
        found[extension] = bytes(data[member.content])
    return found
