"""Rows from tars without an index: what is read, and what is recorded."""

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


def test_tars_of_webdataset_give_its_keys_and_texts(tmp_path: Path) -> None:
    with webdataset.ShardWriter(str(tmp_path / "s-%03d.tar"), maxcount=7, verbose=0) as writer:
        for number in range(20):
            writer.write(
                {
                    "__key__": f"folder.v1/{number:05d}",
                    "txt": f"text {number}",
                    "jpg": jpeg(number),
                    "cls": number,
                }
            )
    urls = str(tmp_path / "s-{000..002}.tar")
    theirs = [
        (sample["__key__"], sample["txt"])
        for sample in webdataset.WebDataset(urls, shardshuffle=False).decode()
    ]
    tokenizer = Layout(LAYOUT).tokenizer
    ours = []
    for row in read_tar_rows(urls, tmp_path / "q.jsonl"):
        for number, keys in enumerate(row.keys):
            ids = row.input_ids[(row.document_ids == number) & (row.modality == Modality.TEXT)]
            ours.append((keys[0], tokenizer.decode(ids)))
    assert sorted(ours) == sorted(theirs)
    assert len(ours) == 20


def test_stand_alone_samples_of_mmpack_are_read_and_its_slices_refused(
    tmp_path: Path, mixed_shards: ShardSet, caplog: pytest.LogCaptureFixture
) -> None:
    index = mixed_shards.index.select(["key", "kind", "shard"]).to_pylist()
    of_slices = {row["shard"] for row in index if row["kind"] == "slice"}
    others = {row["shard"] for row in index} - of_slices
    url = mixed_shards.store.url
    settings: dict[str, Any] = {"max_seq_len": 1024}
    rows = read_tar_rows([f"{url}/{name}" for name in sorted(others)], tmp_path / "q.jsonl", **settings)
    assert sorted(sample_keys(rows)) == sorted(row["key"] for row in index if row["shard"] in others)
    assert not caplog.records
    with (
        open_tar_stream([f"{url}/{min(of_slices)}"], tmp_path / "q.jsonl", **settings) as stream,
        pytest.raises(ConfigError, match=r"time slice.*Stream the build by its index"),
    ):
        next(stream)


def test_unknown_members_are_left_aside_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    members = []
    for number in range(5):
        members += [
            (f"{number}.CLS", b"3"),
            (f"{number}.JSON", b'{"version": "1.0"}'),
            (f"{number}.seg.png", png()),
            (f"{number}.txt", text(9)),
        ]
    members += [("README", b"about"), ("._0.txt", b"of a Mac")]
    with caplog.at_level(logging.WARNING):
        rows = read_tar_rows([write_tar(tmp_path / "a.tar", members)], tmp_path / "q.jsonl")
    assert sorted(sample_keys(rows)) == list("01234")
    told = [record.getMessage() for record in caplog.records]
    assert [message.split(" are left")[0] for message in told] == [
        "members '.cls'",
        "members '.seg.png'",
        "members '.json'",
        "members without an extension",
    ]
    assert "'0' in" in told[0]


