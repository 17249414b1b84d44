"""Microphones: sample-exact files through libsndfile, compressed tracks through one forward decoding pass."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from av.error import FFmpegError
from numpy.typing import NDArray

from mmpack.clock import pts_to_ns
from mmpack.errors import DataError
from mmpack.recording.files import file_identity
from mmpack.recording.model import AudioTimeline
from mmpack.recording.sources.container import find_track, open_container, scan_packets
from mmpack.recording.sources.riff import check_riff_size

# A hole in the packets shorter than this many samples, or than two steps of the time base, is rounding and no
# hole.
_ROUNDING_SAMPLES = 64
# libsndfile does not scale these when asked for int16 (0.5 becomes 0), or lets what is past full scale wrap around.
_FLOAT_SUBTYPES = frozenset(
    {"FLOAT", "DOUBLE", "VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"}
)


def _rounding_tolerance(to_sample: Fraction) -> int:
    """Samples that the rounding of stamps can seem to lose, where one step of the time base is `to_sample`
    samples.
    """
    return max(_ROUNDING_SAMPLES, math.ceil(2 * to_sample))


@dataclass
class AudioFile:
    """A wav, flac, aiff or ogg file; any range of samples can be read exactly.

    Samples come as 16 bits: of 24- and 32-bit integers the upper 16, floats times 2**15, rounded and clipped.

    Attributes:
        path: the file.
        stream: name for messages.
        start_ns: stamp of sample 0 on the stream's clock.
    """

    path: Path
    stream: str
    start_ns: int = 0
    _open: soundfile.SoundFile | None = field(default=None, init=False, repr=False)

    def _file(self) -> soundfile.SoundFile:
        if self._open is None:
            try:
                self._open = soundfile.SoundFile(self.path)
            except (soundfile.LibsndfileError, OSError) as error:
                raise DataError(
                    f"cannot be opened as audio ({error})",
                    where=f"stream '{self.stream}', {self.path}",
                    hint="The file is truncated or of another format.",
                ) from None
        return self._open

    def timeline(self) -> AudioTimeline:
        """One segment: sample n lies at start + n / rate. Raises DataError for a file without samples or cut short."""
        file = self._file()
        check_riff_size(self.path, stream=self.stream)
        if file.frames <= 0:
            raise DataError(
                "holds no samples, or a header that says so",
                where=f"stream '{self.stream}', {self.path}",
                hint="If the recorder was stopped before it wrote the size, repair the header.",
            )
        return AudioTimeline(
            file.samplerate,
            file.channels,
            np.zeros(1, np.int64),
            np.array([self.start_ns], np.int64),
            np.array([file.frames], np.int64),
            origin="sample count",
        )

    def read(self, start: int, stop: int) -> NDArray[np.int16]:
        """Samples [start, stop), int16, shape (stop - start, channels).

        Raises:
            DataError: the file ends before, or a float sample is no number.
        """
        file = self._file()
        is_float = file.subtype in _FLOAT_SUBTYPES
        try:
            file.seek(start)
            samples = file.read(stop - start, dtype="float32" if is_float else "int16", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise DataError(
                f"samples {start}..{stop} cannot be read ({error})",
                where=f"stream '{self.stream}', {self.path}",
            ) from None
        if len(samples) != stop - start:
            raise DataError(
                f"{file.frames} samples declared, but only {start + len(samples)} can be read: the file is truncated",
                where=f"stream '{self.stream}', {self.path}",
                hint="Copy it again.",
            )
        if is_float and not np.isfinite(samples).all():
            raise DataError(
                f"samples {start}..{stop} hold one that is no number (NaN or infinite)",
                where=f"stream '{self.stream}', {self.path}",
                hint="Repair it at the source.",
            )
        return (
            _floats_to_int16(np.asarray(samples, np.float32)) if is_float else np.asarray(samples, np.int16)
        )

    def files(self) -> Iterable[tuple[str, int]]:
        """The file's name and size."""
        yield file_identity(self.path)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}


