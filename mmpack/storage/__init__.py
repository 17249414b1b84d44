"""Storage: named files in a folder or an object store, each visible only when it is complete. The registry lists the stores."""

from mmpack.lazy import make_dir
from mmpack.storage.registry import STORES, open_store

__all__ = ["STORES", "open_store"]

__dir__ = make_dir(__all__)
