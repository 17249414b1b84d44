"""Camera sources made of video tracks: timestamps from packets, frames from one sequential decoding pass.

The reader never seeks. In some files, every decoder returns the right timestamp with wrong pixels after a seek to a
keyframe, without an error. A pass from the start always returns the right pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

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
    """The frames of one video track.

    Attributes:
        path: path of the container.
        spec: track specification, as 'v:0'.
        stream: name of the stream, for messages.
        start_ns: timestamp of media time zero on the stream's clock.
        frame_timestamps: timestamps of the frames in presentation order, from a separate file; None for
            pts + start_ns.
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
        """Returns the timestamps of all frames in presentation order.

        Raises:
            DataError: the track cannot be read, or the numbers of frames and of separate timestamps differ.
        """
        packets = self._packets
        if self.frame_timestamps is not None:
            if len(self.frame_timestamps) != len(packets.pts):
                raise DataError(
                    f"{len(packets.pts)} frames but {len(self.frame_timestamps)} timestamps",
                    where=f"stream '{self.stream}', {self.path}",
                    hint="Write one row per frame into the timestamp file, in presentation order.",
                )
            return self.frame_timestamps
        t_ns = pts_to_ns(packets.pts, packets.time_base, self.start_ns)
        tick_ns = packets.time_base * 10**9
        return Timestamps(
            t_ns, resolution_ns=max(1, -(-tick_ns.numerator // tick_ns.denominator)), origin="pts"
        )

    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        """Decodes the track from its start and yields the requested frames, identified by their pts.

        Args:
            indices: frame indices in presentation order, ascending; a repeated index yields its frame again.

        Raises:
            DataError: decoding fails, or the decoder does not return a frame for which there is a packet.
        """
        requested: NDArray[np.int64] = np.asarray(indices, np.int64)
        if not len(requested):
            return
        next_index, pts = 0, self._packets.pts[requested]
        where = f"stream '{self.stream}', {self.path}"
        with open_container(self.path, stream=self.stream) as container:
            video = find_track(container, self.spec, stream=self.stream, path=self.path)
            # One thread needs the least CPU time per frame. Parallelism comes from decoding several cameras at once.
            video.thread_type = "NONE"
            try:
                for decoded in container.decode(video):
                    frame_pts = (
                        decoded.pts
                    )  # The caller may overwrite the pts of a yielded frame, so it is copied.
                    if frame_pts is None or frame_pts < pts[next_index]:
                        continue
                    if frame_pts > pts[next_index]:
                        break
                    while next_index < len(requested) and frame_pts == pts[next_index]:
                        yield Frame(int(requested[next_index]), decoded=decoded)
                        next_index += 1
                    if next_index == len(requested):
                        return
            except (FFmpegError, OSError) as error:
                raise DataError(
                    f"decoding stopped before frame {requested[next_index]} ({error})",
                    where=where,
                    hint="Copy the file again.",
                ) from None
        raise DataError(
            f"the decoder does not return frame {requested[next_index]} (pts {pts[next_index]})",
            where=where,
            hint="The file is damaged there: re-encode it or remove the stream.",
        )

    def files(self) -> Iterable[tuple[str, int]]:
        """Yields the container's name and size in bytes."""
        yield file_identity(self.path)

    def identity(self) -> dict[str, Any]:
        """Returns the values that determine the content, as in :meth:`mmpack.recording.FrameSource.identity`."""
        return {
            "source": "video track",
            "path": self.path,
            "track": self.spec,
            "start_ns": self.start_ns,
            "times": None if self.frame_timestamps is None else self.frame_timestamps.identity(),
        }
