"""Tar headers and members, written deterministically and read as untrusted input.

The format is POSIX ustar, in which every variable field has a fixed value: mode 0644, owner 0, time 0. `webdataset` and
every tar program can read it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from mmpack.errors import DataError, IntegrityError

BLOCK_BYTES = 512
#: Two zero blocks end an archive. `tar` extends archives to records of 20 blocks, but no reader needs this padding.
END_OF_ARCHIVE = bytes(2 * BLOCK_BYTES)
_ZEROS = bytes(BLOCK_BYTES)
#: Longer names need tar extensions that readers treat differently.
MAX_NAME_BYTES = 100
#: Larger than any real member. Limits the size that a damaged header can claim.
MAX_MEMBER_BYTES = 4 << 30

# The fixed fields of a header, between the fields of the name, the size and the checksum.
_OWNER = b"0000644\0" + b"0000000\0" * 2  # mode, owner, group
_TIME = b"\0" + b"00000000000\0"  # end of the size field, modification time
_REST = b"".join(
    (
        b"0",  # type: regular file
        bytes(100),  # link
        b"ustar\x0000",
        bytes(64),  # owner name, group name
        b"0000000\0" * 2,  # device
        bytes(155 + 12),  # prefix, unused
    )
)
#: Name, size, checksum, type and prefix.
_FIELDS = Struct("100s 24x 12s 12x 8s s 188x 155s 12x")
_ADLER = 65521
#: Sum of the fixed bytes; the eight bytes of the checksum field count as spaces.
_FIXED_SUM = sum(_OWNER) + sum(_TIME) + 8 * ord(" ") + sum(_REST)


def make_header(name: str, size: int) -> bytes:
    """Makes the 512-byte header of a regular file.

    Args:
        name: member name.
        size: size of the content in bytes.

    Raises:
        DataError: the name is too long, is not ASCII or leads out of the extraction folder, or the size is too large.
    """
    if _escapes_folder(name):
        raise DataError(f"the member name '{name}' would leave the extraction folder")
    encoded = name.encode("ascii", errors="replace")
    if len(encoded) > MAX_NAME_BYTES or b"?" in encoded:
        raise DataError(
            f"the member name '{name}' is longer than {MAX_NAME_BYTES} bytes or not ASCII",
            hint="Use a shorter ASCII name for `recording.name` or for the stream.",
        )
    if size >= 8**11:
        raise DataError(f"a member of {size} bytes is too large for a tar", where=name)
    size_field = b"%011o" % size
    checksum = _FIXED_SUM + sum(encoded) + sum(size_field)
    return b"".join((encoded.ljust(100, b"\0"), _OWNER, size_field, _TIME, b"%06o\0 " % checksum, _REST))


def _escapes_folder(name: str) -> bool:
    return not name or name[0] == "/" or "\\" in name or (".." in name and ".." in name.split("/"))


def make_padding(size: int) -> bytes:
    """Returns the zeros that fill the last block after `size` bytes of content."""
    return bytes(-size % BLOCK_BYTES)


class TarMember(NamedTuple):
    """A file in a tar.

    Attributes:
        name: name in the header; it does not lead out of the extraction folder.
        offset_bytes: offset of the header.
        size_bytes: size of the content.
    """

    name: str
    offset_bytes: int
    size_bytes: int

    @property
    def content(self) -> slice:
        """The byte range of the content."""
        start = self.offset_bytes + BLOCK_BYTES
        return slice(start, start + self.size_bytes)


def parse_header(block: bytes, offset: int, *, where: str, base: int = 0) -> TarMember | None:
    """Parses a header block to its member; returns None for a zero block, which ends the archive.

    Args:
        block: 512 bytes.
        offset: offset of the block.
        where: file that error messages name.
        base: offset in the shard from which `offset` counts; used only in error messages.

    Raises:
        IntegrityError: the checksum is wrong, the member is not a regular file, its name leads out of the extraction
            folder, or its size is larger than MAX_MEMBER_BYTES.
    """
    location = base + offset
    if len(block) != BLOCK_BYTES:
        raise _tar_error("the tar is truncated within a header", where, location)
    if block == _ZEROS:
        return None
    name_field, size_field, checksum, type_, prefix = _FIELDS.unpack(block)
    try:
        stated = int(checksum.strip(b" \0"), 8)
        size = int(size_field.strip(b" \0"), 8)
    except ValueError:
        raise _tar_error("the bytes are not a tar header", where, location) from None
    # The low half of Adler-32 is 1 + the sum of the bytes, modulo 65521: a byte sum in C, without a Python loop.
    if ((zlib.adler32(block) & 0xFFFF) - 1 - sum(checksum) + 8 * 32 - stated) % _ADLER:
        raise _tar_error("the checksum of the header is wrong", where, location)
    name = name_field.rstrip(b"\0").decode("utf-8", errors="replace")
    if prefix[0]:
        folder = prefix.rstrip(b"\0").decode("utf-8", errors="replace")
        name = f"{folder}/{name}"
    if _escapes_folder(name):
        raise _tar_error(
            f"the member '{name}' would leave the extraction folder",
            where,
            location,
            hint="Do not use this archive: mmpack does not write such names.",
        )
    if type_ not in b"0\0":
        raise _tar_error(f"the member '{name}' is not a regular file", where, location)
    if not 0 <= size <= MAX_MEMBER_BYTES:
        raise _tar_error(f"the member '{name}' claims {size} bytes", where, location)
    return TarMember(name, offset, size)


def _tar_error(message: str, where: str, location: int, hint: str = "") -> IntegrityError:
    return IntegrityError(message, where=f"{where}, byte {location}", hint=hint)


def iter_members(data: bytes | memoryview, *, where: str, base: int = 0) -> Iterator[TarMember]:
    """Iterates over the members in a part of a tar in memory.

    Args:
        data: complete members; starts with a header.
        where: file that error messages name.
        base: offset of `data` in its shard; used only in error messages. The offsets of the members count from the
            start of `data`.

    Raises:
        IntegrityError: as :func:`parse_header`, or the content of a member is truncated.
    """
    offset = 0
    while offset < len(data):
        member = parse_header(bytes(data[offset : offset + BLOCK_BYTES]), offset, where=where, base=base)
        if member is None:
            return
        stop = offset + BLOCK_BYTES + member.size_bytes
        if stop > len(data):
            raise IntegrityError(
                f"the member '{member.name}' is truncated", where=f"{where}, byte {base + offset}"
            )
        yield member
        offset = stop + (-member.size_bytes % BLOCK_BYTES)
