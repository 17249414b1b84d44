"""Detection of truncated wav and aiff files by their headers.

libsndfile reads a truncated file as a shorter one, without an error.
"""

from __future__ import annotations

from pathlib import Path

from mmpack.errors import DataError

# Byte order and name of the audio chunk, by the first bytes of a file. RF64 and BW64 (EBU Tech 3306, ITU-R BS.2088)
# store sizes beyond 32 bits in a chunk called ds64.
_FORMATS = {
    b"RIFF": ("little", b"data"),
    b"RF64": ("little", b"data"),
    b"BW64": ("little", b"data"),
    b"RIFX": ("big", b"data"),
    b"FORM": ("big", b"SSND"),
}
# Size in the header of a file that was written to a pipe, where the size is not known in advance.
_UNKNOWN_SIZE = 0xFFFFFFFF


def check_riff_size(path: Path, *, stream: str) -> None:
    """Raises DataError if the audio chunk of a wav or aiff file extends beyond the end of the file.

    Files of other formats are not checked.
    """
    total = path.stat().st_size
    with path.open("rb") as file:
        order, audio_chunk = _FORMATS.get(file.read(4), ("", b""))
        if order not in ("little", "big"):
            return
        start, size_64 = 12, 0
        while start + 8 <= total:
            file.seek(start)
            header = file.read(24)
            chunk, size = header[:4], int.from_bytes(header[4:8], order)
            if chunk == b"ds64":
                size_64 = int.from_bytes(header[16:24], "little")
            if chunk == audio_chunk:
                size = size_64 if size == _UNKNOWN_SIZE and size_64 else size
                if size != _UNKNOWN_SIZE and start + 8 + size > total:
                    raise DataError(
                        f"the audio samples end at byte {start + 8 + size:,}, but the file at byte {total:,}: "
                        "the file is truncated",
                        where=f"stream '{stream}', {path}",
                        hint="Copy it again.",
                    )
                return
            start += 8 + size + size % 2  # Chunks begin at even offsets.
