"""Trying a failed read again, as long as that may help."""

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

# A generator of its own: the training's seeded one must not depend on how often a read failed.
_random = random.Random()


def retry(read: Callable[[], T], *, retries: int, stop: threading.Event) -> T:
    """What `read` returns, called again up to `retries` times while it raises StorageError.

    Between the calls it waits twice as long each time, less up to half of it at random, so that ranks that
    were refused together do not come back together.

    Args:
        read: the read.
        retries: calls after the first.
        stop: when set, there is no further wait and no further call.

    Raises:
        LastingStorageError: at once, since the same would come again.
        StorageError: of the last call.
    """
    for tries in range(retries):
        try:
            return read()
        except PermanentStorageError:
            raise
        except StorageError:
            wait_s = min(INITIAL_BACKOFF_S * 2**tries, MAX_BACKOFF_S) * _random.uniform(0.5, 1.0)
            if stop.wait(wait_s):
                raise
    return read()
