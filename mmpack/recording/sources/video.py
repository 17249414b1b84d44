"""A camera as a video track: stamps from packets, frames from one sequential pass of the decoder.

No seeking: in some files a fresh seek to a keyframe gives the right stamp and the wrong pixels, without an
error, in every decoder. A pass from the start cannot.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from mmpack.clock import pts_to_ns
from mmpack.errors import DataError
from mmpack.recording.files import file_identity
from mmpack.recording.model import Frame, Timestamps
from mmpack.recording.sources.container import TrackPackets, find_track, open_container, scan_packets


@dataclass(frozen=True)
class VideoTrack:
    """Frames of one video track.

    Attributes:
        path: the container.
        spec: which track, as in 'v:0'.
        stream: name for messages.
        start_ns: stamp of media time zero on the stream's clock.
        frame_stamps: stamps of the frames in presentation order where a file gives them; else pts + start_ns.
    """

    path: Path
    spec: str
    stream: str
    start_ns: int = 0
    frame_timestamps: Timestamps | None = None

    @cached_property
    def _packets(self) -> TrackPackets:
        return scan_packets(self.path, self.spec, stream=self.stream)

    def timestamps(self) -> Timestamps:
        """Stamps of all frames in presentation order. Raises DataError if a stamp file has another number of
        rows.
        """
        packets = self._packets
        if self.frame_timestamps is not None:
            if len(self.frame_timestamps) != len(packets.pts):
                raise DataError(
                    f"{len(packets.pts)} frames but {len(self.frame_timestamps)} stamps",
                    where=f"stream '{self.stream}', {self.path}",
                    hint="The stamp file needs one row per frame, in presentation order.",
                )
            return self.frame_timestamps
        t_ns = pts_to_ns(packets.pts, packets.time_base, self.start_ns)
        tick_ns = packets.time_base * 10**9
        return Timestamps(
            t_ns, resolution_ns=max(1, -(-tick_ns.numerator // tick_ns.denominator)), origin="pts"
        )

    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        """Decodes from the start and yields the wanted frames, found by their pts.

        Raises:
            DataError: the decoder stops early or never gives a frame that its packet promised.
        """
        wanted: NDArray[np.int64] = np.asarray(indices, np.int64)
        if not len(wanted):
            return
        position, pts = 0, self._packets.pts[wanted]
        where = f"stream '{self.stream}', {self.path}"
        with open_container(self.path, stream=self.stream) as container:
            video = find_track(container, self.spec, stream=self.stream, path=self.path)
            # One thread costs the least CPU per frame; parallelism comes from working on several cameras at
            # once.
            video.thread_type = "NONE"
            try:
                for decoded in container.decode(video):
                    at = decoded.pts  # kept: whoever is given the frame may set its pts anew
                    if at is None or at < pts[position]:
                        continue
                    if at > pts[position]:
                        break
                    # A repeated item number asks for the same picture again.
                    while position < len(wanted) and at == pts[position]:
                        yield Frame(int(wanted[position]), decoded=decoded)
                        position += 1
                    if position == len(wanted):
                        return
            except (FFmpegError, OSError) as error:
                raise DataError(
                    f"decoding stopped before frame {wanted[position]} ({error})",
                    where=where,
                    hint="Copy the file again.",
                ) from None
        raise DataError(
            f"frame {wanted[position]} (pts {pts[position]}) does not come out of the decoder",
            where=where,
            hint="The file is damaged there: re-encode it or remove the stream.",
        )

    def files(self) -> Iterable[tuple[str, int]]:
        """The container's name and size."""
        yield file_identity(self.path)
