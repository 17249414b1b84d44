"""Rows of tars without an index: the samples that are read, and the samples that are recorded as unreadable."""

from __future__ import annotations

import gc
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import webdataset

from mmpack import ShardSet
from mmpack.errors import ConfigError, DataError, QuarantineError
from mmpack.layout import Layout, Modality
from mmpack.masks import check_spans
from mmpack.plan.plan_config import ReaderConfig
from mmpack.stream.tars import pack_rows
from tests.fetch.flaky_store import Proxy, run_proxy, run_s3_server, upload
from tests.rows.row_checks import check_row_arrays
from tests.stream.tar_files import (
    CAPACITY,
    LAYOUT,
    assert_same_rows,
    audio_clip,
    broken_jpeg,
    jpeg,
    open_tar_stream,
    png,
    read_recorded_reasons,
    read_tar_rows,
    sample_keys,
    tar_bytes,
    text,
    texts,
    write_tar,
)

pytestmark = pytest.mark.timeout(120)


def test_every_kind_of_sample_becomes_a_document(tmp_path: Path) -> None:
    members = [
        ("a.txt", text(20)),
        ("b.jpg", jpeg(1)),
        ("b.txt", text(5)),
        ("c.jpeg", jpeg(2)),
        ("d.png", png(3)),
        ("d.txt", text(4)),
        ("e.flac", audio_clip(4, "FLAC")),
        ("f.txt", text(3)),
        ("f.wav", audio_clip(5)),
        ("g.ogg", audio_clip(6, "OGG")),
    ]
    quarantine = tmp_path / "q.jsonl"
    rows = read_tar_rows([write_tar(tmp_path / "a.tar", members)], quarantine)
    assert sorted(sample_keys(rows)) == list("abcdefg")
    assert not quarantine.exists()
    for row in rows:
        check_row_arrays(row, Layout(LAYOUT))
        check_spans(row.cu_seqlens, CAPACITY)
    assert sum(len(row.image_spans) for row in rows) == 3
    assert sum(len(row.t_ns) for row in rows) == 0


def test_tars_of_webdataset_give_the_same_keys_and_texts(tmp_path: Path) -> None:
    with webdataset.ShardWriter(str(tmp_path / "s-%03d.tar"), maxcount=7, verbose=0) as writer:
        for index in range(20):
            writer.write(
                {
                    "__key__": f"folder.v1/{index:05d}",
                    "txt": f"text {index}",
                    "jpg": jpeg(index),
                    "cls": index,
                }
            )
    urls = str(tmp_path / "s-{000..002}.tar")
    expected = [
        (sample["__key__"], sample["txt"])
        for sample in webdataset.WebDataset(urls, shardshuffle=False).decode()
    ]
    tokenizer = Layout(LAYOUT).tokenizer
    samples = []
    for row in read_tar_rows(urls, tmp_path / "q.jsonl"):
        for document, keys in enumerate(row.keys):
            ids = row.input_ids[(row.document_ids == document) & (row.modality == Modality.TEXT)]
            samples.append((keys[0], tokenizer.decode(ids)))
    assert sorted(samples) == sorted(expected)
    assert len(samples) == 20


def test_stand_alone_samples_of_mmpack_are_read_and_slices_are_an_error(
    tmp_path: Path, mixed_shards: ShardSet, caplog: pytest.LogCaptureFixture
) -> None:
    index = mixed_shards.index.select(["key", "kind", "shard"]).to_pylist()
    slice_shards = {row["shard"] for row in index if row["kind"] == "slice"}
    other_shards = {row["shard"] for row in index} - slice_shards
    url = mixed_shards.store.url
    settings: dict[str, Any] = {"max_seq_len": 1024}
    rows = read_tar_rows([f"{url}/{name}" for name in sorted(other_shards)], tmp_path / "q.jsonl", **settings)
    assert sorted(sample_keys(rows)) == sorted(row["key"] for row in index if row["shard"] in other_shards)
    assert not caplog.records
    with (
        open_tar_stream([f"{url}/{min(slice_shards)}"], tmp_path / "q.jsonl", **settings) as stream,
        pytest.raises(ConfigError, match=r"time slice.*Stream the shard set through its index"),
    ):
        next(stream)


