"""The built-in audio codec `pcm-frames`."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import ConfigError
from mmpack.layout import AudioLayout
from mmpack.rows.decode.audio import resample, split_frames

PCM_FRAMES = "pcm-frames"
#: Level in dB of code 0, which also stands for all lower levels.
FLOOR_DB = -96.0
# Number of frames that are transformed at once: 4,096 frames of 320 samples take 10 MB.
_BLOCK_FRAMES = 4096


def open_pcm_frames(layout: AudioLayout, folder: str) -> PcmFrameCodec:
    """Opens the built-in codec. Raises ConfigError if `folder` is not empty."""
    if folder:
        raise ConfigError(
            f"the layout's codec '{PCM_FRAMES}' is built in and needs no folder",
            where="rows.codec",
            hint="Remove rows.codec, or build the shards with the codec's parameters in [layout.audio].",
        )
    return PcmFrameCodec(layout)


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
