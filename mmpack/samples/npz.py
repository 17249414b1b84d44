"""All numeric streams of a slice in one member: an uncompressed .npz, the same to the byte every time, read
without pickle.
"""

from __future__ import annotations

import io
import struct
import zipfile
from functools import lru_cache
from math import prod

import numpy as np
from isal.isal_zlib import crc32
from numpy.typing import NDArray

from mmpack.errors import IntegrityError

#: Of all arrays of one slice together. Ten seconds of 1 kHz, 64 columns of float64 are 5 MB.
MAX_NPZ_BYTES = 256 << 20
# What struct and numpy raise besides: headers that are no Python.
_ZIP_ERRORS = (
    NotImplementedError,
    RuntimeError,
    OSError,
    OverflowError,
    struct.error,
    TypeError,
    SyntaxError,
)
# Of a zip (PKWARE, APPNOTE.TXT 4.3.7 and 4.3.16): an array's header behind its mark, with version, flags, method, time
# and date, crc32, both sizes, and the sizes of what follows; and the record at the end.
_ENTRY_MARK, _ENTRY = b"PK\x03\x04", struct.Struct("<HHHIIIIHH")
_END_MARK, _END = b"PK\x05\x06", struct.Struct("<4sHHHHIIH")
_UTF8 = 0x800  # a flag: the name is not ASCII
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def encode_npz(arrays: dict[str, NDArray]) -> bytes:
    """`arrays` as a stored zip of .npy files, sorted by name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(arrays[name]), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", _ZIP_TIME)
            info.create_system = 3
            archive.writestr(info, content.getvalue())
    return buffer.getvalue()


def decode_npz(data: bytes, *, where: str) -> dict[str, NDArray]:
    """The arrays of :func:`encode_npz`.

    Only such zips are read, from their first byte to their last: what other writers may put between arrays, or say of
    them elsewhere, has no place here. That is also ten times as fast as a reader of all zips.

    Raises:
        IntegrityError: damaged, larger than MAX_NPZ_BYTES, compressed, or holding objects.
    """
    if len(data) > MAX_NPZ_BYTES:
        raise IntegrityError(f"arrays of more than {MAX_NPZ_BYTES} bytes", where=where)
    arrays: dict[str, NDArray] = {}
    at = 0
    try:
        while data[at : at + 4] == _ENTRY_MARK:
            _, flags, method, _, crc, size, full_size, name_size, extra_size = _ENTRY.unpack_from(
                data, at + 4
            )
            if method or size != full_size:
                raise IntegrityError("compressed arrays, which mmpack does not write", where=where)
            start = at + 4 + _ENTRY.size + name_size
            name = data[start - name_size : start].decode("utf-8" if flags & _UTF8 else "ascii")
            at = start + size
            content = data[start:at]
            if (
                flags & ~_UTF8
                or extra_size
                or len(content) != size
                or crc32(content) != crc
                or name in arrays
            ):
                raise IntegrityError(f"the array '{name}' is damaged", where=where)
            arrays[name] = _read_array(content, where=where)
        _check_directory(data, at, len(arrays))
    except (ValueError, EOFError, KeyError, *_ZIP_ERRORS) as error:
        raise IntegrityError(f"the numeric member is damaged ({error})", where=where) from None
    return {name.removesuffix(".npy"): array for name, array in arrays.items()}


def _check_directory(data: bytes, at: int, count: int) -> None:
    """What ends a zip: a directory from `at` on, of as many entries as there were."""
    mark, disk, first_disk, here, entries, size, start, comment = _END.unpack(data[-_END.size :])
    if mark != _END_MARK or disk or first_disk or comment:
        raise ValueError("no directory at its end")
    if (here, entries, start, start + size) != (count, count, at, len(data) - _END.size):
        raise ValueError("its directory is of other arrays")


def _read_array(content: bytes, *, where: str) -> NDArray:
    # Magic, version, and the header's length: 2 bytes up to version 1.0, 4 from 2.0 on.
    wide = content[6:7] != b"\x01"
    start = 12 if wide else 10
    stop = start + int.from_bytes(content[8:start], "little")
    shape, fortran, dtype = _read_npy_header(content[:stop])
    count = prod(shape)
    # A header may claim a shape far larger than the bytes behind it.
    if dtype.hasobject or not 0 <= count * dtype.itemsize <= len(content) - stop:
        raise IntegrityError("an array of objects, or one larger than its bytes", where=where)
    array = np.frombuffer(content, dtype, count, stop)
    return array.reshape(shape, order="F" if fortran else "C").copy()


@lru_cache(maxsize=4096)
def _read_npy_header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, column-major, type) of an .npy's first bytes. Slices of a stream have the same ones again and again,
    and numpy parses them as Python.
    """
    buffer = io.BytesIO(data)
    version = np.lib.format.read_magic(buffer)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return reader(buffer)