def test_unknown_members_are_ignored_with_one_warning_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    members = []
    for index in range(5):
        members += [
            (f"{index}.CLS", b"3"),
            (f"{index}.JSON", b'{"version": "1.0"}'),
            (f"{index}.seg.png", png()),
            (f"{index}.txt", text(9)),
        ]
    members += [("README", b"about"), ("._0.txt", b"of a Mac")]
    with caplog.at_level(logging.WARNING):
        rows = read_tar_rows([write_tar(tmp_path / "a.tar", members)], tmp_path / "q.jsonl")
    assert sorted(sample_keys(rows)) == list("01234")
    warnings = [record.getMessage() for record in caplog.records]
    assert [message.split(" are ignored")[0] for message in warnings] == [
        "members '.cls'",
        "members '.seg.png'",
        "members '.json'",
        "members without an extension",
    ]
    assert "'0' in" in warnings[0]


def test_invalid_samples_are_recorded_by_key_and_skipped(tmp_path: Path) -> None:
    members = [
        ("good-1.txt", text(9)),
        ("long.txt", text(CAPACITY + 1)),
        ("header.jpg", b"\xff\xd8 no image"),
        ("pixels.jpg", broken_jpeg()),
        ("pixels.txt", text(4)),
        ("latin.txt", b"caf\xe9"),
        ("two.jpg", jpeg()),
        ("two.jpeg", jpeg()),
        ("both.jpg", jpeg()),
        ("both.wav", audio_clip()),
        ("video.mp4", b"video"),
        ("empty.txt", b""),
        ("good-1.jpg", jpeg()),
        ("good-2.txt", text(9)),
    ]
    quarantine = tmp_path / "q.jsonl"
    rows = read_tar_rows([write_tar(tmp_path / "a.tar", members)], quarantine)
    assert sorted(sample_keys(rows)) == ["good-1", "good-2"]
    reasons = {record.key: record.reason for record in read_recorded_reasons(quarantine)}
    assert "do not fit a row of 128. Raise max_seq_len" in reasons.pop("long")
    assert "the image: is not a JPG image" in reasons.pop("header")
    assert "cannot be decoded as JPEG" in reasons.pop("pixels")
    assert "not UTF-8" in reasons.pop("latin")
    assert "two members '.jpg'" in reasons.pop("two")
    assert "2 media members" in reasons.pop("both")
    assert "contains no text, image or audio" in reasons.pop("video")
    assert "contains no text, image or audio" in reasons.pop("empty")
    assert "not adjacent in the tar" in reasons.pop("good-1")
    assert reasons == {}
    [document] = [index for row in rows for index, keys in enumerate(row.keys) if keys == ("pixels",)]
    assert not rows[0].document_valid[document], "an undecodable sample keeps its positions"


def test_damaged_and_missing_tars_are_skipped(tmp_path: Path) -> None:
    intact = write_tar(tmp_path / "intact.tar", texts("intact-", [20] * 10))
    cut = tmp_path / "cut.tar"
    cut.write_bytes(tar_bytes(texts("cut-", [20] * 10))[: 512 * 2 * 6 + 700])
    noise = tmp_path / "noise.tar"
    noise.write_bytes(b"no tar at all" * 1000)
    gz = write_tar(tmp_path / "cut.tar.gz", texts("gz-", range(1, 99)))
    gz.write_bytes(gz.read_bytes()[:-200])
    last = write_tar(tmp_path / "last.tar", texts("last-", [20] * 10))
    quarantine = tmp_path / "q.jsonl"
    urls = [noise, intact, cut, tmp_path / "none.tar", gz, last, tmp_path / "none-2.tar"]
    counts = Counter(key.partition("-")[0] for key in sample_keys(read_tar_rows(urls, quarantine)))
    assert counts["intact"] == counts["last"] == 10
    # The sample at the cut may lack members after the cut, so it is skipped with the rest.
    assert counts["cut"] == 6
    records = {record.shard: record for record in read_recorded_reasons(quarantine)}
    assert set(records) == {"noise.tar", "cut.tar", "none.tar", "cut.tar.gz", "none-2.tar"}
    assert records["cut.tar"].key == "from sample 6 on"
    assert "cut short" in records["cut.tar"].reason
    assert "not a tar" in records["noise.tar"].reason
    assert "gzip data is cut short" in records["cut.tar.gz"].reason
    assert "No such file" in records["none.tar"].reason


