"""Audio codecs: one file per codec. The registry lists them."""

from mmpack.lazy import make_dir
from mmpack.rows.decode.codecs.codec import AudioCodec
from mmpack.rows.decode.codecs.registry import CODECS, CodecOpener, open_codec

__all__ = ["CODECS", "AudioCodec", "CodecOpener", "open_codec"]

__dir__ = make_dir(__all__)