@dataclass
class AudioTrack:
    """An audio track of a container (AAC, Opus, ...), decoded forward; what lies behind the reader is let go.

    Sample numbers count from the first *decoded* sample. Codec priming (AAC packets with pts −1024) never
    reaches them, because stamps are taken from decoded frames, not from packets.

    Attributes:
        path: the container.
        spec: which track, as in 'a:0'.
        stream: name for messages.
        start_ns: stamp of media time zero on the stream's clock.
    """

    path: Path
    spec: str
    stream: str
    start_ns: int = 0
    _decoder: Iterator[tuple[int, NDArray[np.int16]]] | None = field(default=None, init=False, repr=False)
    _chunks: list[tuple[int, NDArray[np.int16]]] = field(default_factory=list, init=False, repr=False)
    _release: int = field(default=0, init=False, repr=False)

    def timeline(self) -> AudioTimeline:
        """Segments from packet stamps: a new one wherever a packet does not follow on the one before."""
        return self._scan[0]

    @cached_property
    def _scan(self) -> tuple[AudioTimeline, int]:
        packets = scan_packets(self.path, self.spec, stream=self.stream)
        with open_container(self.path, stream=self.stream) as container:
            audio = find_track(container, self.spec, stream=self.stream, path=self.path)
            rate_hz, channels = audio.codec_context.sample_rate, audio.codec_context.channels
            first_pts = _first_decoded_pts(container, audio, where=f"stream '{self.stream}', {self.path}")
        # Of a packet that the decoder begins in the middle of (Opus) what is heard counts.
        keep = packets.pts + packets.duration > first_pts
        pts, end = np.maximum(packets.pts[keep], first_pts), packets.pts[keep] + packets.duration[keep]
        to_sample = packets.time_base * rate_hz
        starts = np.array([round((int(p) - first_pts) * to_sample) for p in pts], np.int64)
        lengths = np.array([round(int(d) * to_sample) for d in end - pts], np.int64)
        breaks = (
            np.flatnonzero(np.abs(starts[1:] - (starts[:-1] + lengths[:-1])) > _rounding_tolerance(to_sample))
            + 1
        )
        heads = np.concatenate([[0], breaks])
        tails = np.concatenate([breaks, [len(starts)]]) - 1
        t_ns = pts_to_ns(pts[heads], packets.time_base, self.start_ns)
        timeline = AudioTimeline(
            rate_hz,
            channels,
            starts[heads],
            t_ns,
            starts[tails] + lengths[tails] - starts[heads],
            origin="pts",
        )
        return timeline, first_pts

    def read(self, start: int, stop: int) -> NDArray[np.int16]:
        """Samples [start, stop), int16, shape (stop - start, channels). Going back restarts the decoder.

        Raises:
            DataError: the decoder gives no sample for a place the packets promised.
        """
        if self._decoder is None or start < self._release:
            self._decoder, self._chunks, self._release = self._decode(), [], 0
        while not self._chunks or self._end() < stop:
            piece = next(self._decoder, None)
            if piece is None:
                break
            self._chunks.append(piece)
            # Windows ascend and may overlap: what ends before this one starts is not asked for again.
            while self._chunks and self._chunks[0][0] + len(self._chunks[0][1]) <= start:
                first, samples = self._chunks.pop(0)
                self._release = first + len(samples)
        channels = self.timeline().channels
        out = np.zeros((stop - start, channels), np.int16)
        filled = 0
        for first, samples in self._chunks:
            low, high = max(first, start), min(first + len(samples), stop)
            if low < high:
                out[low - start : high - start] = samples[low - first : high - first]
                filled += high - low
        # Time-base rounding can leave a sample between two packets; more than that is damage.
        if filled < len(out) - _ROUNDING_SAMPLES:
            raise DataError(
                f"samples {start}..{stop}: the decoder gave {filled} of {len(out)}",
                where=f"stream '{self.stream}', {self.path}",
                hint="The track is damaged there.",
            )
        return out

    def _end(self) -> int:
        first, samples = self._chunks[-1]
        return first + len(samples)

    def _decode(self) -> Iterator[tuple[int, NDArray[np.int16]]]:
        timeline, first_pts = self._scan
        expected = 0
        with open_container(self.path, stream=self.stream) as container:
            audio = find_track(container, self.spec, stream=self.stream, path=self.path)
            to_sample = audio.time_base * timeline.rate_hz
            try:
                for frame in container.decode(audio):
                    samples = _to_int16(frame, timeline.channels)
                    first = round(((frame.pts or 0) - first_pts) * to_sample)
                    if abs(first - expected) <= _rounding_tolerance(to_sample):
                        first = expected  # contiguous: count samples, do not accumulate rounded stamps
                    expected = first + len(samples)
                    yield first, samples
            except FFmpegError as error:
                raise DataError(
                    f"decoding stopped ({error})", where=f"stream '{self.stream}', {self.path}"
                ) from None

    def files(self) -> Iterable[tuple[str, int]]:
        """The container's name and size."""
        yield file_identity(self.path)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_decoder": None, "_pieces": [], "_let_go": 0}


def _first_decoded_pts(container: Any, audio: Any, *, where: str) -> int:
    try:
        for frame in container.decode(audio):
            return int(frame.pts or 0)
    except FFmpegError as error:
        raise DataError(f"decoding stopped ({error})", where=where) from None
    raise DataError("the track holds no samples", where=where)


def _to_int16(frame: Any, channels: int) -> NDArray[np.int16]:
    """A decoded frame as int16, shape (samples, channels)."""
    raw = frame.to_ndarray()
    planar = frame.format.is_planar
    data = raw.T if planar else raw.reshape(-1, channels)
    if data.dtype == np.int16:
        return np.ascontiguousarray(data)
    if data.dtype == np.int32:
        return np.ascontiguousarray((data >> 16).astype(np.int16))
    if data.dtype == np.uint8:
        return np.ascontiguousarray(((data.astype(np.int16) - 128) << 8).astype(np.int16))
    return _floats_to_int16(data)


def _floats_to_int16(samples: NDArray[np.floating[Any]]) -> NDArray[np.int16]:
    """Samples of full scale ±1 as int16 of the same shape: times 2**15, rounded, clipped."""
    return np.ascontiguousarray(np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16))
