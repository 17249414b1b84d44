"""Length and sampling rate of encoded audio, read without decoding."""

from __future__ import annotations

import io
from typing import Any

import soundfile

from mmpack.errors import IntegrityError


def read_audio_info(data: bytes) -> Any:
    """Returns the `soundfile` info of an encoded audio member: `frames`, `samplerate` and `channels`.

    Raises:
        IntegrityError: libsndfile cannot open the bytes.
    """
    try:
        return soundfile.info(io.BytesIO(data))
    except soundfile.LibsndfileError as error:
        raise IntegrityError(f"the audio cannot be opened ({error})") from None
