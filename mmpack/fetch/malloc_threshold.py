"""Memory reuse: keeps freed memory in the process, so that the next sample does not wait for new pages."""

from __future__ import annotations

import numpy as np

# glibc returns freed blocks above a threshold to the system and gets them back page by page for the next sample.
# The system clears each page, which takes longer than reading the sample. The threshold follows the largest block
# that was ever freed, up to 32 MB; this size is just below. Other C libraries are not affected.
_BLOCK_BYTES = (32 << 20) - (64 << 10)


def raise_malloc_threshold() -> None:
    """Raises the malloc threshold by allocating and freeing a large block.

    The block is never written to, so it takes no physical memory.
    """
    np.empty(_BLOCK_BYTES, np.uint8)
