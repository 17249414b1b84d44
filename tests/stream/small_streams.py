"""A small row stream over the shard set of the fixture `mixed_shards`, with every kind of document and pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmpack import ShardSet
from mmpack.stream import RowStream

_PLAN = """
max_seq_len = 512
global_batch = 8
window_steps = 2
seed = 3

[rows]
audio_frames = true

[reader]
threads = 2
prefetch = 4

[[datasets]]
name = "drive"
shards = "{shards}"
select = ["drive*"]

[[datasets]]
name = "texts"
shards = "{shards}"
select = ["texts"]

[[datasets]]
name = "pairs"
shards = "{shards}"
select = ["captions", "speech"]
contrastive = true

[[phases]]
name = "all"
tokens = 20_000
temperature = 2.0
"""


def open_small_stream(shards: ShardSet, folder: Path, **settings: Any) -> RowStream:
    """Opens a stream of about forty rows. `settings` are keyword arguments of :meth:`RowStream.open`."""
    path = folder / "plan.toml"
    path.write_text(_PLAN.format(shards=shards.store.url))
    return RowStream.open(path, **settings)
