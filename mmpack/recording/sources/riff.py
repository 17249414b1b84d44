"""Where the samples of a wav or aiff file should end, by its own header: libsndfile reads a cut file as a shorter
one, without an error.
"""

from __future__ import annotations

from pathlib import Path

from mmpack.errors import DataError

# By the file's first bytes: byte order, and the chunk that holds the samples. RF64 and BW64 (EBU Tech 3306,
# ITU-R BS.2088) keep sizes past 32 bits in a chunk called ds64.
_FORMS = {
    b"RIFF": ("little", b"data"),
    b"RF64": ("little", b"data"),
    b"BW64": ("little", b"data"),
    b"RIFX": ("big", b"data"),
    b"FORM": ("big", b"SSND"),
}
_STREAMED = 0xFFFFFFFF  # written to a pipe: the size was not known when the header was


def check_riff_size(path: Path, *, stream: str) -> None:
    """Raises DataError if the chunk of samples ends behind the file. Files of other formats pass."""
    total = path.stat().st_size
    with path.open("rb") as file:
        order, wanted = _FORMS.get(file.read(4), ("", b""))
        if order not in ("little", "big"):
            return
        start, wide = 12, 0
        while start + 8 <= total:
            file.seek(start)
            header = file.read(24)
            kind, size = header[:4], int.from_bytes(header[4:8], order)
            if kind == b"ds64":
                wide = int.from_bytes(header[16:24], "little")
            if kind == wanted:
                size = wide if size == _STREAMED and wide else size
                if size != _STREAMED and start + 8 + size > total:
                    raise DataError(
                        f"its samples end at byte {start + 8 + size:,}, the file at {total:,}: the file is truncated",
                        where=f"stream '{stream}', {path}",
                        hint="Copy it again.",
                    )
                return
            start += 8 + size + size % 2  # chunks begin at even places
