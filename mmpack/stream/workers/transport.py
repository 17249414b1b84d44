"""How rows travel between processes: written once into anonymous memory, which the reader maps.

A message is one byte, its kind, and the descriptor of a memfd. Such memory has no name, so that nothing is left of
it in `/dev/shm` or elsewhere however the processes end; it is freed with its last descriptor and mapping. It does not
count against the size of `/dev/shm`, which containers keep at 64 MB.
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
"""Of every array: a cache line, and what vector instructions want."""
# One call takes no more buffers.
_MAX_BUFFERS = 1024

SETUP, REQUEST, ROW, ERROR = b"s", b"a", b"r", b"e"
"""Kinds of messages: what makes rows, a planned row, a row made, and why there is none."""

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
    """What precedes the arrays.

    Fields:
        number, keys: of the row.
        faults: its unreadable samples.
        arrays: dtype, shape and offset from the header's end of each, in the order of `ROW_ARRAYS`.
    """

    number: int
    keys: tuple[tuple[str, ...], ...]
    unreadable: tuple[UnreadableSample, ...]
    arrays: tuple[tuple[str, tuple[int, ...], int], ...]


def pack_row(row: Row, unreadable: Sequence[UnreadableSample]) -> list[bytes | memoryview]:
    """A row and its faults as buffers to be written one after the other: the header's size in 8 bytes, the header as
    msgpack, then the arrays as they lie in memory, each aligned.
    """
    laid: list[tuple[str, tuple[int, ...], int]] = []
    buffers: list[bytes | memoryview] = []
    offset = 0
    for array in row.arrays().values():
        laid.append((array.dtype.str, array.shape, offset))
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        buffers += [flat.data, bytes(-array.nbytes % ALIGN_BYTES)]
        offset += array.nbytes + (-array.nbytes % ALIGN_BYTES)
    header = msgspec.msgpack.encode(_RowHeader(row.number, row.keys, tuple(unreadable), tuple(laid)))
    start = len(header).to_bytes(8, "little") + header
    return [start, bytes(-len(start) % ALIGN_BYTES), *buffers]


def unpack_row(data: NDArray[np.uint8]) -> tuple[Row, list[UnreadableSample]]:
    """The row and its faults; the row's arrays are views of `data`, and keep it alive.

    Args:
        data: uint8 (bytes,), what :func:`pack_row` gave.

    Raises:
        IntegrityError: it is not a whole row.
    """
    try:
        end = 8 + int.from_bytes(data[:8].tobytes(), "little")
        header = from_msgpack(data[8:end].data, _RowHeader)
        base = end + (-end % ALIGN_BYTES)
        arrays: dict[str, NDArray[Any]] = {}
        for name, (kind, shape, offset) in zip(ROW_ARRAYS, header.arrays, strict=True):
            dtype = np.dtype(kind)
            start = base + offset
            size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
            arrays[name] = data[start : start + size].view(dtype).reshape(shape)
    except (ValueError, TypeError, msgspec.DecodeError) as error:
        raise IntegrityError(f"what a worker sent is no row ({error})") from None
    return Row(number=header.number, keys=header.keys, **arrays), list(header.unreadable)


def send(pipe: socket.socket, kind: bytes, buffers: Sequence[bytes | memoryview]) -> None:
    """Sends a message.

    Raises:
        ConnectionError: the other side is gone.
        OSError: there is no memory or no descriptor for it.
    """
    handle = os.memfd_create("mmpack", os.MFD_CLOEXEC)
    try:
        _write(handle, buffers)
        socket.send_fds(pipe, [kind], [handle], socket.MSG_NOSIGNAL)
    finally:
        os.close(handle)


def receive(pipe: socket.socket) -> tuple[bytes, NDArray[np.uint8]] | None:
    """Waits for a message: its kind and its bytes, uint8 (bytes,), writable and not copied. None if the other side is
    gone. Raises OSError if there is no memory or no descriptor for it.
    """
    try:
        kind, handles, _, _ = socket.recv_fds(pipe, 1, 1, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None
    if not kind:
        return None
    if not handles:  # the system drops those that it has no number for
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    try:
        return kind, np.asarray(_SharedMemory(handles[0]))
    finally:
        os.close(handles[0])


def _write(handle: int, buffers: Sequence[bytes | memoryview]) -> None:
    # Written rather than mapped and copied: the system then neither clears the pages first nor faults on each.
    views = [memoryview(buffer) for buffer in buffers if len(buffer)]
    while views:
        written = os.writev(handle, views[:_MAX_BUFFERS])
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if written:
            views[0] = views[0][written:]


class _SharedMemory:
    """All of a memfd as writable memory, unmapped when the last array on it is gone.

    `mmap.mmap` keeps a descriptor per mapping: who collects a thousand rows would have no more files to open.
    """

    def __init__(self, handle: int) -> None:
        self._size = os.fstat(handle).st_size
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        # Populated at once, outside of the interpreter's lock, rather than page by page when it is first used.
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

    # The function is bound here: at the interpreter's exit the module may be gone first.
    def __del__(self, unmap: Callable[[int, int], int] = _libc.munmap) -> None:
        if self._address != _MAP_FAILED:
            unmap(self._address, self._size)
