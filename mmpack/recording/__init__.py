"""Recordings: named streams with timestamps and lazily read media, whatever the input format."""

from __future__ import annotations

from mmpack.recording.formats import READERS, Reader, open_recordings
from mmpack.recording.model import (
    TABLE_KINDS,
    AudioSource,
    AudioTimeline,
    Frame,
    FrameSource,
    Recording,
    Stamps,
    Stream,
    TableSource,
    TextSource,
)

__all__ = [
    "READERS",
    "TABLE_KINDS",
    "AudioSource",
    "AudioTimeline",
    "Frame",
    "FrameSource",
    "Reader",
    "Recording",
    "Stamps",
    "Stream",
    "TableSource",
    "TextSource",
    "open_recordings",
]
