"""Where shards live: a local folder or an object store, with the same few operations and the same promise.

What has its final name is whole: local files are written aside, fsynced and renamed; objects appear when
their upload is complete.
"""

from __future__ import annotations
