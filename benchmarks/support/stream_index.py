"""A shard set of mmpack over the tars of benchmarks/support/stream_inputs.py, whose samples have no kind of mmpack."""

from __future__ import annotations

import hashlib
from pathlib import Path

from isal.isal_zlib import crc32

from benchmarks.support.stream_inputs import BenchmarkSamples
from mmpack.layout import StandAloneMetadata, TokenCounts
from mmpack.shards import index, tar
from mmpack.shards.manifest import FORMAT_VERSION, Manifest, write_manifest
from mmpack.storage.local import LocalStore


def write_shard_set(samples: BenchmarkSamples, folder: Path) -> None:
    """Writes links to the tars, their index and a manifest to `folder`.

    Each sample counts as one token, because the sample stream does not use token counts.
    """
    (folder / "shards").mkdir(parents=True)
    for path in samples.tars:
        (folder / "shards" / path.name).symlink_to(path)
    locations: list[index.TarLocation] = []
    tars = [path.read_bytes() for path in samples.tars]
    for tar_index, members in samples.ranges:
        start = min(offset for _, offset, _ in members) - tar.BLOCK_BYTES
        stop = max(offset + size + (-size % tar.BLOCK_BYTES) for _, offset, size in members)
        data = memoryview(tars[tar_index])[start:stop]
        locations.append(
            index.TarLocation(f"shards/{samples.tars[tar_index].name}", start, stop - start, crc32(data))
        )
    entries = [
        index.IndexEntry(
            key=f"{samples.kind}-{id_:08d}",
            kind="text",
            recording=samples.kind,
            ordinal=id_,
            run=id_,
            t_ns=0,
            residual_ns=0,
            metadata=StandAloneMetadata(""),
            text_bytes=0,
        )
        for id_ in range(len(locations))
    ]
    data = index.encode_parquet(
        index.build_index_table(entries, locations, [TokenCounts(text=1)] * len(entries))
    )
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
            samples=len(entries),
            tokens=len(entries),
            slices=0,
            quarantined=0,
            tokens_by_modality={},
            shards=[],
            recordings=[],
            numeric={},
            files={index.INDEX_NAME: hashlib.sha256(data).hexdigest()},
        ),
    )
