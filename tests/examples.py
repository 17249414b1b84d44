"""Numbers of hypothesis examples: a part of them in `make test`, all of them in `make test-slow`."""

from __future__ import annotations

import os

#: `all` runs every example; `make test-slow` and so CI set it.
VARIABLE = "MMPACK_EXAMPLES"
ALL = os.environ.get(VARIABLE) == "all"
_QUICK_SHARE = 5
_MIN_QUICK = 5


def examples(count: int) -> int:
    """Returns `count`, or a fifth of it (at least 5) in a quick run."""
    return count if ALL else min(count, max(count // _QUICK_SHARE, _MIN_QUICK))