def test_too_many_unreadable_samples_stop_the_run_and_the_state_is_before_them(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.tar" for index in range(12)]
    for path in (paths[0], paths[-1]):
        write_tar(path, texts(path.stem, [100] * 4))
    quarantine = tmp_path / "q.jsonl"
    with open_tar_stream(paths, quarantine, max_corrupt=5, pool=2) as stream:
        read = [next(stream) for _ in range(3)]
        for count in (6, 7):  # iterating again meets the last one again
            with pytest.raises(QuarantineError, match=f"{count} samples cannot be read"):
                next(stream)
        state = stream.state_dict()
    with open_tar_stream(paths, tmp_path / "other.jsonl", max_corrupt=99, pool=2) as stream:
        stream.load_state_dict(state)
        read += stream
    assert sorted(sample_keys(read)) == sorted(f"{tar}{index:04d}" for tar in (0, 11) for index in range(4))


def test_tars_without_samples_end_an_endless_run(tmp_path: Path) -> None:
    empty = write_tar(tmp_path / "a.tar", [("a.mp4", b"")])
    (tmp_path / "b.tar").write_bytes(bytes(1024))
    with (
        open_tar_stream([empty, tmp_path / "b.tar"], tmp_path / "q.jsonl", epochs=None) as stream,
        pytest.raises(DataError, match="no tar contains a readable sample"),
    ):
        next(stream)
    assert [record.key for record in read_recorded_reasons(tmp_path / "q.jsonl")] == ["a"]


def test_epochs_repeat_and_none_is_endless(tmp_path: Path) -> None:
    tars = [write_tar(tmp_path / f"{name}.tar", texts(name, range(5, 25))) for name in "ab"]
    counts = Counter(sample_keys(read_tar_rows(tars, tmp_path / "q.jsonl", epochs=3)))
    assert len(counts) == 40
    assert set(counts.values()) == {3}
    with open_tar_stream(tars, tmp_path / "q.jsonl", epochs=None, pool=4) as stream:
        for _ in range(60):
            row = next(stream)
        assert row.number == 59
        assert stream.state_dict()["cursor"][0] > 8


def test_ranks_share_the_tars(tmp_path: Path) -> None:
    for index in range(5):
        write_tar(tmp_path / f"{index}.tar", texts(f"{index}-", [30] * 10))
    rows = [read_tar_rows(f"{tmp_path}/*.tar", tmp_path / "q.jsonl", rank=rank, ranks=2) for rank in range(2)]
    assert {key[0] for key in sample_keys(rows[0])} == {"0", "2", "4"}
    assert {key[0] for key in sample_keys(rows[1])} == {"1", "3"}
    assert [row.number for row in rows[1]] == list(range(1, 2 * len(rows[1]), 2))
    assert len(list(sample_keys(rows[0] + rows[1]))) == 50


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ranks": 3}, "1 tars cannot be read by rank 0 of 3 ranks"),
        ({"rank": -1}, "rank -1"),
        ({"epochs": 0}, "epochs: 0 is not"),
        ({"max_seq_len": 7}, "max_seq_len: 7 is not"),
        ({"pool": 0}, "pool: 0 is not"),
        ({"reader": ReaderConfig(workers=2)}, "reader.workers: .* reads in threads"),
        ({"reader": ReaderConfig(cache="cache")}, "reader.cache: .* nothing on disk"),
    ],
)
def test_invalid_settings_are_an_error(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_tar_stream([tmp_path / "a.tar"], tmp_path / "q.jsonl", **settings)


def test_an_unknown_url_scheme_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a path or object store URL"):
        open_tar_stream("https://example.org/a.tar", tmp_path / "q.jsonl")


def test_the_size_of_waiting_samples_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # JPEG decoders ignore bytes after the end marker.
    padded = [(f"{index:03d}.jpg", jpeg(index) + bytes(30_000)) for index in range(60)]
    captions = [(f"{index:03d}.txt", text(index * 7 % 40)) for index in range(60)]
    members = [member for sample in zip(padded, captions, strict=True) for member in sample]
    tar = write_tar(tmp_path / "a.tar", members)
    monkeypatch.setattr(pack_rows, "POOL_BYTES", 400_000)
    with open_tar_stream([tar], tmp_path / "q.jsonl", max_seq_len=64) as stream:
        rows = [next(stream)]
        state = stream.state_dict()
        assert len(state["waiting"]) + len(rows[0].keys) == 13
        rows += stream
    assert sorted(sample_keys(rows)) == [f"{index:03d}" for index in range(60)]
    with open_tar_stream([tar], tmp_path / "q.jsonl", max_seq_len=64) as stream:
        stream.load_state_dict(state)
        assert_same_rows(stream, rows[1:])


def test_the_threads_of_an_abandoned_stream_end(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", texts("a", [50] * 200))
    before = set(threading.enumerate())
    stream = open_tar_stream([tar], tmp_path / "q.jsonl", epochs=None)
    next(stream)
    stream_threads = set(threading.enumerate()) - before
    assert stream_threads
    del stream
    gc.collect()
    for thread in stream_threads:
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, tuple[str, int]]]:
    """A folder of three tars of images, and the address of a server that holds them as s3://shards/foreign."""
    folder = tmp_path_factory.mktemp("s3")
    for tar in range(3):
        images = [(f"{tar}-{index:03d}.png", png(index, (200, 300))) for index in range(16)]
        write_tar(folder / f"{tar}.tar{'.gz' * (tar == 1)}", images)
    with run_s3_server() as (client, address):
        upload(client, folder, "foreign")
        yield folder, address


