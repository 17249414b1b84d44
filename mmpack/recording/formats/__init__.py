"""Input formats: one file per format, each reads a path as recordings. The registry lists them."""

from mmpack.lazy import make_dir
from mmpack.recording.formats.input_format import InputFormat
from mmpack.recording.formats.registry import FORMATS, open_recordings

__all__ = ["FORMATS", "InputFormat", "open_recordings"]

__dir__ = make_dir(__all__)
