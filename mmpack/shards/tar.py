"""Tar members, written the same to the byte every time and read as untrusted input.

The format is POSIX ustar with every field that could vary fixed: mode 0644, owner 0, time 0. `webdataset` and
any tar read it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from mmpack.errors import DataError, IntegrityError

BLOCK_BYTES = 512
#: Two zero blocks end an archive; a record of 20 blocks, as `tar` pads to, is not needed by any reader.
END_OF_ARCHIVE = bytes(2 * BLOCK_BYTES)
_ZEROS = bytes(BLOCK_BYTES)
#: Names longer than this need extensions that readers treat differently.
MAX_NAME_BYTES = 100
#: Larger than any sample of video, sound and numbers should be; bounds what a damaged header can ask for.
MAX_MEMBER_BYTES = 4 << 30

# The fixed fields of a header, between the name, the size and the checksum.
_OWNER = b"0000644\0" + b"0000000\0" * 2  # mode, owner, group
_TIME = b"\0" + b"00000000000\0"  # the size's end, time of change
_REST = b"".join(
    (
        b"0",  # a regular file
        bytes(100),  # link
        b"ustar\x0000",
        bytes(64),  # names of owner and group
        b"0000000\0" * 2,  # device
        bytes(155 + 12),  # prefix, unused
    )
)
#: Name, size, checksum, kind and prefix.
_FIELDS = Struct("100s 24x 12s 12x 8s s 188x 155s 12x")
_ADLER = 65521
#: Sum of their bytes; the checksum's own eight count as spaces.
_FIXED_SUM = sum(_OWNER) + sum(_TIME) + 8 * ord(" ") + sum(_REST)


def make_header(name: str, size: int) -> bytes:
    """The 512-byte header of a regular file. Raises DataError for a name that is too long, not ASCII, or that
    leaves the folder it is unpacked to.
    """
    if _escapes_folder(name):
        raise DataError(f"the member name '{name}' would leave the folder it is unpacked to")
    encoded = name.encode("ascii", errors="replace")
    if len(encoded) > MAX_NAME_BYTES or b"?" in encoded:
        raise DataError(
            f"the member name '{name}' is longer than {MAX_NAME_BYTES} bytes or not ASCII",
            hint="Shorten recording.name or the stream's name.",
        )
    if size >= 8**11:
        raise DataError(f"a member of {size} bytes does not fit into a tar", where=name)
    size_field = b"%011o" % size
    checksum = _FIXED_SUM + sum(encoded) + sum(size_field)
    return b"".join((encoded.ljust(100, b"\0"), _OWNER, size_field, _TIME, b"%06o\0 " % checksum, _REST))


def _escapes_folder(name: str) -> bool:
    return not name or name[0] == "/" or "\\" in name or (".." in name and ".." in name.split("/"))


def make_padding(size: int) -> bytes:
    """Zeros that fill the last block of `size` bytes."""
    return bytes(-size % BLOCK_BYTES)


def encoded_size(members: list[tuple[str, bytes]]) -> int:
    """Bytes that these members take in a tar, headers and padding included."""
    return sum(BLOCK_BYTES + len(data) + (-len(data) % BLOCK_BYTES) for _, data in members)


class TarMember(NamedTuple):
    """A file in a tar.

    Attributes:
        name: as in the header, checked to stay inside.
        offset_bytes: where its header starts.
        size_bytes: of its content.
    """

    name: str
    offset_bytes: int
    size_bytes: int

    @property
    def content(self) -> slice:
        """Where its bytes lie."""
        start = self.offset_bytes + BLOCK_BYTES
        return slice(start, start + self.size_bytes)


def parse_header(block: bytes, offset: int, *, where: str, base: int = 0) -> TarMember | None:
    """The member whose header `block` is; None for a zero block, which ends the archive.

    Args:
        block: 512 bytes.
        offset: where it starts.
        where: for messages.
        base: what `offset` counts from, for messages.

    Raises:
        IntegrityError: a wrong checksum, anything but a regular file, a name that leaves its folder, or an
            absurd size.
    """

    place = base + offset
    if len(block) != BLOCK_BYTES:
        raise _tar_error("the tar ends within a header: truncated", where, place)
    if block == _ZEROS:
        return None
    field, size_field, checksum, kind, prefix = _FIELDS.unpack(block)
    try:
        stated = int(checksum.strip(b" \0"), 8)
        size = int(size_field.strip(b" \0"), 8)
    except ValueError:
        raise _tar_error("not a tar header", where, place) from None
    # The low half of Adler-32 is 1 + the sum of the bytes, modulo 65521: the sum at the speed of C.
    if ((zlib.adler32(block) & 0xFFFF) - 1 - sum(checksum) + 8 * 32 - stated) % _ADLER:
        raise _tar_error("the header's checksum is wrong", where, place)
    name = field.rstrip(b"\0").decode("utf-8", errors="replace")
    if prefix[0]:
        folder = prefix.rstrip(b"\0").decode("utf-8", errors="replace")
        name = f"{folder}/{name}"
    if _escapes_folder(name):
        raise _tar_error(
            f"the member '{name}' would leave the folder it is unpacked to",
            where,
            place,
            hint="Do not use this archive: mmpack writes no such names.",
        )
    if kind not in b"0\0":
        raise _tar_error(f"the member '{name}' is no regular file", where, place)
    if not 0 <= size <= MAX_MEMBER_BYTES:
        raise _tar_error(f"the member '{name}' claims {size} bytes", where, place)
    return TarMember(name, offset, size)


def _tar_error(message: str, where: str, location: int, hint: str = "") -> IntegrityError:
    return IntegrityError(message, where=f"{where}, byte {location}", hint=hint)


def iter_members(data: bytes | memoryview, *, where: str, base: int = 0) -> Iterator[TarMember]:
    """All members of a stretch of tar held in memory.

    Args:
        data: whole members, from a header on.
        where: for messages.
        base: offset of `data` in its shard, for messages alone; the members' offsets count from the start of
            `data`.

    Raises:
        IntegrityError: as :func:`parse_header`, or content that runs past the end.
    """
    offset = 0
    while offset < len(data):
        member = parse_header(bytes(data[offset : offset + BLOCK_BYTES]), offset, where=where, base=base)
        if member is None:
            return
        stop = offset + BLOCK_BYTES + member.size_bytes
        if stop > len(data):
            raise IntegrityError(
                f"the member '{member.name}' is cut short", where=f"{where}, byte {base + offset}"
            )
        yield member
        offset = stop + (-member.size_bytes % BLOCK_BYTES)
