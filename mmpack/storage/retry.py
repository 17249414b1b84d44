"""Retries of failed reads, with exponential back-off."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import TypeVar

from mmpack.errors import StorageError
from mmpack.storage.store import PermanentStorageError

T = TypeVar("T")

INITIAL_BACKOFF_S = 0.05
MAX_BACKOFF_S = 5.0

# A separate generator, so that the seeded generator of the training does not depend on failed reads.
_random = random.Random()


def retry(read: Callable[[], T], *, retries: int, stop: threading.Event) -> T:
    """Calls `read` until it succeeds and returns its result.

    The wait doubles from call to call, up to `MAX_BACKOFF_S`, and is shortened by a random part of up to a half, so
    that ranks that failed at the same time do not retry at the same time.

    Args:
        read: the read, which raises StorageError if it fails.
        retries: largest number of calls after the first.
        stop: event that ends the waiting; afterwards there is no further call.

    Raises:
        PermanentStorageError: at once, because another call would raise it again.
        StorageError: the error of the last call.
    """
    for attempt in range(retries):
        try:
            return read()
        except PermanentStorageError:
            raise
        except StorageError:
            wait_s = min(INITIAL_BACKOFF_S * 2**attempt, MAX_BACKOFF_S) * _random.uniform(0.5, 1.0)
            if stop.wait(wait_s):
                raise
    return read()
