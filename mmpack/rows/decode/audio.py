"""Sound: encoded bytes to mono samples, to the layout's rate, and to codes."""

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

#: Of one stretch of sound, all channels together; 2**27 are 512 MB decoded. FLAC holds silence of any length
#: in few bytes.
MAX_SAMPLES = 1 << 27
#: Beyond what any converter samples at; a filter to the layout's rate from there is still small.
MAX_RATE_HZ = 1 << 22
#: Level of code 0, and of all that is softer.
FLOOR_DB = -96.0
# Frames that are transformed at once: 4,096 of 320 samples take 10 MB.
_BLOCK = 4096
_READ_BLOCK = 1 << 18


class AudioCodec(Protocol):
    """Sound to codes. One object serves several threads at once."""

    def encode(self, samples: NDArray[np.float32], rate_hz: int) -> NDArray[np.int64]:
        """Codes of a stretch of sound: int64, (frames, codebooks), with `AudioLayout.frames` frames.

        Args:
            samples: float32, (n,), mono, in [-1, 1].
            rate_hz: of the samples.
        """
        ...


def decode_audio(data: bytes, *, where: str) -> tuple[NDArray[np.float32], int]:
    """Samples of wav, flac or ogg: float32, (n,), the mean of the channels, and their rate in Hz.

    Raises:
        DataError: damaged, cut short, longer than MAX_SAMPLES, or holding values that are not finite.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            count, channels, rate_hz = file.frames, file.channels, file.samplerate
            if count * channels > MAX_SAMPLES or not 0 < rate_hz <= MAX_RATE_HZ:
                raise DataError(f"claims {count} x {channels} samples at {rate_hz} Hz", where=where)
            samples = np.empty(count, np.float32)
            read = 0
            # Block by block: what a header claims is not allocated for all channels at once.
            for block in file.blocks(_READ_BLOCK, dtype="float32", always_2d=True):
                if read + len(block) > count:
                    break
                samples[read : read + len(block)] = block[:, 0] if channels == 1 else block.mean(axis=1)
                read += len(block)
    except (soundfile.LibsndfileError, RuntimeError, ValueError) as error:
        raise DataError(f"cannot be decoded as sound ({error})", where=where) from None
    if read != count:
        raise DataError(f"{read} samples where its header has {count}", where=where)
    if not np.isfinite(samples).all():
        raise DataError("holds samples that are not finite", where=where)
    return samples, rate_hz


def resample(samples: NDArray[np.float32], rate_hz: int, target_hz: int) -> NDArray[np.float32]:
    """`samples` (n,) at another rate: float32, ceil(n * target_hz / rate_hz) of them, as the layout counts."""
    if rate_hz == target_hz or not len(samples):
        return samples
    count = -(-len(samples) * target_hz // rate_hz)
    found = soxr.resample(samples, rate_hz, target_hz, quality="HQ")
    return _pad_or_trim(found, count)


def split_frames(samples: NDArray[np.float32], hop: int) -> NDArray[np.float32]:
    """`samples` (n,) as float32, (ceil(n / hop), hop), zeros behind the last."""
    frames = -(-len(samples) // hop)
    return _pad_or_trim(samples, frames * hop).reshape(frames, hop)


def _pad_or_trim(samples: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    if len(samples) >= count:
        return samples[:count]
    return np.concatenate([samples, np.zeros(count - len(samples), np.float32)])


class PcmFrameCodec:
    """The built-in codec `pcm-frames`: no weights, a few numbers of each frame's power spectrum.

    Of a frame of `hop` samples under a sine window, power is counted relative to full scale (a mean square of
    1), so that a full sine has -3 dB. Decibels are cut into equal steps from FLOOR_DB to 0; what lies outside
    takes the first or last.

    Codebook 0 is level and brightness: code = level * shapes + brightness, with floor(sqrt(codebook_size)) shapes
    and codebook_size // shapes levels. `level` is the frame's whole power in dB, `brightness` the centroid of its
    spectrum on the mel scale (2595 log10(1 + f / 700)), in equal steps from 0 to half the rate. With 1,024 codes:
    32 levels of 3 dB, 32 brightnesses.

    Codebook b of the others is the power in band b of codebooks - 1 bands that part the mel scale evenly from
    0 to half the rate, in dB, in codebook_size steps.

    A silent frame is code 0 in every codebook. Equal samples give equal codes.

    Args:
        layout: rate, hop and codebooks.
    """

    def __init__(self, layout: AudioLayout) -> None:
        self._layout = layout
        hop = layout.hop
        self._shapes = int(np.sqrt(layout.codebook_size))
        self._levels = layout.codebook_size // self._shapes
        self._window = np.sin(np.pi * (np.arange(hop) + 0.5) / hop)
        bins = np.arange(hop // 2 + 1)
        # Of a real signal's spectrum half is kept: what has a mirror image counts twice.
        mirrored = (bins > 0) & (2 * bins != hop)
        self._share = np.where(mirrored, 2.0, 1.0) / (hop * (self._window**2).sum())
        mel = np.log10(1.0 + bins * layout.sample_rate_hz / hop / 700.0)
        self._height = mel / np.log10(1.0 + layout.sample_rate_hz / 2 / 700.0)
        bands = layout.codebooks - 1
        band = np.minimum((self._height * bands).astype(np.int64), bands - 1)
        self._edges = np.searchsorted(band, np.arange(bands + 1)).tolist()

    def encode(self, samples: NDArray[np.float32], rate_hz: int) -> NDArray[np.int64]:
        """See :class:`AudioCodec`."""
        layout = self._layout
        frames = split_frames(resample(samples, rate_hz, layout.sample_rate_hz), layout.hop)
        codes = np.empty((len(frames), layout.codebooks), np.int64)
        for start in range(0, len(frames), _BLOCK):
            codes[start : start + _BLOCK] = self._codes(frames[start : start + _BLOCK])
        return codes

    def _codes(self, frames: NDArray[np.float32]) -> NDArray[np.int64]:
        spectrum = np.fft.rfft(frames * self._window, axis=1)
        power = (spectrum.real**2 + spectrum.imag**2) * self._share
        whole = power.sum(axis=1)
        centroid = (power * self._height).sum(axis=1) / np.maximum(whole, np.finfo(np.float64).tiny)
        level = _quantise_db(whole, self._levels)
        brightness = np.clip((centroid * self._shapes).astype(np.int64), 0, self._shapes - 1)
        # Of next to nothing the centroid is noise.
        brightness[whole <= 10 ** (FLOOR_DB / 10)] = 0
        first = level * self._shapes + brightness
        # Sums and no matrix product: those of a BLAS depend on its threads in the last bit.
        bands = (power[:, start:stop].sum(axis=1) for start, stop in pairwise(self._edges))
        return np.column_stack([first, *(_quantise_db(band, self._layout.codebook_size) for band in bands)])


def _quantise_db(power: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Which of `count` equal steps in dB each power lies in, int64."""
    decibels = 10.0 * np.log10(np.maximum(power, np.finfo(np.float64).tiny))
    return np.clip(np.floor((1.0 - decibels / FLOOR_DB) * count), 0, count - 1).astype(np.int64)
