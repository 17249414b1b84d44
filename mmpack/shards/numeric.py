"""All numeric streams of a slice in one member: an uncompressed .npz, the same to the byte every time, read
without pickle.
"""

from __future__ import annotations

import io
import struct
import zipfile
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import IntegrityError

#: Of all arrays of one slice together. Ten seconds of 1 kHz, 64 columns of float64 are 5 MB.
MAX_NPZ_BYTES = 256 << 20
# What zipfile and numpy raise besides: versions and encryption they do not know, headers that are no Python.
_ZIP_ERRORS = (
    NotImplementedError,
    RuntimeError,
    OSError,
    OverflowError,
    struct.error,
    TypeError,
    SyntaxError,
)
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

    Raises:
        IntegrityError: damaged, larger than MAX_NPZ_BYTES once unpacked, compressed, or holding objects.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            if sum(info.file_size for info in infos) > MAX_NPZ_BYTES:
                raise IntegrityError(f"arrays of more than {MAX_NPZ_BYTES} bytes", where=where)
            if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
                raise IntegrityError("compressed arrays, which mmpack does not write", where=where)
            return {
                info.filename.removesuffix(".npy"): _read_array(archive.read(info), where=where)
                for info in infos
            }
    except (zipfile.BadZipFile, ValueError, EOFError, KeyError, *_ZIP_ERRORS) as error:
        raise IntegrityError(f"the numeric member is damaged ({error})", where=where) from None


def _read_array(content: bytes, *, where: str) -> NDArray:
    # Magic, version, and the header's length: 2 bytes up to version 1.0, 4 from 2.0 on.
    wide = content[6:7] != b"\x01"
    start = 12 if wide else 10
    stop = start + int.from_bytes(content[8:start], "little")
    shape, fortran, dtype = _header(content[:stop])
    count = int(np.prod(shape, dtype=object))
    # A header may claim a shape far larger than the bytes behind it.
    if dtype.hasobject or count * dtype.itemsize > len(content) - stop:
        raise IntegrityError("an array of objects, or one larger than its bytes", where=where)
    array = np.frombuffer(content, dtype, count, stop)
    return array.reshape(shape, order="F" if fortran else "C").copy()


@lru_cache(maxsize=4096)
def _header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, column-major, type) of an .npy's first bytes. Slices of a stream have the same ones again and again,
    and numpy parses them as Python.
    """
    buffer = io.BytesIO(data)
    version = np.lib.format.read_magic(buffer)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return reader(buffer)
