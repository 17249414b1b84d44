"""The bytes of a tar from its start on: out of any store, plain or gzipped, a bounded piece at a time."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable

from mmpack.errors import IntegrityError
from mmpack.storage.retry import retry
from mmpack.storage.store import Store

#: Of one read: a request to an object store is worth its wait, and skipping a member still spares most of it.
_PIECE_BYTES = 2 << 20
_GZIP = b"\x1f\x8b"
#: zlib's name for a gzip header in front.
_GZIP_WINDOW = 31
#: Compressed bytes taken at once. What they become is bounded by _PIECE_BYTES, whatever they claim.
_PACKED_BYTES = 64 << 10


class ForwardReader:
    """Bytes that are read in order, with gaps.

    Args:
        load: some bytes from an offset on, none at the end. Offsets ascend.
        where: for messages.

    Attributes:
        offset: of the next byte.
    """

    def __init__(self, load: Callable[[int], bytes], *, where: str) -> None:
        self.where = where
        self.offset = 0
        self._load = load
        self._chunk = b""
        self._start = 0

    def read_some(self, max_bytes: int) -> bytes:
        """One to `most` bytes; none at the end."""
        inside = self.offset - self._start
        if not 0 <= inside < len(self._chunk):
            self._chunk, self._start, inside = self._load(self.offset), self.offset, 0
        taken = self._chunk[inside : inside + max_bytes]
        self.offset += len(taken)
        return taken

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises IntegrityError if the end comes before."""
        parts: list[bytes] = []
        while size and (part := self.read_some(size)):
            parts.append(part)
            size -= len(part)
        if size:
            raise IntegrityError(f"is cut short: {size} bytes are missing", where=self.where)
        return b"".join(parts)

    def skip(self, size: int) -> None:
        """Leaves `size` bytes out; of a plain file they are not read."""
        self.offset += size


def open_source(store: Store, name: str, *, retries: int, stop: threading.Event) -> ForwardReader:
    """A file of a store, unpacked if it is gzipped.

    Args:
        store, name: where it is.
        retries: times that a failed read is tried again.
        stop: when set, nothing is tried again.

    Raises:
        StorageError: it is not there, or cannot be read; reading it raises that too, and IntegrityError where its
            gzip is damaged.
    """
    where = f"{store.url}/{name}"
    size = retry(lambda: store.size(name), retries=retries, stop=stop)

    def load(offset: int) -> bytes:
        count = min(_PIECE_BYTES, size - offset)
        if count <= 0:
            return b""
        return retry(lambda: store.read_range(name, offset, count), retries=retries, stop=stop)

    plain = ForwardReader(load, where=where)
    magic = plain.read_some(len(_GZIP))
    plain.offset = 0
    return ForwardReader(_GzipReader(plain), where=where) if magic == _GZIP else plain


class _GzipReader:
    """Unpacks as it goes. Several gzip files one behind the other are one, as for gzip itself."""

    def __init__(self, packed: ForwardReader) -> None:
        self._packed = packed
        self._inflate = zlib.decompressobj(_GZIP_WINDOW)
        self._offset = 0

    def __call__(self, offset: int) -> bytes:
        while piece := self._more():
            start = self._offset
            self._offset += len(piece)
            if self._offset > offset:
                return piece[offset - start :]
        return b""

    def _more(self) -> bytes:
        while True:
            if self._inflate.eof:
                packed = (self._inflate.unused_data or self._packed.read_some(_PACKED_BYTES)).lstrip(b"\0")
                if not packed:
                    return b""
                self._inflate = zlib.decompressobj(_GZIP_WINDOW)
            else:
                packed = self._inflate.unconsumed_tail or self._packed.read_some(_PACKED_BYTES)
            try:
                piece = self._inflate.decompress(packed, _PIECE_BYTES)
            except zlib.error as error:
                raise IntegrityError(f"its gzip is damaged ({error})", where=self._packed.where) from None
            if piece:
                return piece
            if not packed and not self._inflate.eof:
                raise IntegrityError("its gzip is cut short", where=self._packed.where)
