"""Length and sampling rate of encoded audio, read without decoding."""

from __future__ import annotations

import io
from typing import Any

import soundfile

from mmpack.errors import DataError


def read_audio_info(data: bytes, *, where: str) -> Any:
    """Returns the `soundfile` info of an encoded audio member: `frames`, `samplerate` and `channels`.

    Raises:
        DataError: libsndfile cannot open the bytes; the error has `where`.
    """
    try:
        return soundfile.info(io.BytesIO(data))
    except soundfile.LibsndfileError as error:
        raise DataError(f"cannot be opened as audio ({error})", where=where) from None
