"""Decodes audio to mono samples, resamples it to the rate of a codec and splits it into frames."""

from __future__ import annotations

import io

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from mmpack.errors import DataError

#: Largest number of samples of one member, over all channels; 2**27 take 512 MB decoded. The limit is needed because
#: FLAC stores silence of any length in few bytes.
MAX_SAMPLES = 1 << 27
#: Largest accepted sampling rate: above that of any converter, and low enough for a small resampling filter.
MAX_RATE_HZ = 1 << 22
_BLOCK_SAMPLES = 1 << 18


def decode_audio(data: bytes, *, where: str) -> tuple[NDArray[np.float32], int]:
    """Decodes wav, flac or ogg. Returns float32 (n,), the mean of the channels, and the sampling rate in Hz.

    Raises:
        DataError: the audio is damaged, truncated, longer than MAX_SAMPLES, above MAX_RATE_HZ, or has values that
            are not finite.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            count, channels, rate_hz = file.frames, file.channels, file.samplerate
            if count * channels > MAX_SAMPLES or not 0 < rate_hz <= MAX_RATE_HZ:
                raise DataError(
                    f"the header claims {count} samples x {channels} channels at {rate_hz} Hz; the limits are "
                    f"{MAX_SAMPLES} samples over all channels and {MAX_RATE_HZ} Hz",
                    where=where,
                )
            samples = np.empty(count, np.float32)
            num_read = 0
            # Reading block by block avoids allocating what a header claims for all channels at once.
            for block in file.blocks(_BLOCK_SAMPLES, dtype="float32", always_2d=True):
                if num_read + len(block) > count:
                    break
                samples[num_read : num_read + len(block)] = (
                    block[:, 0] if channels == 1 else block.mean(axis=1)
                )
                num_read += len(block)
    except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
        raise DataError(f"the audio cannot be decoded ({error})", where=where) from None
    if num_read != count:
        raise DataError(f"the audio has {num_read} samples, but the header says {count}", where=where)
    if not np.isfinite(samples).all():
        raise DataError("the audio has samples that are not finite", where=where)
    return samples, rate_hz


def resample(samples: NDArray[np.float32], rate_hz: int, target_hz: int) -> NDArray[np.float32]:
    """Resamples `samples` (n,) to float32 (ceil(n * target_hz / rate_hz),), the length that the layout assumes."""
    if rate_hz == target_hz or not len(samples):
        return samples
    count = -(-len(samples) * target_hz // rate_hz)
    resampled = soxr.resample(samples, rate_hz, target_hz, quality="HQ")
    return _pad_or_trim(resampled, count)


def split_frames(samples: NDArray[np.float32], hop: int) -> NDArray[np.float32]:
    """Splits `samples` (n,) into frames, float32 (ceil(n / hop), hop), padded with zeros."""
    frames = -(-len(samples) // hop)
    return _pad_or_trim(samples, frames * hop).reshape(frames, hop)


def _pad_or_trim(samples: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    if len(samples) >= count:
        return samples[:count]
    return np.concatenate([samples, np.zeros(count - len(samples), np.float32)])
