"""Audio sources: files read sample-exact with libsndfile, container tracks decoded in one forward pass."""

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

# A gap between packets of at most this many audio samples, or of two steps of the time base, is taken for rounding.
_ROUNDING_SAMPLES = 64
# When these are read as int16, libsndfile does not scale them (0.5 becomes 0), or values beyond full scale wrap
# around.
_FLOAT_SUBTYPES = frozenset(
    {"FLOAT", "DOUBLE", "VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"}
)


def _rounding_tolerance(to_sample: Fraction) -> int:
    """Returns the largest gap, in audio samples, that rounded timestamps can cause.

    Args:
        to_sample: audio samples per step of the time base.
    """
    return max(_ROUNDING_SAMPLES, math.ceil(2 * to_sample))


@dataclass
class AudioFile:
    """A wav, flac, aiff or ogg file, of which any range of audio samples can be read exactly.

    Audio samples are returned as int16: the upper 16 bits of 24- and 32-bit integers; floats times 2**15, rounded
    and clipped.

    Attributes:
        path: path of the file.
        stream: name of the stream, for messages.
        start_ns: timestamp of audio sample 0 on the stream's clock.
    """

    path: Path
    stream: str
    start_ns: int = 0
    _file: soundfile.SoundFile | None = field(default=None, init=False, repr=False)

    def _open(self) -> soundfile.SoundFile:
        if self._file is None:
            try:
                self._file = soundfile.SoundFile(self.path)
            except (soundfile.LibsndfileError, OSError) as error:
                raise DataError(
                    f"cannot be opened as audio ({error})",
                    where=f"stream '{self.stream}', {self.path}",
                    hint="The file is truncated or has another format: copy it again or convert it.",
                ) from None
        return self._file

    def timeline(self) -> AudioTimeline:
        """Returns one segment, in which audio sample n has the time start + n / rate.

        Raises:
            DataError: the file has no audio samples or is truncated.
        """
        file = self._open()
        check_riff_size(self.path, stream=self.stream)
        if file.frames <= 0:
            raise DataError(
                "the file has no audio samples, or its header declares none",
                where=f"stream '{self.stream}', {self.path}",
                hint="If the recorder was stopped before it wrote the size, repair the header.",
            )
        return AudioTimeline(
            rate_hz=file.samplerate,
            channels=file.channels,
            first_sample=np.zeros(1, np.int64),
            t_ns=np.array([self.start_ns], np.int64),
            samples=np.array([file.frames], np.int64),
            origin="sample count",
        )

    def read(self, start: int, stop: int) -> NDArray[np.int16]:
        """Returns the audio samples [start, stop), int16, shape (stop - start, channels).

        Raises:
            DataError: the file ends before `stop`, or a float sample is not finite.
        """
        file = self._open()
        is_float = file.subtype in _FLOAT_SUBTYPES
        try:
            file.seek(start)
            samples = file.read(stop - start, dtype="float32" if is_float else "int16", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise DataError(
                f"audio samples {start}..{stop} cannot be read ({error})",
                where=f"stream '{self.stream}', {self.path}",
            ) from None
        if len(samples) != stop - start:
            raise DataError(
                f"the header declares {file.frames} audio samples, but only {start + len(samples)} can be read: "
                "the file is truncated",
                where=f"stream '{self.stream}', {self.path}",
                hint="Copy it again.",
            )
        if is_float and not np.isfinite(samples).all():
            raise DataError(
                f"one of the audio samples {start}..{stop} is not a number (NaN or infinite)",
                where=f"stream '{self.stream}', {self.path}",
                hint="Repair it at the source.",
            )
        return (
            _floats_to_int16(np.asarray(samples, np.float32)) if is_float else np.asarray(samples, np.int16)
        )

    def files(self) -> Iterable[tuple[str, int]]:
        """Yields the file's name and size in bytes."""
        yield file_identity(self.path)

    def identity(self) -> dict[str, Any]:
        """Returns the values that determine the content, as in :meth:`mmpack.recording.FrameSource.identity`."""
        return {"source": "audio file", "path": self.path, "start_ns": self.start_ns}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}


