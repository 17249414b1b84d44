"""Decodes audio to mono samples, resamples it to the rate of the layout and encodes it as codes."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import Protocol

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from mmpack.errors import DataError
from mmpack.layout import AudioLayout

#: Largest number of samples of one member, over all channels; 2**27 take 512 MB decoded. The limit is needed because
#: FLAC stores silence of any length in few bytes.
MAX_SAMPLES = 1 << 27
#: Largest accepted sampling rate: above that of any converter, and low enough for a small resampling filter.
MAX_RATE_HZ = 1 << 22
#: Level in dB of code 0, which also stands for all lower levels.
FLOOR_DB = -96.0
# Number of frames that are transformed at once: 4,096 frames of 320 samples take 10 MB.
_BLOCK_FRAMES = 4096
_BLOCK_SAMPLES = 1 << 18


class AudioCodec(Protocol):
    """An audio codec: audio samples to codes. Several threads may use one codec at once."""

    def encode(self, samples: NDArray[np.float32], rate_hz: int) -> NDArray[np.int64]:
        """Encodes audio: int64 (frames, codebooks), with as many frames as `AudioLayout.num_frames` says.

        Args:
            samples: float32 (n,), mono samples in [-1, 1].
            rate_hz: sampling rate of `samples`.
        """
        ...


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


class PcmFrameCodec:
    """The built-in codec `pcm-frames`: a few quantised values of the power spectrum of each frame, without weights.

    A sine window is applied to each frame of `hop` samples. Power is relative to full scale (a mean square of 1), so
    that a full-scale sine has -3 dB. Decibels are quantised in equal steps from FLOOR_DB to 0; values outside take
    the first or last step.

    Codebook 0 combines level and brightness: code = level * shapes + brightness, with floor(sqrt(codebook_size))
    shapes and codebook_size // shapes levels. `level` is the total power of the frame in dB, `brightness` the
    centroid of its spectrum on the mel scale (2595 log10(1 + f / 700)), in equal steps from 0 to half the sampling
    rate. With 1,024 codes there are 32 levels of 3 dB and 32 brightness steps.

    The other codebooks hold the power in dB of one band each, in codebook_size steps. Their codebooks - 1 bands
    divide the mel scale evenly from 0 to half the sampling rate.

    A silent frame has code 0 in every codebook. Equal samples give equal codes.

    Args:
        layout: sampling rate, hop and codebooks.
    """

    def __init__(self, layout: AudioLayout) -> None:
        self._layout = layout
        hop = layout.hop
        self._num_shapes = int(np.sqrt(layout.codebook_size))
        self._num_levels = layout.codebook_size // self._num_shapes
        self._window = np.sin(np.pi * (np.arange(hop) + 0.5) / hop)
        bins = np.arange(hop // 2 + 1)
        # The FFT of a real signal returns half of the spectrum, so bins that have a mirror image count twice.
        is_mirrored = (bins > 0) & (2 * bins != hop)
        self._power_scale = np.where(is_mirrored, 2.0, 1.0) / (hop * (self._window**2).sum())
        mel = np.log10(1.0 + bins * layout.sample_rate_hz / hop / 700.0)
        self._mel_position = mel / np.log10(1.0 + layout.sample_rate_hz / 2 / 700.0)
        bands = layout.codebooks - 1
        band = np.minimum((self._mel_position * bands).astype(np.int64), bands - 1)
        self._band_edges = np.searchsorted(band, np.arange(bands + 1)).tolist()

    def encode(self, samples: NDArray[np.float32], rate_hz: int) -> NDArray[np.int64]:
        """Implements :meth:`AudioCodec.encode`."""
        layout = self._layout
        frames = split_frames(resample(samples, rate_hz, layout.sample_rate_hz), layout.hop)
        codes = np.empty((len(frames), layout.codebooks), np.int64)
        for start in range(0, len(frames), _BLOCK_FRAMES):
            codes[start : start + _BLOCK_FRAMES] = self._encode_frames(frames[start : start + _BLOCK_FRAMES])
        return codes

    def _encode_frames(self, frames: NDArray[np.float32]) -> NDArray[np.int64]:
        spectrum = np.fft.rfft(frames * self._window, axis=1)
        power = (spectrum.real**2 + spectrum.imag**2) * self._power_scale
        total_power = power.sum(axis=1)
        centroid = (power * self._mel_position).sum(axis=1) / np.maximum(
            total_power, np.finfo(np.float64).tiny
        )
        level = _quantise_db(total_power, self._num_levels)
        brightness = np.clip((centroid * self._num_shapes).astype(np.int64), 0, self._num_shapes - 1)
        # The centroid of a nearly silent frame is noise.
        brightness[total_power <= 10 ** (FLOOR_DB / 10)] = 0
        first = level * self._num_shapes + brightness
        # Sums instead of a matrix product: the last bit of a BLAS product depends on its number of threads.
        bands = (power[:, start:stop].sum(axis=1) for start, stop in pairwise(self._band_edges))
        return np.column_stack([first, *(_quantise_db(band, self._layout.codebook_size) for band in bands)])


def _quantise_db(power: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Quantises each power in dB to one of `count` equal steps from FLOOR_DB to 0, int64."""
    decibels = 10.0 * np.log10(np.maximum(power, np.finfo(np.float64).tiny))
    return np.clip(np.floor((1.0 - decibels / FLOOR_DB) * count), 0, count - 1).astype(np.int64)
