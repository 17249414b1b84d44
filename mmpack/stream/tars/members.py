"""The files in a tar of any writer: v7, ustar, GNU and pax, read in one pass as untrusted input.

Python's `tarfile` reads headers of any claimed size into memory and keeps every member it met; this keeps nothing, and
bounds what it reads. Names are labels here: nothing is ever written where they point.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from mmpack.errors import IntegrityError
from mmpack.shards.tar import BLOCK_BYTES
from mmpack.stream.tars.byte_source import ForwardReader

MAX_NAME_BYTES = 4096
"""Of a member's name, as of a path in Linux."""
MAX_EXTENDED_BYTES = 1 << 20
"""Of a GNU long name or pax header; the largest real ones hold a file's extended attributes."""

_HEADER = struct.Struct("100s24s12s12s8sc100s8s80s155s12x")
_ZEROS = bytes(BLOCK_BYTES)
_USTAR = b"ustar\x0000"
_LONG_NAME, _PAX, _SPARSE = b"L", b"x", b"S"
_FILES = (b"0", b"\0", b"7")
#: Links, devices, folders and pipes have no content, whatever their size says.
_EMPTY = (b"1", b"2", b"3", b"4", b"5", b"6")


@dataclass(frozen=True, slots=True)
class TarMember:
    """A regular file in a tar.

    Attributes:
        name: as it is stored; bytes that are not UTF-8 as `\\xNN`.
        offset_bytes: where its (first) header starts; of a gzipped tar, when unpacked.
        size_bytes: of its content.
    """

    name: str
    offset_bytes: int
    size_bytes: int


def iter_tar_members(source: ForwardReader) -> Iterator[TarMember]:
    """Every regular file, in order. Its content lies next in `source`: read it, or part of it, before going on.

    Raises:
        IntegrityError: it is no tar, is cut short, has no end mark, or a header is damaged or beyond the bounds.
        StorageError: as `source` does.
    """
    start, told = source.offset, {}
    while (block := source.read(BLOCK_BYTES)) != _ZEROS:
        name, size, kind = _header(block, source)
        if kind in (_LONG_NAME, _PAX):
            if size > MAX_EXTENDED_BYTES:
                raise _tar_error(f"a header claims {size} bytes", source)
            data = source.read(size)
            told |= _parse_pax_records(data, source) if kind == _PAX else {"path": data.partition(b"\0")[0]}
            source.skip(-size % BLOCK_BYTES)
            continue
        name = told.get("path", name)
        if "size" in told:
            size = _parse_decimal(told["size"], source)
        if len(name) > MAX_NAME_BYTES:
            raise _tar_error(f"a name of {len(name)} bytes", source)
        if kind == _SPARSE or any(key.startswith("GNU.sparse.") for key in told):
            raise _tar_error("holds a sparse file", source)
        is_file = kind in _FILES and not name.endswith(b"/")
        stop = source.offset + (0 if kind in _EMPTY else size + -size % BLOCK_BYTES)
        if is_file:
            yield TarMember(name.decode("utf-8", "backslashreplace"), start, size)
        source.skip(stop - source.offset)
        start, told = stop, {}


def _header(block: bytes, source: ForwardReader) -> tuple[bytes, int, bytes]:
    """Name, size and kind."""
    name, _, size, _, checksum, kind, _, magic, _, prefix = _HEADER.unpack(block)
    stated, found = _parse_octal(checksum, source), _header_checksum(block, checksum)
    # Some old writers summed signed bytes.
    if stated != found and stated != found - 256 * (_decode_base256(block) - _decode_base256(checksum)):
        raise _tar_error("a header's checksum is wrong: it is damaged, or no tar", source)
    name, prefix = name.partition(b"\0")[0], prefix.partition(b"\0")[0]
    # GNU keeps other things where ustar has the prefix.
    if magic == _USTAR and prefix:
        name = prefix + b"/" + name
    return name, _number(size, source), kind


def _header_checksum(block: bytes, checksum: bytes) -> int:
    """Of a header's bytes, those of the checksum taken for spaces."""
    return sum(block) - sum(checksum) + len(checksum) * ord(" ")


def _decode_base256(data: bytes) -> int:
    return sum(byte >= 128 for byte in data)


def _number(field: bytes, source: ForwardReader) -> int:
    """A size: octal, or with the first bit set the bytes of a large number (GNU)."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    return _parse_octal(field, source)


def _parse_octal(field: bytes, source: ForwardReader) -> int:
    digits = field.partition(b"\0")[0].strip(b" ")
    if digits.strip(b"01234567"):
        raise _tar_error("a header holds no number where one belongs: it is damaged, or no tar", source)
    return int(digits or b"0", 8)


def _parse_pax_records(data: bytes, source: ForwardReader) -> dict[str, bytes]:
    """What a pax header says: records of `LENGTH KEY=VALUE\\n`, the length counting all of itself."""
    found: dict[str, bytes] = {}
    place = 0
    while place < len(data) and data[place]:
        digits = data[place : place + 8].partition(b" ")[0]
        stop = place + _parse_decimal(digits, source)
        record = data[place + len(digits) + 1 : stop]
        key, equals, value = record.partition(b"=")
        if stop > len(data) or not equals or not value.endswith(b"\n"):
            raise _tar_error("a pax header is damaged", source)
        found[key.decode("utf-8", "replace")] = value[:-1]
        place = stop
    return found


def _parse_decimal(digits: bytes, source: ForwardReader) -> int:
    # Sizes have at most 20 digits; isdigit() of bytes knows ASCII alone.
    if not digits.isdigit() or len(digits) > 20:
        raise _tar_error("a pax header is damaged", source)
    return int(digits)


def _tar_error(message: str, source: ForwardReader) -> IntegrityError:
    return IntegrityError(message, where=f"{source.where}, before byte {source.offset}")
