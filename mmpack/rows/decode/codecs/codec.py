"""The interface of an audio codec."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class AudioCodec(Protocol):
    """An audio codec: audio samples to codes. Several threads may use one codec at once."""

    def encode(self, samples: NDArray[np.float32], rate_hz: int) -> NDArray[np.int64]:
        """Encodes audio: int64 (frames, codebooks), with as many frames as `AudioLayout.num_frames` says.

        Args:
            samples: float32 (n,), mono samples in [-1, 1].
            rate_hz: sampling rate of `samples`.
        """
        ...
