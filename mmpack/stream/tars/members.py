"""The files in a tar of any format (v7, ustar, GNU and pax), read in one pass as untrusted input.

Python's `tarfile` reads headers of any claimed size into memory and keeps every member. This reader keeps no members and
limits the size of headers. Member names are labels only: nothing is ever written to the paths that they name.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from mmpack.errors import IntegrityError
from mmpack.shards.tar import BLOCK_BYTES, TarMember
from mmpack.stream.tars.byte_source import ForwardReader

MAX_NAME_BYTES = 4096
"""Largest length of a member name, equal to PATH_MAX of Linux."""
MAX_EXTENDED_BYTES = 1 << 20
"""Largest size of a GNU long name or pax header. The largest real ones hold the extended attributes of a file."""

_HEADER = struct.Struct("100s24s12s12s8sc100s8s80s155s12x")
_ZEROS = bytes(BLOCK_BYTES)
_USTAR = b"ustar\x0000"
_LONG_NAME, _PAX, _SPARSE = b"L", b"x", b"S"
_FILES = (b"0", b"\0", b"7")
#: Links, devices, folders and pipes have no content, even if their size field is not 0.
_EMPTY = (b"1", b"2", b"3", b"4", b"5", b"6")


def iter_tar_members(source: ForwardReader) -> Iterator[TarMember]:
    """Yields every regular file, in order.

    When a file is yielded, its content is next in `source`. The caller may read it, or part of it, before it asks for the
    next file.

    `TarMember.name` is the name as it is stored; bytes that are not UTF-8 are written as `\\xNN`. `offset_bytes` is the
    offset of the first header of the file (in a gzipped tar, in the decompressed data). Extended headers may follow, so
    `TarMember.content` is not valid here.

    Raises:
        IntegrityError: the data is not a tar, is cut short or has no end mark, or a header is damaged or too large.
        StorageError: as reading `source`.
    """
    start, extended = source.offset, {}
    while (block := source.read(BLOCK_BYTES)) != _ZEROS:
        name, size, kind = _parse_header(block, source)
        if kind in (_LONG_NAME, _PAX):
            if size > MAX_EXTENDED_BYTES:
                raise _tar_error(
                    f"a header claims {size} bytes, more than the limit of {MAX_EXTENDED_BYTES}", source
                )
            data = source.read(size)
            if kind == _PAX:
                extended |= _parse_pax_records(data, source)
            else:
                extended["path"] = data.partition(b"\0")[0]
            source.skip(-size % BLOCK_BYTES)
            continue
        name = extended.get("path", name)
        if "size" in extended:
            size = _parse_decimal(extended["size"], source)
        if len(name) > MAX_NAME_BYTES:
            raise _tar_error(
                f"a member name has {len(name)} bytes, more than the limit of {MAX_NAME_BYTES}", source
            )
        if kind == _SPARSE or any(key.startswith("GNU.sparse.") for key in extended):
            raise _tar_error("the tar contains a sparse file, which is not supported", source)
        is_file = kind in _FILES and not name.endswith(b"/")
        stop = source.offset + (0 if kind in _EMPTY else size + -size % BLOCK_BYTES)
        if is_file:
            yield TarMember(name.decode("utf-8", "backslashreplace"), start, size)
        source.skip(stop - source.offset)
        start, extended = stop, {}


def _parse_header(block: bytes, source: ForwardReader) -> tuple[bytes, int, bytes]:
    """Returns the name, size and type flag of a header."""
    name, _, size, _, checksum, kind, _, magic, _, prefix = _HEADER.unpack(block)
    stored, computed = _parse_octal(checksum, source), _header_checksum(block, checksum)
    # Some old programs summed signed bytes: each byte of 128 or more then counts 256 less.
    signed = computed - 256 * (_count_high_bytes(block) - _count_high_bytes(checksum))
    if stored not in (computed, signed):
        raise _tar_error("a header checksum is wrong: the file is damaged or not a tar", source)
    name, prefix = name.partition(b"\0")[0], prefix.partition(b"\0")[0]
    # GNU headers use the prefix field of ustar for other values.
    if magic == _USTAR and prefix:
        name = prefix + b"/" + name
    return name, _parse_size(size, source), kind


def _header_checksum(block: bytes, checksum: bytes) -> int:
    """Returns the sum of the bytes of a header, with the bytes of the checksum counted as spaces."""
    return sum(block) - sum(checksum) + len(checksum) * ord(" ")


def _count_high_bytes(data: bytes) -> int:
    """Returns the number of bytes that are negative when read as signed."""
    return sum(byte >= 128 for byte in data)


def _parse_size(field: bytes, source: ForwardReader) -> int:
    """Parses a size: octal digits, or a big-endian number if the first byte is 0x80 (base-256 of GNU)."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    return _parse_octal(field, source)


def _parse_octal(field: bytes, source: ForwardReader) -> int:
    digits = field.partition(b"\0")[0].strip(b" ")
    if digits.strip(b"01234567"):
        raise _tar_error("a header field is not an octal number: the file is damaged or not a tar", source)
    return int(digits or b"0", 8)


def _parse_pax_records(data: bytes, source: ForwardReader) -> dict[str, bytes]:
    """Parses a pax header: records of `LENGTH KEY=VALUE\\n`, where LENGTH is the size of the full record."""
    records: dict[str, bytes] = {}
    offset = 0
    while offset < len(data) and data[offset]:
        digits = data[offset : offset + 8].partition(b" ")[0]
        stop = offset + _parse_decimal(digits, source)
        record = data[offset + len(digits) + 1 : stop]
        key, equals, value = record.partition(b"=")
        if stop > len(data) or not equals or not value.endswith(b"\n"):
            raise _tar_error("a pax header is damaged", source)
        records[key.decode("utf-8", "replace")] = value[:-1]
        offset = stop
    return records


def _parse_decimal(digits: bytes, source: ForwardReader) -> int:
    # Sizes have at most 20 digits. isdigit() of bytes accepts ASCII digits only.
    if not digits.isdigit() or len(digits) > 20:
        raise _tar_error("a pax header is damaged", source)
    return int(digits)


def _tar_error(message: str, source: ForwardReader) -> IntegrityError:
    return IntegrityError(message, where=f"{source.where}, before byte {source.offset}")
