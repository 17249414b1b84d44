"""The registry of audio codecs.

A new codec is one file with a class that implements :class:`AudioCodec` and a function that opens it, and one line in
`CODECS`.
"""

from __future__ import annotations

from collections.abc import Callable

from mmpack.layout import AudioLayout
from mmpack.rows.decode.codecs.codec import AudioCodec
from mmpack.rows.decode.codecs.pcm_frames import PCM_FRAMES, open_pcm_frames
from mmpack.rows.decode.codecs.transformers_codec import open_transformers_codec

CodecOpener = Callable[[AudioLayout, str], AudioCodec]
"""A function that opens the codec of a layout; its second argument is a folder, or an empty string."""

CODECS: dict[str, CodecOpener] = {
    PCM_FRAMES: open_pcm_frames,
    "encodec": open_transformers_codec,
    "mimi": open_transformers_codec,
}
"""Every codec by its name in the layout."""


def open_codec(layout: AudioLayout, folder: str) -> AudioCodec:
    """Opens the codec of a layout.

    Args:
        layout: name and parameters of the codec. A name that is not in :data:`CODECS` stands for a `transformers` model,
            whose type is that of the folder.
        folder: folder of a codec that is not built in (`RowsConfig.codec`), else an empty string.

    Raises:
        ConfigError: the layout and the folder do not match, or the folder has no codec.
        MissingDependencyError: `transformers` or torch is not installed.
    """
    return CODECS.get(layout.codec, open_transformers_codec)(layout, folder)
