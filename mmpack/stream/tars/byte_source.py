"""The bytes of a tar in order: from any store, plain or gzipped, a bounded chunk at a time."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable

from mmpack.errors import IntegrityError
from mmpack.storage.retry import retry
from mmpack.storage.store import Store

#: Size of one read: large compared with the latency of a request to an object store, and small enough that skipping a
#: large member saves most of its bytes.
_CHUNK_BYTES = 2 << 20
_GZIP = b"\x1f\x8b"
#: zlib's `wbits` for data with a gzip header and the largest window.
_GZIP_WINDOW = 31
#: Compressed bytes read at once. Their decompressed size is bounded by _CHUNK_BYTES.
_COMPRESSED_CHUNK_BYTES = 64 << 10


class ForwardReader:
    """A reader of bytes in order, which can skip bytes.

    Args:
        load: function that returns some bytes from an offset on, and no bytes at the end. Offsets ascend.
        where: name of the file for error messages.

    Attributes:
        offset: offset of the next byte.
    """

    def __init__(self, load: Callable[[int], bytes], *, where: str) -> None:
        self.where = where
        self.offset = 0
        self._load = load
        self._chunk = b""
        self._start = 0

    def read_some(self, max_bytes: int) -> bytes:
        """Reads 1 to `max_bytes` bytes; returns no bytes at the end."""
        start = self.offset - self._start
        if not 0 <= start < len(self._chunk):
            self._chunk, self._start, start = self._load(self.offset), self.offset, 0
        data = self._chunk[start : start + max_bytes]
        self.offset += len(data)
        return data

    def read(self, size: int) -> bytes:
        """Reads exactly `size` bytes. Raises IntegrityError if fewer bytes are left."""
        parts: list[bytes] = []
        while size and (part := self.read_some(size)):
            parts.append(part)
            size -= len(part)
        if size:
            raise IntegrityError(f"the file is cut short: {size} bytes are missing", where=self.where)
        return b"".join(parts)

    def skip(self, size: int) -> None:
        """Skips `size` bytes. In a file that is not gzipped they are not read."""
        self.offset += size


def open_source(store: Store, name: str, *, retries: int, stop: threading.Event) -> ForwardReader:
    """Opens a file of a store, and decompresses it if it is gzipped.

    Args:
        store: store that holds the file.
        name: name of the file in the store.
        retries: number of times that a failed read is repeated.
        stop: event that ends the retries.

    Returns:
        The reader. Its reads raise StorageError, and IntegrityError where the gzip data is damaged.

    Raises:
        StorageError: the file is missing or cannot be read.
    """
    where = f"{store.url}/{name}"
    size = retry(lambda: store.size(name), retries=retries, stop=stop)

    def load(offset: int) -> bytes:
        count = min(_CHUNK_BYTES, size - offset)
        if count <= 0:
            return b""
        return retry(lambda: store.read_range(name, offset, count), retries=retries, stop=stop)

    plain = ForwardReader(load, where=where)
    magic = plain.read_some(len(_GZIP))
    plain.offset = 0
    return ForwardReader(_GzipReader(plain), where=where) if magic == _GZIP else plain


class _GzipReader:
    """The `load` function of a gzipped file. Concatenated gzip files count as one file, as they do for gzip itself."""

    def __init__(self, compressed: ForwardReader) -> None:
        self._compressed = compressed
        self._inflate = zlib.decompressobj(_GZIP_WINDOW)
        self._offset = 0

    def __call__(self, offset: int) -> bytes:
        while chunk := self._read_chunk():
            start = self._offset
            self._offset += len(chunk)
            if self._offset > offset:
                return chunk[offset - start :]
        return b""

    def _read_chunk(self) -> bytes:
        """Decompresses the next 1 to `_CHUNK_BYTES` bytes; returns no bytes at the end."""
        while True:
            if self._inflate.eof:
                # Zeros after a gzip file are padding, as they are for gzip itself.
                data = self._inflate.unused_data or self._compressed.read_some(_COMPRESSED_CHUNK_BYTES)
                data = data.lstrip(b"\0")
                if not data:
                    return b""
                self._inflate = zlib.decompressobj(_GZIP_WINDOW)
            else:
                data = self._inflate.unconsumed_tail or self._compressed.read_some(_COMPRESSED_CHUNK_BYTES)
            try:
                chunk = self._inflate.decompress(data, _CHUNK_BYTES)
            except zlib.error as error:
                raise IntegrityError(
                    f"the gzip data is damaged ({error})", where=self._compressed.where
                ) from None
            if chunk:
                return chunk
            if not data and not self._inflate.eof:
                raise IntegrityError("the gzip data is cut short", where=self._compressed.where)
