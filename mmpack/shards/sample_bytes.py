"""The bytes of one sample in a shard: checks them and splits them into members."""

from __future__ import annotations

from isal.isal_zlib import crc32 as crc32_of

from mmpack.errors import IntegrityError
from mmpack.shards import tar

#: Limit that no real sample reaches: a slice of six 8K images has 100 MB.
MAX_SAMPLE_BYTES = 4 << 30


def split_members(
    data: bytes | memoryview, key: str, shard: str, offset_bytes: int, crc32: int
) -> dict[str, bytes]:
    """Splits the tar bytes of a sample into its members, by extension, and checks them against the index.

    Args:
        data: tar bytes of the sample, from its first header to its last padding.
        key, shard, offset_bytes, crc32: as in the index.

    Raises:
        IntegrityError: the bytes differ from those that were written, or contain a member of another sample.
    """
    where = f"{shard}, sample '{key}'"
    if crc32_of(data) != crc32:
        raise IntegrityError("the bytes differ from those that were written (crc32)", where=where)
    members: dict[str, bytes] = {}
    for member in tar.iter_members(data, where=where, base=offset_bytes):
        member_key, _, extension = member.name.partition(".")
        if member_key != key or extension in members:
            raise IntegrityError(f"the member '{member.name}' does not belong to this sample", where=where)
        members[extension] = bytes(data[member.content])
    return members
