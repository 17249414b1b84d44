"""Tars of any format as untrusted input: the files that are found, and the memory and bytes that reading takes."""

from __future__ import annotations

import gzip
import io
import tarfile
import threading
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from braceexpand import braceexpand
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpack.errors import ConfigError, IntegrityError, MmpackError, StorageError
from mmpack.layout import Layout
from mmpack.shards import tar
from mmpack.storage.local import LocalStore
from mmpack.stream.tars import expand_urls
from mmpack.stream.tars.byte_source import open_source
from mmpack.stream.tars.members import MAX_EXTENDED_BYTES, MAX_NAME_BYTES, iter_tar_members
from mmpack.stream.tars.tar_samples import MAX_SAMPLE_BYTES, TarCursor, TarSample, TarSamples
from tests.examples import examples
from tests.stream.tar_files import LAYOUT, audio_clip, tar_bytes, text, write_tar

pytestmark = pytest.mark.timeout(120)


def read_files(path: Path, store: LocalStore | None = None) -> list[tuple[str, bytes]]:
    """Reads the names and contents of the files in a tar."""
    source = open_source(store or LocalStore(path.parent), path.name, retries=0, stop=threading.Event())
    return [(member.name, source.read(member.size_bytes)) for member in iter_tar_members(source)]


def read_files_of_bytes(data: bytes) -> list[tuple[str, bytes]]:
    """Reads the names and contents of the files in a tar given as bytes."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.tar"
        path.write_bytes(data)
        return read_files(path)


_NAME = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=140).filter(
    lambda name: name not in (".", "..")
)
_PATHS = st.lists(_NAME, min_size=1, max_size=3).map("/".join)
_KINDS = st.sampled_from([tarfile.REGTYPE] * 5 + [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])


@settings(max_examples=examples(60))
@given(
    entries=st.lists(st.tuples(_PATHS, st.binary(max_size=1500), _KINDS), min_size=1, max_size=6),
    format_=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    gzipped=st.booleans(),
)
def test_the_files_equal_those_of_tarfile(
    entries: list[tuple[str, bytes, bytes]], format_: int, gzipped: bool
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format_, pax_headers={"comment": "global"}) as archive:
        for name, data, kind in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "elsewhere" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            info.size = len(data) if kind == tarfile.REGTYPE else 0
            info.mtime = 1.5
            try:
                archive.addfile(info, io.BytesIO(data))
            except ValueError:  # a name too long for ustar
                assert format_ == tarfile.USTAR_FORMAT
    archive_bytes = buffer.getvalue()
    with tarfile.open(fileobj=io.BytesIO(archive_bytes)) as archive:
        expected = [
            (member.name, archive.extractfile(member).read())  # type: ignore[union-attr]
            for member in archive
            if member.isreg()
        ]
    # tarfile strips slashes at the end of a name, by which v7 marks folders.
    files = read_files_of_bytes(gzip.compress(archive_bytes) if gzipped else archive_bytes)
    assert files == [(name, data) for name, data in expected]


def test_a_size_in_base_256_is_read(tmp_path: Path) -> None:
    data = bytearray(tar_bytes([("a.txt", b"abc")]))
    data[124:136] = b"\x80" + (3).to_bytes(11, "big")
    _sign(data)
    assert read_files_of_bytes(bytes(data)) == [("a.txt", b"abc")]


def test_names_that_are_not_utf8_stay_distinct(tmp_path: Path) -> None:
    one, other = bytearray(tar_bytes([("a?", b"1")])), bytearray(tar_bytes([("a?", b"2")]))
    one[1], other[1] = 0xE9, 0xEA
    files = read_files_of_bytes(_sign(one)[:1024] + _sign(other))
    assert files == [("a\\xe9", b"1"), ("a\\xea", b"2")]


def test_concatenated_gzip_files_are_read_as_one(tmp_path: Path) -> None:
    data = tar_bytes([("a.txt", bytes(range(256)) * 40), ("b.txt", b"b")])
    parts = [data[start : start + 5000] for start in range(0, len(data), 5000)]
    compressed = b"".join(map(gzip.compress, parts))
    assert len(read_files_of_bytes(compressed)) == 2
    assert len(read_files_of_bytes(compressed + bytes(700))) == 2
    with pytest.raises(IntegrityError, match="gzip data is damaged"):
        read_files_of_bytes(gzip.compress(data[:6000]) + b"more")


@pytest.mark.parametrize("size", [0, 1, 511, 512, 700, 1024])
def test_a_tar_without_end_marker_is_an_error(size: int) -> None:
    with pytest.raises(IntegrityError, match="cut short"):
        read_files_of_bytes(tar_bytes([("a.txt", b"abc")])[:size])


@pytest.mark.parametrize("kind", [b"x", b"L"])
def test_a_header_with_a_huge_size_is_not_read(kind: bytes) -> None:
    data = bytearray(tar_bytes([("a.txt", b"abc")]))
    data[156:157] = kind
    data[124:136] = b"%011o\0" % (MAX_EXTENDED_BYTES + 1)
    with pytest.raises(IntegrityError, match="a header claims 1048577 bytes"):
        read_files_of_bytes(bytes(_sign(data)))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"18 path=a.txt\n", "pax header is damaged"),
        (b"0 path=a.txt\n", "pax header is damaged"),
        (b"999999 path=a.txt\n", "pax header is damaged"),
        (b"x path=a.txt\n", "pax header is damaged"),
        (b"12 size=-100\n", "pax header is damaged"),
        (b"13 size=-1000\n", "pax header is damaged"),
        (b"30 size=1234567890123456789012\n", "pax header is damaged"),
        (b"15 size=999999\n\0", "cut short"),
        (b"21 GNU.sparse.major=1\n"[:-1] + b"\n", "pax header is damaged"),
        (b"22 GNU.sparse.major=1\n", "sparse"),
    ],
)
def test_a_damaged_pax_header_is_an_error(record: bytes, message: str) -> None:
    data = bytearray(tar_bytes([("pax", record), ("a.txt", b"abc")]))
    data[156:157] = b"x"
    with pytest.raises(IntegrityError, match=message):
        read_files_of_bytes(bytes(_sign(data)))


def test_sparse_files_and_too_long_names_are_an_error() -> None:
    data = bytearray(tar_bytes([("a.txt", b"abc")]))
    data[156:157] = b"S"
    with pytest.raises(IntegrityError, match="sparse"):
        read_files_of_bytes(bytes(_sign(data)))
    with pytest.raises(IntegrityError, match="a member name has 4097 bytes"):
        read_files_of_bytes(tar_bytes([("n" * (MAX_NAME_BYTES + 1), b"")]))


@settings(max_examples=examples(150))
@given(
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4
    ),
    stop=st.floats(0, 1),
    format_=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    gzipped=st.booleans(),
    signed=st.booleans(),
)
def test_a_damaged_tar_raises_only_mmpack_errors(
    changes: list[tuple[float, int]], stop: float, format_: int, gzipped: bool, signed: bool
) -> None:
    data = bytearray(tar_bytes([("long/" * 30 + "a.txt", b"abc"), ("b.txt", b"b" * 700)], format_))
    data = bytearray(gzip.compress(data)) if gzipped else data
    for position, byte in changes:
        data[int(position * len(data))] = byte
    if signed and not gzipped:
        data = _sign(data)
    try:
        files = read_files_of_bytes(bytes(data[: int(stop * len(data)) + 1]))
    except MmpackError:
        return
    assert len(files) <= 6


def _sign(data: bytearray) -> bytearray:
    """Sets the correct checksum in the first header."""
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return data


class CountingStore(LocalStore):
    """A local store that counts the bytes that are read."""

    count = 0

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        self.count += size
        return super().read_range(name, offset, size)


def test_skipped_members_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        for index in range(5):
            file.write(tar.make_header(f"{index}.mp4", 50 << 20))
            file.seek(50 << 20, io.SEEK_CUR)
        file.write(tar.make_header("z.txt", 512) + bytes(512) + tar.END_OF_ARCHIVE)
    store = CountingStore(tmp_path)
    source = open_source(store, "a.tar", retries=0, stop=threading.Event())
    assert [member.name for member in iter_tar_members(source)][-1] == "z.txt"
    assert store.count < 20 << 20


def _read_all(path: Path) -> tuple[list[Any], int]:
    """Returns the readable and unreadable samples of a tar, and the peak of the memory that Python allocated, in bytes."""
    samples = TarSamples([str(path)], Layout(LAYOUT), 128, retries=0)
    tracemalloc.start()
    try:
        results = [sample for sample, _ in samples.iter_from(TarCursor(0, 0), 1)]
        return results, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_gzip_bomb_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    size = 200 << 20
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(tar.make_header("a.mp4", size))
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
        file.write(tar.make_header("b.txt", size))
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
        file.write(tar.make_header("c.txt", 4) + b"left" + tar.make_padding(4) + tar.END_OF_ARCHIVE)
    assert path.stat().st_size < 4 << 20
    results, peak_bytes = _read_all(path)
    assert peak_bytes < 24 << 20
    summary = [result.planned.key if isinstance(result, TarSample) else result.reason for result in results]
    assert summary == [
        "the sample contains no text, image or audio",
        f"the sample is larger than {MAX_SAMPLE_BYTES} bytes",
        "c",
    ]


def test_many_members_of_one_key_take_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(30):
            file.write(tar.make_header("a.txt", 0) * 1000)
        file.write(tar.END_OF_ARCHIVE)
    results, peak_bytes = _read_all(path)
    assert [result.reason for result in results] == ["the sample has two members '.txt'"]
    assert peak_bytes < 24 << 20


def test_cursors_offsets_and_sizes_match_the_tar(tmp_path: Path) -> None:
    entries = [
        ("a.wav", audio_clip()),
        ("a.txt", text(3)),
        ("b.cls", b"4"),
        ("b.txt", text(9)),
        ("c.txt", b"\xff"),
    ]
    path = write_tar(tmp_path / "a.tar", entries, tarfile.PAX_FORMAT)
    samples = TarSamples([str(path)], Layout(LAYOUT), 128, retries=0)
    results = list(samples.iter_from(TarCursor(0, 0), 1))
    assert [cursor for _, cursor in results] == [(0, 1), (0, 2), (0, 3)]
    data = path.read_bytes()
    for (sample, _), names in zip(results, [["a.wav", "a.txt"], ["b.cls", "b.txt"], ["c.txt"]], strict=True):
        location = sample.planned if isinstance(sample, TarSample) else sample
        content = data[location.offset_bytes :][: location.size_bytes]
        sample_tar = content + bytes(-location.size_bytes % 512) + tar.END_OF_ARCHIVE
        with tarfile.open(fileobj=io.BytesIO(sample_tar)) as archive:
            assert archive.getnames() == names
    reread = samples.reread([TarCursor(0, 1), TarCursor(3, 0)])
    assert [sample.planned.key for sample in reread] == ["b", "a"]
    assert list(samples.iter_from(TarCursor(0, 1), 1)) == results[1:]


def test_a_missing_tar_of_a_waiting_sample_is_a_storage_error(tmp_path: Path) -> None:
    samples = TarSamples([str(tmp_path / "a.tar")], Layout(LAYOUT), 128, retries=0)
    with pytest.raises(StorageError, match=r"a\.tar"):
        samples.reread([TarCursor(0, 0)])


_URL_PARTS = st.one_of(
    st.sampled_from(["s3://b/a-", "x", "-", ".tar", "é"]),
    st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 3)).map(
        lambda ends: f"{{{ends[0]:0{ends[2]}d}..{ends[1]}}}"
    ),
    st.sampled_from(["{a,b}", "{a,,c}", "{train,val-{1..2}}"]),
)


@settings(max_examples=examples(100))
@given(parts=st.lists(_URL_PARTS, min_size=1, max_size=3))
def test_braces_expand_as_in_braceexpand(parts: list[str]) -> None:
    url = "s3://" + "".join(parts)
    if "-{1..2}" not in url:  # mmpack does not support nested braces
        assert expand_urls(url) == list(braceexpand(url))


def test_local_patterns_expand_to_existing_files(tmp_path: Path) -> None:
    for name in ("b-1.tar", "a-2.tar", "a-1.tar", "a-1.txt"):
        (tmp_path / name).touch()
    assert [Path(url).name for url in expand_urls(f"{tmp_path}/a-?.tar")] == ["a-1.tar", "a-2.tar"]
    assert [Path(url).name for url in expand_urls([f"{tmp_path}/{{b,a}}-*.tar", "s3://c/d-*.tar"])] == [
        "b-1.tar",
        "a-1.tar",
        "a-2.tar",
        "d-*.tar",
    ]


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        ([], "no tars"),
        ("/nowhere/*.tar", "matches no file"),
        ("a-{0..9999999999999}.tar", "more than 1048576 tars"),
        ("a-{0..9999}-{0..9999}.tar", "more than 1048576 tars"),
    ],
)
def test_invalid_urls_are_an_error(urls: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        expand_urls(urls)
