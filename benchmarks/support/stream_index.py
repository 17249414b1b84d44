"""mmpack's index over the tars of benchmarks/support/stream_inputs.py: a finished build of samples that are of no kind."""

from __future__ import annotations

import hashlib
from pathlib import Path

from isal.isal_zlib import crc32

from benchmarks.support.stream_inputs import BenchmarkSamples
from mmpack.layout import TextMetadata, TokenCounts
from mmpack.shards import index, tar
from mmpack.shards.manifest import FORMAT_VERSION, Manifest, write_manifest
from mmpack.storage.local import LocalStore


def write_build(samples: BenchmarkSamples, folder: Path) -> None:
    """Links to the tars, their index and manifest in `folder`. Each sample counts as one token: nothing here asks."""
    (folder / "shards").mkdir(parents=True)
    for path in samples.tars:
        (folder / "shards" / path.name).symlink_to(path)
    places: list[index.TarLocation] = []
    tars = [path.read_bytes() for path in samples.tars]
    for number, members in samples.ranges:
        start = min(offset for _, offset, _ in members) - tar.BLOCK_BYTES
        stop = max(offset + size + (-size % tar.BLOCK_BYTES) for _, offset, size in members)
        data = memoryview(tars[number])[start:stop]
        places.append(
            index.TarLocation(f"shards/{samples.tars[number].name}", start, stop - start, crc32(data))
        )
    rows = [
        index.IndexEntry(
            f"{samples.kind}-{number:08d}", "text", samples.kind, number, number, 0, 0, TextMetadata(""), 0
        )
        for number in range(len(places))
    ]
    data = index.encode_parquet(index.build_index_table(rows, places, [TokenCounts(text=1)] * len(rows)))
    store = LocalStore(folder)
    store.write(index.INDEX_NAME, data)
    write_manifest(
        store,
        Manifest(
            format=FORMAT_VERSION,
            mmpack="benchmark",
            config={},
            layout_fingerprint="",
            vocabulary_size=0,
            samples=len(rows),
            tokens=len(rows),
            slices=0,
            quarantined=0,
            tokens_by_modality={},
            shards=[],
            recordings=[],
            numeric={},
            files={index.INDEX_NAME: hashlib.sha256(data).hexdigest()},
        ),
    )
