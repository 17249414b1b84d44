"""Rows from WebDataset tars that have no index of ours: read in order, packed as they come, resumable.

`urls` says which tars there are, `source` gives their bytes, `members` finds files in them, `samples` makes samples of
these, `flow` packs samples into rows, and `stream` hands them out.
"""

from mmpack.lazy import make_dir
from mmpack.stream.tars.pack_rows import TarState
from mmpack.stream.tars.tar_stream import TarStream
from mmpack.stream.tars.urls import expand_urls

__all__ = ["TarState", "TarStream", "expand_urls"]

__dir__ = make_dir(__all__)
