"""Tests of audio: decoding, resampling, frames, and the codes of the built-in codec."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmpack.errors import DataError
from mmpack.layout import AudioLayout
from mmpack.rows.decode.audio import decode_audio, resample, split_frames
from mmpack.rows.decode.codecs.pcm_frames import PcmFrameCodec
from tests.examples import examples

RATE_HZ = 16_000


def tone(hz: float, level: float, seconds: float = 0.2, rate_hz: int = RATE_HZ) -> NDArray[np.float32]:
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


def encode_audio(samples: NDArray[np.float32], format_: str = "FLAC", subtype: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE_HZ, format=format_, subtype=subtype)
    return buffer.getvalue()


@given(
    st.integers(0, 3000),
    st.integers(1, 200_000),
    st.integers(1, 400),
    st.integers(1, 5),
    st.integers(1, 3000),
    st.integers(8000, 48_000),
)
@settings(max_examples=examples(150))
def test_the_number_of_frames_is_that_of_the_layout(
    samples: int, rate_hz: int, hop: int, codebooks: int, size: int, target_hz: int
) -> None:
    layout = AudioLayout(sample_rate_hz=target_hz, hop=hop, codebooks=codebooks, codebook_size=size)
    samples = min(samples, rate_hz)
    audio = np.random.default_rng(samples).uniform(-1, 1, samples).astype(np.float32)
    codec = PcmFrameCodec(layout)
    codes = codec.encode(audio, rate_hz)
    assert codes.shape == (layout.num_frames(samples, rate_hz), codebooks)
    assert ((codes >= 0) & (codes < size)).all()
    assert np.array_equal(codes, codec.encode(audio, rate_hz))
    at_target = resample(audio, rate_hz, target_hz)
    assert len(at_target) == -(-samples * target_hz // rate_hz)
    assert np.array_equal(codes, codec.encode(at_target, target_hz))


def test_level_has_steps_of_3_db() -> None:
    codec = PcmFrameCodec(AudioLayout())
    levels = [int(np.median(codec.encode(tone(1000, 10 ** (-db / 20)), RATE_HZ) // 32)) for db in range(90)]
    # A sine of peak 1 has a mean square of -3 dB.
    assert levels == [min(31, int(np.floor((96 - 3.0103 - db) / 3))) for db in range(90)]


def test_brightness_depends_on_pitch_and_not_on_level() -> None:
    codec = PcmFrameCodec(AudioLayout())
    for level in (0.01, 0.5):
        brightness = [
            int(np.median(codec.encode(tone(hz, level), RATE_HZ) % 32)) for hz in (150, 400, 900, 2000, 6000)
        ]
        mel = [
            int(32 * np.log10(1 + hz / 700) / np.log10(1 + 8000 / 700)) for hz in (150, 400, 900, 2000, 6000)
        ]
        assert np.abs(np.array(brightness) - mel).max() <= 2
        assert brightness == sorted(set(brightness))


def test_the_other_codebooks_hold_the_power_of_bands() -> None:
    codec = PcmFrameCodec(AudioLayout(codebooks=5, codebook_size=96))
    edges = 700 * ((1 + 8000 / 700) ** (np.arange(5) / 4) - 1)
    for band in range(4):
        middle = float(np.sqrt(max(edges[band], 100) * edges[band + 1]))
        codes = np.median(codec.encode(tone(middle, 0.5), RATE_HZ), axis=0)
        assert codes[1 + band] == pytest.approx(96 - 9, abs=1)  # -9.03 dB, in steps of 1 dB
        assert np.argmax(codes[1:]) == band
        assert np.sort(codes[1:])[-2] < 96 - 30


def test_silence_has_code_0_in_every_codebook() -> None:
    for layout in (AudioLayout(), AudioLayout(codebooks=4, codebook_size=7, hop=1), AudioLayout(hop=3)):
        assert not PcmFrameCodec(layout).encode(np.zeros(1000, np.float32), RATE_HZ).any()


@pytest.mark.parametrize("rate_hz", [8000, 44_100, 48_000, 96_000])
def test_resampling_preserves_a_tone(rate_hz: int) -> None:
    audio = resample(tone(1000, 0.5, 0.5, rate_hz), rate_hz, RATE_HZ)
    middle = slice(1000, 7000)
    assert np.abs(audio[middle] - tone(1000, 0.5, 0.5)[middle]).max() < 1e-3


def test_frames_are_the_samples_padded_with_zeros() -> None:
    audio = tone(300, 0.5)[:1000]
    frames = split_frames(audio, 320)
    assert frames.shape == (4, 320)
    assert np.array_equal(frames.ravel()[:1000], audio)
    assert not frames.ravel()[1000:].any()


def test_channels_are_averaged() -> None:
    stereo = np.stack([tone(300, 0.5), tone(300, 0.25)], axis=1)
    mono, rate_hz = decode_audio(encode_audio(stereo, "WAV", "FLOAT"), where="")
    assert rate_hz == RATE_HZ
    assert np.allclose(mono, tone(300, 0.375), atol=1e-6)


def test_real_speech_decodes_as_soundfile_decodes_it(real_data: Path) -> None:
    for path in (
        real_data / "av_speech" / "jfk.flac",
        *sorted((real_data / "av_speech" / "librivox").glob("*.wav"))[:2],
    ):
        samples, rate_hz = decode_audio(path.read_bytes(), where=path.name)
        expected, expected_hz = soundfile.read(path, dtype="float32", always_2d=True)
        assert rate_hz == expected_hz
        assert np.allclose(samples, expected.mean(axis=1), atol=1e-6)
        codes = PcmFrameCodec(AudioLayout()).encode(samples, rate_hz)
        assert len(codes) == AudioLayout().num_frames(len(samples), rate_hz)
        assert len(np.unique(codes)) > 60  # speech uses many levels and shapes


def test_damaged_audio_raises_a_data_error() -> None:
    intact = encode_audio(np.random.default_rng(0).uniform(-0.5, 0.5, 8000).astype(np.float32))
    with_nan = tone(300, 0.5)
    with_nan[17] = np.nan
    for data in (b"", b"RIFF", intact[: len(intact) // 2], encode_audio(with_nan, "WAV", "FLOAT")):
        with pytest.raises(DataError):
            decode_audio(data, where="mic.flac")


def test_a_flac_that_claims_hours_is_rejected_before_decoding() -> None:
    data = bytearray(encode_audio(np.zeros(16_000, np.float32)))
    data[21:26] = bytes([data[21] | 0x0F]) + b"\xff" * 4  # 36 bits of its number of samples
    with pytest.raises(DataError, match="claims"):
        decode_audio(bytes(data), where="mic.flac")


@given(st.binary(max_size=40), st.integers(0, 3000), st.integers(0, 255))
@settings(max_examples=examples(60))
def test_damaged_bytes_are_decoded_or_raise_a_data_error(noise: bytes, at: int, value: int) -> None:
    data = bytearray(encode_audio(tone(440, 0.5, 0.1)))
    data[at % len(data)] = value
    for damaged in (bytes(data), bytes(data[:at]) + noise, noise):
        try:
            samples, _ = decode_audio(damaged, where="")
        except DataError:
            continue
        assert np.isfinite(samples).all()
