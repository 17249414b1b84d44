"""Reader of single media files: a video track is a camera, an audio track a microphone, a subtitle track a text.

All tracks of a container share its media clock, so no recording.toml is needed.
"""

from __future__ import annotations

from pathlib import Path

from mmpack.clock import Clock
from mmpack.errors import DataError
from mmpack.recording.files import require_file, sanitise_name
from mmpack.recording.formats.input_format import InputFormat
from mmpack.recording.model import Recording, Stream
from mmpack.recording.sources.audio import AudioTrack
from mmpack.recording.sources.container import list_tracks
from mmpack.recording.sources.subtitles import SubtitleTrack
from mmpack.recording.sources.video import VideoTrack

MEDIA_SUFFIXES = {".mp4", ".mkv", ".mov", ".m4v", ".webm", ".avi", ".ts"}
_TEXT_CODECS = {"mov_text", "subrip", "srt", "webvtt", "ass", "ssa", "text"}


def open_media_file(path: Path) -> Recording:
    """Opens a media file as a recording.

    Raises:
        DataError: the file cannot be opened or has neither a video nor an audio track.
    """
    require_file(path, stream=path.name)
    clock = Clock("media", "media")
    streams: dict[str, Stream] = {}
    for spec, codec in list_tracks(path):
        letter, index = spec.split(":")
        if letter == "v":
            name = f"video_{index}"
            streams[name] = Stream(name, "camera", clock, VideoTrack(path, spec, name))
        elif letter == "a":
            name = f"audio_{index}"
            streams[name] = Stream(name, "audio", clock, AudioTrack(path, spec, name))
        elif codec in _TEXT_CODECS:
            name = f"text_{index}"
            streams[name] = Stream(name, "text", clock, SubtitleTrack(path, spec, name))
    if not any(stream.kind in ("camera", "audio") for stream in streams.values()):
        raise DataError("the file has neither a video nor an audio track", where=str(path))
    return Recording(sanitise_name(path.stem), streams, path=str(path))


MEDIA_FILE = InputFormat(
    "media file", lambda path: path.suffix.lower() in MEDIA_SUFFIXES, lambda path, _: [open_media_file(path)]
)
