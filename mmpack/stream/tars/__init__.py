"""Resumable rows from WebDataset tars without an index of mmpack: read and packed in the order of the tars.

`urls` lists the tars, `byte_source` reads their bytes, `members` finds the files in them, `tar_samples` groups files into
samples, `pack_rows` packs samples into rows, and `tar_stream` hands the rows out.
"""

from mmpack.lazy import make_dir
from mmpack.stream.tars.pack_rows import TarState, TarStreamConfig
from mmpack.stream.tars.tar_stream import TarStream
from mmpack.stream.tars.urls import expand_urls

__all__ = ["TarState", "TarStream", "TarStreamConfig", "expand_urls"]

__dir__ = make_dir(__all__)
