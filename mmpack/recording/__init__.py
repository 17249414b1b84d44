"""Recordings: named streams with timestamps and lazily read media, whatever the input format."""

from __future__ import annotations

from mmpack.lazy import make_dir
from mmpack.recording.formats import FORMATS, InputFormat, open_recordings
from mmpack.recording.model import (
    TABLE_KINDS,
    AudioSource,
    AudioTimeline,
    Frame,
    FrameSource,
    Recording,
    Stream,
    TableSource,
    TextSource,
    Timestamps,
)

__all__ = [
    "FORMATS",
    "TABLE_KINDS",
    "AudioSource",
    "AudioTimeline",
    "Frame",
    "FrameSource",
    "InputFormat",
    "Recording",
    "Stream",
    "TableSource",
    "TextSource",
    "Timestamps",
    "open_recordings",
]

__dir__ = make_dir(__all__)