@pytest.fixture
def proxy(s3: tuple[Path, tuple[str, int]]) -> Iterator[Proxy]:
    with run_proxy(s3[1]) as proxy:
        yield proxy


def test_tars_in_an_object_store_over_an_unreliable_network(
    tmp_path: Path, s3: tuple[Path, tuple[str, int]], proxy: Proxy
) -> None:
    names = ["0.tar", "1.tar.gz", "2.tar", "3.tar"]
    expected = read_tar_rows([s3[0] / name for name in names], tmp_path / "local.jsonl", pool=4)
    proxy.fail_every = 3
    urls = [f"s3://shards/foreign/{name}" for name in names]
    with open_tar_stream(urls, tmp_path / "q.jsonl", pool=4) as stream:
        rows = [next(stream) for _ in range(4)]
        state = stream.state_dict()
    with open_tar_stream(urls, tmp_path / "q.jsonl", pool=4) as stream:
        stream.load_state_dict(state)
        rows += stream
    assert_same_rows(rows, expected)
    assert proxy.num_failed > 0
    assert [record.shard for record in read_recorded_reasons(tmp_path / "q.jsonl")] == ["3.tar"]


def test_member_names_with_parent_folders_write_no_file(tmp_path: Path) -> None:
    inside = tmp_path / "in" / "side"
    inside.mkdir(parents=True)
    members = [
        ("../../evil.txt", text(5)),
        ("/evil.txt", text(5)),
        ("../q.txt", b"\xff"),
        ("a\n\x1b.txt", text(5)),
    ]
    write_tar(inside / "a.tar", members)
    rows = read_tar_rows([inside / "a.tar"], inside / "q.jsonl")
    assert sorted(sample_keys(rows)) == sorted(["../../evil", "/evil", "a\n\x1b"])
    assert [record.key for record in read_recorded_reasons(inside / "q.jsonl")] == ["../q"]
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"a.tar", "q.jsonl"}
    assert not Path("/evil.txt").exists()


def test_an_unreadable_sample_is_recorded_with_the_next_row(tmp_path: Path) -> None:
    lengths = [100, 100, 300, 100, 100]
    tar = write_tar(tmp_path / "a.tar", texts("a", lengths))
    with open_tar_stream([tar], tmp_path / "q.jsonl", pool=1) as stream:
        for row in stream:
            assert len(read_recorded_reasons(tmp_path / "q.jsonl")) == (row.number >= 2)
    [record] = read_recorded_reasons(tmp_path / "q.jsonl")
    assert (record.row, record.key, record.shard) == (2, "a0002", "a.tar")
