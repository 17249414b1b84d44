"""Sizes of encoded audio, without decoding."""

from __future__ import annotations

import io
from typing import Any

import soundfile

from mmpack.errors import IntegrityError


def read_audio_info(data: bytes) -> Any:
    try:
        return soundfile.info(io.BytesIO(data))
    except soundfile.LibsndfileError as error:
        raise IntegrityError(f"its sound cannot be opened ({error})") from None