def test_what_makes_no_sample_is_recorded_by_key_and_passed_over(tmp_path: Path) -> None:
    members = [
        ("good-1.txt", text(9)),
        ("long.txt", text(CAPACITY + 1)),
        ("header.jpg", b"\xff\xd8 no picture"),
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
    reasons = {told.key: told.reason for told in read_recorded_reasons(quarantine)}
    assert "do not fit a row of 128. Raise max_seq_len" in reasons.pop("long")
    assert "its picture: is not a JPG picture" in reasons.pop("header")
    assert "cannot be decoded as JPEG" in reasons.pop("pixels")
    assert "not UTF-8" in reasons.pop("latin")
    assert "two members '.jpg'" in reasons.pop("two")
    assert "2 media members" in reasons.pop("both")
    assert "holds no text, picture or clip" in reasons.pop("video")
    assert "holds no text, picture or clip" in reasons.pop("empty")
    assert "not next to each other" in reasons.pop("good-1")
    assert reasons == {}
    [place] = [number for row in rows for number, keys in enumerate(row.keys) if keys == ("pixels",)]
    assert not rows[0].document_valid[place], "damage that decoding shows keeps its places"


def test_broken_and_missing_tars_are_passed_over(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar", texts("whole-", [20] * 10))
    cut = tmp_path / "cut.tar"
    cut.write_bytes(tar_bytes(texts("cut-", [20] * 10))[: 512 * 2 * 6 + 700])
    noise = tmp_path / "noise.tar"
    noise.write_bytes(b"no tar at all" * 1000)
    gz = write_tar(tmp_path / "cut.tar.gz", texts("gz-", range(1, 99)))
    gz.write_bytes(gz.read_bytes()[:-200])
    last = write_tar(tmp_path / "last.tar", texts("last-", [20] * 10))
    quarantine = tmp_path / "q.jsonl"
    urls = [noise, whole, cut, tmp_path / "none.tar", gz, last, tmp_path / "none-2.tar"]
    found = Counter(key.partition("-")[0] for key in sample_keys(read_tar_rows(urls, quarantine)))
    assert found["whole"] == found["last"] == 10
    # The sample at the cut may lack members that were to come, so it is left out with the rest.
    assert found["cut"] == 6
    told = {each.shard: each for each in read_recorded_reasons(quarantine)}
    assert set(told) == {"noise.tar", "cut.tar", "none.tar", "cut.tar.gz", "none-2.tar"}
    assert told["cut.tar"].key == "from sample 6 on"
    assert "cut short" in told["cut.tar"].reason
    assert "no tar" in told["noise.tar"].reason
    assert "gzip is cut short" in told["cut.tar.gz"].reason
    assert "No such file" in told["none.tar"].reason


def test_too_many_faults_stop_the_run_and_the_state_lies_before_them(tmp_path: Path) -> None:
    names = [tmp_path / f"{number}.tar" for number in range(12)]
    for name in (names[0], names[-1]):
        write_tar(name, texts(name.stem, [100] * 4))
    quarantine = tmp_path / "q.jsonl"
    with open_tar_stream(names, quarantine, max_corrupt=5, pool=2) as stream:
        read = [next(stream) for _ in range(3)]
        for count in (6, 7):  # it is met again if it is asked again
            with pytest.raises(QuarantineError, match=f"{count} samples cannot be read"):
                next(stream)
        state = stream.state_dict()
    with open_tar_stream(names, tmp_path / "other.jsonl", max_corrupt=99, pool=2) as stream:
        stream.load_state_dict(state)
        read += stream
    assert sorted(sample_keys(read)) == sorted(f"{tar}{number:04d}" for tar in (0, 11) for number in range(4))


def test_tars_without_samples_end_an_endless_run(tmp_path: Path) -> None:
    empty = write_tar(tmp_path / "a.tar", [("a.mp4", b"")])
    (tmp_path / "b.tar").write_bytes(bytes(1024))
    with (
        open_tar_stream([empty, tmp_path / "b.tar"], tmp_path / "q.jsonl", epochs=None) as stream,
        pytest.raises(DataError, match="no tar holds a sample"),
    ):
        next(stream)
    assert [told.key for told in read_recorded_reasons(tmp_path / "q.jsonl")] == ["a"]


def test_epochs_repeat_and_none_is_without_end(tmp_path: Path) -> None:
    tars = [write_tar(tmp_path / f"{name}.tar", texts(name, range(5, 25))) for name in "ab"]
    counts = Counter(sample_keys(read_tar_rows(tars, tmp_path / "q.jsonl", epochs=3)))
    assert len(counts) == 40
    assert set(counts.values()) == {3}
    with open_tar_stream(tars, tmp_path / "q.jsonl", epochs=None, pool=4) as stream:
        for _ in range(60):
            row = next(stream)
        assert row.number == 59
        assert stream.state_dict()["place"][0] > 8


def test_ranks_share_the_tars(tmp_path: Path) -> None:
    for number in range(5):
        write_tar(tmp_path / f"{number}.tar", texts(f"{number}-", [30] * 10))
    read = [read_tar_rows(f"{tmp_path}/*.tar", tmp_path / "q.jsonl", rank=rank, ranks=2) for rank in range(2)]
    assert {key[0] for key in sample_keys(read[0])} == {"0", "2", "4"}
    assert {key[0] for key in sample_keys(read[1])} == {"1", "3"}
    assert [row.number for row in read[1]] == list(range(1, 2 * len(read[1]), 2))
    assert len(list(sample_keys(read[0] + read[1]))) == 50


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ranks": 3}, "rank 0 of 3 ranks on 1 tars"),
        ({"rank": -1}, "rank -1"),
        ({"epochs": 0}, "epochs: 0 is not"),
        ({"max_seq_len": 7}, "max_seq_len: 7 is not"),
        ({"pool": 0}, "pool: 0 is not"),
        ({"reader": ReaderConfig(workers=2)}, "reader.workers: .* reads in threads"),
        ({"reader": ReaderConfig(cache="cache")}, "reader.cache: .* nothing on disk"),
    ],
)
def test_settings_are_checked(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_tar_stream([tmp_path / "a.tar"], tmp_path / "q.jsonl", **settings)


def test_urls_of_no_known_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a path or object store URL"):
        open_tar_stream("https://example.org/a.tar", tmp_path / "q.jsonl")


def test_what_waits_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # JPEG passes over what lies behind its end.
    padded = [(f"{number:03d}.jpg", jpeg(number) + bytes(30_000)) for number in range(60)]
    captions = [(f"{number:03d}.txt", text(number * 7 % 40)) for number in range(60)]
    both = [each for pair in zip(padded, captions, strict=True) for each in pair]
    tar = write_tar(tmp_path / "a.tar", both)
    monkeypatch.setattr(pack_rows, "POOL_BYTES", 400_000)
    with open_tar_stream([tar], tmp_path / "q.jsonl", max_seq_len=64) as stream:
        rows = [next(stream)]
        state = stream.state_dict()
        assert len(state["waiting"]) + len(rows[0].keys) == 13
        rows += stream
    assert sorted(sample_keys(rows)) == [f"{number:03d}" for number in range(60)]
    with open_tar_stream([tar], tmp_path / "q.jsonl", max_seq_len=64) as stream:
        stream.load_state_dict(state)
        assert_same_rows(stream, rows[1:])


def test_a_stream_that_is_forgotten_ends_its_threads(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", texts("a", [50] * 200))
    before = set(threading.enumerate())
    stream = open_tar_stream([tar], tmp_path / "q.jsonl", epochs=None)
    next(stream)
    mine = set(threading.enumerate()) - before
    assert mine
    del stream
    gc.collect()
    for thread in mine:
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, tuple[str, int]]]:
    folder = tmp_path_factory.mktemp("s3")
    for number in range(3):
        pictures = [(f"{number}-{count:03d}.png", png(count, (200, 300))) for count in range(16)]
        write_tar(folder / f"{number}.tar{'.gz' * (number == 1)}", pictures)
    with run_s3_server() as (client, address):
        upload(client, folder, "foreign")
        yield folder, address


@pytest.fixture
def proxy(s3: tuple[Path, tuple[str, int]]) -> Iterator[Proxy]:
    with run_proxy(s3[1]) as proxy:
        yield proxy


def test_tars_in_an_object_store_through_a_bad_network(
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
    assert [each.shard for each in read_recorded_reasons(tmp_path / "q.jsonl")] == ["3.tar"]


def test_names_that_climb_out_are_labels_and_nothing_else(tmp_path: Path) -> None:
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
    assert [told.key for told in read_recorded_reasons(inside / "q.jsonl")] == ["../q"]
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"a.tar", "q.jsonl"}
    assert not Path("/evil.txt").exists()


def test_faults_are_told_with_the_row_they_were_met_on_the_way_to(tmp_path: Path) -> None:
    lengths = [100, 100, 300, 100, 100]
    tar = write_tar(tmp_path / "a.tar", texts("a", lengths))
    with open_tar_stream([tar], tmp_path / "q.jsonl", pool=1) as stream:
        for row in stream:
            assert len(read_recorded_reasons(tmp_path / "q.jsonl")) == (row.number >= 2)
    [told] = read_recorded_reasons(tmp_path / "q.jsonl")
    assert (told.row, told.key, told.shard) == (2, "a0002", "a.tar")
