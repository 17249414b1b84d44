"""Memory that samples leave is kept for the next ones."""

from __future__ import annotations

import numpy as np

# The C library (glibc) gives freed memory back to the system above a threshold, and gets it again page by page for the
# next sample, each page cleared: that takes longer than reading the sample. The threshold follows the largest block that
# was ever freed, up to 32 MB; this is just below. Elsewhere it does nothing.
_BLOCK_BYTES = (32 << 20) - (64 << 10)


def raise_malloc_threshold() -> None:
    """Raises the threshold. Not a byte of the block is touched, so none of it is ever there."""
    np.empty(_BLOCK_BYTES, np.uint8)
