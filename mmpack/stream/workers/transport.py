"""Transport of rows between processes: the sender writes a row into anonymous memory, which the receiver maps.

A message is one byte, its kind, and the descriptor of a memfd. The memory has no name, so that nothing is left of it in
`/dev/shm` or elsewhere, however the processes end. It is freed with its last descriptor and mapping. It does not count
against the size of `/dev/shm`, which is 64 MB in containers by default.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from mmpack.errors import IntegrityError
from mmpack.quarantine import UnreadableSample
from mmpack.rows.row import ROW_ARRAYS, Row
from mmpack.serialisation import from_msgpack

ALIGN_BYTES = 64
"""Alignment of every array: a cache line, which is enough for vector instructions."""
#: Largest number of buffers of one `writev` call (IOV_MAX of Linux).
_MAX_BUFFERS = 1024

SETUP, REQUEST, ROW, ERROR = b"s", b"a", b"r", b"e"
"""Kinds of messages: pickled setup, planned row, row, and pickled error."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_MAP_FAILED = ctypes.c_void_p(-1).value


class _RowHeader(msgspec.Struct, frozen=True, array_like=True):
    """The header that precedes the arrays of a row.

    Fields:
        number: number of the row.
        keys: sample keys of the row, by document.
        unreadable: unreadable samples of the row.
        arrays: dtype, shape and offset in bytes of each array, in the order of `ROW_ARRAYS`. Offsets count from the
            aligned end of the header.
    """

    number: int
    keys: tuple[tuple[str, ...], ...]
    unreadable: tuple[UnreadableSample, ...]
    arrays: tuple[tuple[str, tuple[int, ...], int], ...]


def pack_row(row: Row, unreadable: Sequence[UnreadableSample]) -> list[bytes | memoryview]:
    """Encodes a row and its unreadable samples as buffers that are written one after the other.

    They are the size of the header (8 bytes, little-endian), the header as MessagePack, and the bytes of the arrays, each
    aligned to `ALIGN_BYTES`.
    """
    entries: list[tuple[str, tuple[int, ...], int]] = []
    buffers: list[bytes | memoryview] = []
    offset = 0
    for array in row.arrays().values():
        entries.append((array.dtype.str, array.shape, offset))
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        buffers += [flat.data, bytes(-array.nbytes % ALIGN_BYTES)]
        offset += array.nbytes + (-array.nbytes % ALIGN_BYTES)
    header = msgspec.msgpack.encode(_RowHeader(row.number, row.keys, tuple(unreadable), tuple(entries)))
    start = len(header).to_bytes(8, "little") + header
    return [start, bytes(-len(start) % ALIGN_BYTES), *buffers]


def unpack_row(data: NDArray[np.uint8]) -> tuple[Row, list[UnreadableSample]]:
    """Decodes a row and its unreadable samples. The arrays of the row are views of `data` and keep it alive.

    Args:
        data: uint8 (bytes,), the joined buffers of :func:`pack_row`.

    Raises:
        IntegrityError: `data` is not a complete row.
    """
    try:
        end = 8 + int.from_bytes(data[:8].tobytes(), "little")
        header = from_msgpack(data[8:end].data, _RowHeader)
        base = end + (-end % ALIGN_BYTES)
        arrays: dict[str, NDArray[Any]] = {}
        for name, (type_, shape, offset) in zip(ROW_ARRAYS, header.arrays, strict=True):
            dtype = np.dtype(type_)
            start = base + offset
            size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
            arrays[name] = data[start : start + size].view(dtype).reshape(shape)
    except (ValueError, TypeError, msgspec.DecodeError) as error:
        raise IntegrityError(f"the data that a worker sent is not a row ({error})") from None
    return Row(number=header.number, keys=header.keys, **arrays), list(header.unreadable)


def send(pipe: socket.socket, kind: bytes, buffers: Sequence[bytes | memoryview]) -> None:
    """Sends a message.

    Raises:
        ConnectionError: the other side has closed the connection.
        OSError: no memory or no descriptor is left for the message.
    """
    handle = os.memfd_create("mmpack", os.MFD_CLOEXEC)
    try:
        _write(handle, buffers)
        socket.send_fds(pipe, [kind], [handle], socket.MSG_NOSIGNAL)
    finally:
        os.close(handle)


def receive(pipe: socket.socket) -> tuple[bytes, NDArray[np.uint8]] | None:
    """Waits for a message.

    Returns:
        The kind of the message and its content: uint8 (bytes,), writable and not copied. None if the other side has
        closed the connection.

    Raises:
        OSError: no memory or no descriptor is left for the message.
    """
    try:
        kind, handles, _, _ = socket.recv_fds(pipe, 1, 1, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None
    if not kind:
        return None
    # The kernel drops the descriptor if the process has no free one.
    if not handles:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    try:
        return kind, np.asarray(_SharedMemory(handles[0]))
    finally:
        os.close(handles[0])


def _write(handle: int, buffers: Sequence[bytes | memoryview]) -> None:
    # Writing is faster than copying into a mapping: the kernel need not clear the pages first, and no page faults occur.
    views = [memoryview(buffer) for buffer in buffers if len(buffer)]
    while views:
        written = os.writev(handle, views[:_MAX_BUFFERS])
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if written:
            views[0] = views[0][written:]


class _SharedMemory:
    """The memory of a memfd, mapped as a whole and writable. It is unmapped with the last array on it.

    `mmap.mmap` would keep a descriptor per mapping, and a consumer that collects a thousand rows would run out of
    descriptors.
    """

    def __init__(self, handle: int) -> None:
        self._size = os.fstat(handle).st_size
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        # MAP_POPULATE maps all pages at once, without the interpreter lock, rather than one by one at the first access.
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        self._address = _libc.mmap(None, self._size, protection, flags, handle, 0)
        if self._address == _MAP_FAILED:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        self.__array_interface__ = {
            "version": 3,
            "shape": (self._size,),
            "typestr": "|u1",
            "data": (self._address, False),
        }

    # `munmap` is bound as a default, because the module's globals may be gone first when the interpreter exits.
    def __del__(self, unmap: Callable[[int, int], int] = _libc.munmap) -> None:
        if self._address != _MAP_FAILED:
            unmap(self._address, self._size)
