"""Names and order of the special tokens and placeholder tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mmpack.errors import ConfigError

PAD = "<|pad|>"
"""Padding at the end of a row; never attended to and never predicted."""
BOS = "<|bos|>"
"""Start of a document."""
EOS = "<|eos|>"
"""End of a document."""
VIDEO_START = "<|video_start|>"
"""Start of a run of slices."""
VIDEO_END = "<|video_end|>"
"""End of a run of slices."""
IMAGE_START = "<|image_start|>"
"""Start of a stand-alone image."""
IMAGE_END = "<|image_end|>"
"""End of a stand-alone image."""
AUDIO_START = "<|audio_start|>"
"""Start of audio."""
AUDIO_END = "<|audio_end|>"
"""End of audio."""
TEXT_START = "<|text_start|>"
"""Start of each text of a slice; separates consecutive texts."""
CLS = "<|cls|>"
"""Position at which the contrastive loss reads a document. Samples do not contain it; the builder of a pair adds it."""

FIXED_TOKENS = (
    PAD,
    BOS,
    EOS,
    VIDEO_START,
    VIDEO_END,
    IMAGE_START,
    IMAGE_END,
    AUDIO_START,
    AUDIO_END,
    TEXT_START,
    CLS,
)
"""Special tokens of every layout, in the order of their ids."""

PATCH = "<|patch|>"
"""Placeholder token for merged patches of an image."""
VALUE = "<|value|>"
"""Placeholder token for one table row of a continuous observation."""
ACTION_VALUE = "<|action_value|>"
"""Placeholder token for one table row of a continuous action."""

PLACEHOLDER_TOKENS = (PATCH, VALUE, ACTION_VALUE)
"""Placeholder tokens, for values outside the vocabulary. Their ids follow the ids of the special tokens."""

_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,64}")


def stream_token(name: str) -> str:
    """Returns the name of the token that introduces the camera or numeric stream `name`."""
    return f"<|{name}|>"


def list_special_tokens(
    cameras: Sequence[str], numeric: Sequence[str], times: Sequence[str]
) -> tuple[str, ...]:
    """Lists all special tokens in the order of their ids: fixed tokens, cameras, numeric streams, time tokens.

    Args:
        cameras: names of the cameras.
        numeric: names of the numeric streams.
        times: names of the time tokens.

    Raises:
        ConfigError: the name of a stream has characters that are not allowed in a token, or two tokens have one name.
    """
    used = {*FIXED_TOKENS, *PLACEHOLDER_TOKENS, *times}
    streams = []
    for key, names in (("layout.cameras", cameras), ("layout.numeric", numeric)):
        for name in names:
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    f"{name!r} is not a valid name of a token",
                    where=key,
                    hint="Use up to 64 letters, digits, '_', '.', '+', '-'.",
                )
            token = stream_token(name)
            if token in used:
                raise ConfigError(f"the token {token} exists already", where=key, hint="Rename the stream.")
            used.add(token)
            streams.append(token)
    return (*FIXED_TOKENS, *streams, *times)
