"""The special tokens: what each is called, and in which order they have their ids."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mmpack.errors import ConfigError

PAD = "<|pad|>"
"""Fills a row's end; never attended to and never predicted."""
BOS = "<|bos|>"
"""Opens a document."""
EOS = "<|eos|>"
"""Closes a document."""
VIDEO_START = "<|video_start|>"
"""Opens a run of slices."""
VIDEO_END = "<|video_end|>"
"""Closes a run of slices."""
IMAGE_START = "<|image_start|>"
"""Opens a stand-alone picture."""
IMAGE_END = "<|image_end|>"
"""Closes a stand-alone picture."""
AUDIO_START = "<|audio_start|>"
"""Opens a stretch of sound."""
AUDIO_END = "<|audio_end|>"
"""Closes a stretch of sound."""
TEXT_START = "<|text_start|>"
"""Opens each text of a slice, so that two texts side by side stay two."""
CLS = "<|cls|>"
"""The place a contrastive document is read at. No sample holds one: whoever builds the pair adds it."""

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
"""The specials every layout has, in the order of their ids."""

PATCH = "<|patch|>"
"""A place that a picture's merged patches go to."""
VALUE = "<|value|>"
"""A place that one row of a continuous observation goes to."""
ACTION_VALUE = "<|action_value|>"
"""A place that one row of a continuous action goes to."""

PLACEHOLDER_TOKENS = (PATCH, VALUE, ACTION_VALUE)
"""Tokens that hold a place for values outside the vocabulary. Their ids follow those of the specials."""

_NAME = re.compile(r"[A-Za-z0-9_.+-]{1,64}")


def stream_token(name: str) -> str:
    """The token that introduces the camera or numeric stream `name`."""
    return f"<|{name}|>"


def special_tokens(cameras: Sequence[str], numeric: Sequence[str], times: Sequence[str]) -> tuple[str, ...]:
    """All specials in the order of their ids: fixed ones, cameras, numeric streams, time tokens.

    Raises:
        ConfigError: a stream's name has characters that no token may have, or two tokens would be the same.
    """
    taken = {*FIXED_TOKENS, *PLACEHOLDER_TOKENS, *times}
    streams = []
    for key, names in (("layout.cameras", cameras), ("layout.numeric", numeric)):
        for name in names:
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    f"{name!r} cannot name a token",
                    where=key,
                    hint="Use up to 64 letters, digits, '_', '.', '+', '-'.",
                )
            token = stream_token(name)
            if token in taken:
                raise ConfigError(f"the token {token} is taken", where=key, hint="Rename the stream.")
            taken.add(token)
            streams.append(token)
    return (*FIXED_TOKENS, *streams, *times)