@dataclass
class AudioTrack:
    """An audio track of a container (AAC, Opus, ...), decoded forward; samples before the last range are released.

    Sample indices count from the first *decoded* audio sample. They exclude codec priming (AAC packets with pts
    −1024), because the start is taken from the first decoded frame, not from the first packet.

    Attributes:
        path: path of the container.
        spec: track specification, as 'a:0'.
        stream: name of the stream, for messages.
        start_ns: timestamp of media time zero on the stream's clock.
    """

    path: Path
    spec: str
    stream: str
    start_ns: int = 0
    _decoder: Iterator[tuple[int, NDArray[np.int16]]] | None = field(default=None, init=False, repr=False)
    _chunks: list[tuple[int, NDArray[np.int16]]] = field(default_factory=list, init=False, repr=False)
    _first_available: int = field(default=0, init=False, repr=False)

    def timeline(self) -> AudioTimeline:
        """Returns the segments given by packet timestamps: a gap between two packets starts a new segment.

        Raises:
            DataError: the track cannot be read or has no audio samples.
        """
        return self._scan[0]

    @cached_property
    def _scan(self) -> tuple[AudioTimeline, int]:
        """The timeline, and the pts of the first decoded frame."""
        packets = scan_packets(self.path, self.spec, stream=self.stream)
        with open_container(self.path, stream=self.stream) as container:
            audio = find_track(container, self.spec, stream=self.stream, path=self.path)
            rate_hz, channels = audio.codec_context.sample_rate, audio.codec_context.channels
            first_pts = _first_decoded_pts(container, audio, where=f"stream '{self.stream}', {self.path}")
        # A decoder can begin in the middle of a packet (Opus). Only the decoded part of that packet counts.
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
            rate_hz=rate_hz,
            channels=channels,
            first_sample=starts[heads],
            t_ns=t_ns,
            samples=starts[tails] + lengths[tails] - starts[heads],
            origin="pts",
        )
        return timeline, first_pts

    def read(self, start: int, stop: int) -> NDArray[np.int16]:
        """Returns the audio samples [start, stop), int16, shape (stop - start, channels).

        A start before the samples that are still in memory restarts the decoder.

        Raises:
            DataError: the decoder produces fewer audio samples than the packets declare.
        """
        if self._decoder is None or start < self._first_available:
            self._decoder, self._chunks, self._first_available = self._decode(), [], 0
        while not self._chunks or self._decoded_end() < stop:
            chunk = next(self._decoder, None)
            if chunk is None:
                break
            self._chunks.append(chunk)
            # Requested ranges ascend and may overlap, so chunks that end before this range are not needed again.
            while self._chunks and self._chunks[0][0] + len(self._chunks[0][1]) <= start:
                first, samples = self._chunks.pop(0)
                self._first_available = first + len(samples)
        channels = self.timeline().channels
        out = np.zeros((stop - start, channels), np.int16)
        filled = 0
        for first, samples in self._chunks:
            low, high = max(first, start), min(first + len(samples), stop)
            if low < high:
                out[low - start : high - start] = samples[low - first : high - first]
                filled += high - low
        # Rounding to the time base can lose a few samples between two packets. More missing samples mean damage.
        if filled < len(out) - _ROUNDING_SAMPLES:
            raise DataError(
                f"the decoder produced {filled} of the {len(out)} audio samples {start}..{stop}",
                where=f"stream '{self.stream}', {self.path}",
                hint="The track is damaged there: copy the file again or remove the stream.",
            )
        return out

    def _decoded_end(self) -> int:
        first, samples = self._chunks[-1]
        return first + len(samples)

    def _decode(self) -> Iterator[tuple[int, NDArray[np.int16]]]:
        """Yields each decoded frame: index of its first audio sample, and int16 samples, shape (n, channels)."""
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
                        # Contiguous frames are placed by counting samples, so that rounding errors do not accumulate.
                        first = expected
                    expected = first + len(samples)
                    yield first, samples
            except FFmpegError as error:
                raise DataError(
                    f"decoding stopped ({error})", where=f"stream '{self.stream}', {self.path}"
                ) from None

    def files(self) -> Iterable[tuple[str, int]]:
        """Yields the container's name and size in bytes."""
        yield file_identity(self.path)

    def identity(self) -> dict[str, Any]:
        """Returns the values that determine the content, as in :meth:`mmpack.recording.FrameSource.identity`."""
        return {"source": "audio track", "path": self.path, "track": self.spec, "start_ns": self.start_ns}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_decoder": None, "_chunks": [], "_first_available": 0}


def _first_decoded_pts(container: Any, audio: Any, *, where: str) -> int:
    try:
        for frame in container.decode(audio):
            return int(frame.pts or 0)
    except FFmpegError as error:
        raise DataError(f"decoding stopped ({error})", where=where) from None
    raise DataError("the track has no audio samples", where=where)


def _to_int16(frame: Any, channels: int) -> NDArray[np.int16]:
    """Converts a decoded frame to int16, shape (samples, channels)."""
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
    """Converts samples of full scale ±1 to int16 of the same shape: times 2**15, rounded, clipped."""
    return np.ascontiguousarray(np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16))
