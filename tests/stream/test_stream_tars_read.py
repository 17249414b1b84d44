"""Tars of any writer, read as untrusted input: the files in them, and what reading takes."""

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
from tests.stream.tar_files import LAYOUT, audio_clip, tar_bytes, text, write_tar

pytestmark = pytest.mark.timeout(120)


def files_in(path: Path, store: LocalStore | None = None) -> list[tuple[str, bytes]]:
    """Names and contents as mmpack reads them."""
    source = open_source(store or LocalStore(path.parent), path.name, retries=0, stop=threading.Event())
    return [(member.name, source.read(member.size_bytes)) for member in iter_tar_members(source)]


def files_of_bytes(data: bytes) -> list[tuple[str, bytes]]:
    """Likewise, of a tar in memory."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.tar"
        path.write_bytes(data)
        return files_in(path)


_NAME = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=140).filter(
    lambda name: name not in (".", "..")
)
_NAMES = st.lists(_NAME, min_size=1, max_size=3).map("/".join)
_KINDS = st.sampled_from([tarfile.REGTYPE] * 5 + [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])


@settings(max_examples=60)
@given(
    entries=st.lists(st.tuples(_NAMES, st.binary(max_size=1500), _KINDS), min_size=1, max_size=6),
    form=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    packed=st.booleans(),
)
def test_the_files_are_those_that_tarfile_finds(
    entries: list[tuple[str, bytes, bytes]], form: int, packed: bool
) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, pax_headers={"comment": "global"}) as archive:
        for name, data, kind in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "elsewhere" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            info.size = len(data) if kind == tarfile.REGTYPE else 0
            info.mtime = 1.5
            try:
                archive.addfile(info, io.BytesIO(data))
            except ValueError:  # a name too long for ustar
                assert form == tarfile.USTAR_FORMAT
    written = buffer.getvalue()
    with tarfile.open(fileobj=io.BytesIO(written)) as archive:
        expected = [
            (member.name, archive.extractfile(member).read())  # type: ignore[union-attr]
            for member in archive
            if member.isreg()
        ]
    # tarfile strips the slashes at a name's end, which is how v7 marks folders.
    found = files_of_bytes(gzip.compress(written) if packed else written)
    assert found == [(name, data) for name, data in expected]


def test_a_size_beyond_octal_is_read(tmp_path: Path) -> None:
    data = bytearray(tar_bytes([("a.txt", b"abc")]))
    data[124:136] = b"\x80" + (3).to_bytes(11, "big")
    _sign(data)
    assert files_of_bytes(bytes(data)) == [("a.txt", b"abc")]


def test_names_that_are_not_utf8_are_told_apart(tmp_path: Path) -> None:
    one, other = bytearray(tar_bytes([("a?", b"1")])), bytearray(tar_bytes([("a?", b"2")]))
    one[1], other[1] = 0xE9, 0xEA
    found = files_of_bytes(_sign(one)[:1024] + _sign(other))
    assert found == [("a\\xe9", b"1"), ("a\\xea", b"2")]


def test_gzip_files_one_behind_the_other_are_one(tmp_path: Path) -> None:
    data = tar_bytes([("a.txt", bytes(range(256)) * 40), ("b.txt", b"b")])
    parts = [data[start : start + 5000] for start in range(0, len(data), 5000)]
    packed = b"".join(map(gzip.compress, parts))
    assert len(files_of_bytes(packed)) == 2
    assert len(files_of_bytes(packed + bytes(700))) == 2
    with pytest.raises(IntegrityError, match="gzip is damaged"):
        files_of_bytes(gzip.compress(data[:6000]) + b"more")


@pytest.mark.parametrize("size", [0, 1, 511, 512, 700, 1024])
def test_a_tar_without_its_end_is_cut_short(size: int) -> None:
    with pytest.raises(IntegrityError, match="cut short"):
        files_of_bytes(tar_bytes([("a.txt", b"abc")])[:size])


@pytest.mark.parametrize("kind", [b"x", b"L"])
def test_headers_that_claim_gigabytes_are_not_read(kind: bytes) -> None:
    data = bytearray(tar_bytes([("a.txt", b"abc")]))
    data[156:157] = kind
    data[124:136] = b"%011o\0" % (MAX_EXTENDED_BYTES + 1)
    with pytest.raises(IntegrityError, match="a header claims 1048577 bytes"):
        files_of_bytes(bytes(_sign(data)))


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
def test_pax_headers_are_not_believed(record: bytes, message: str) -> None:
    data = bytearray(tar_bytes([("pax", record), ("a.txt", b"abc")]))
    data[156:157] = b"x"
    with pytest.raises(IntegrityError, match=message):
        files_of_bytes(bytes(_sign(data)))


def test_sparse_files_and_endless_names_are_refused() -> None:
    data = bytearray(tar_bytes([("a.txt", b"abc")]))
    data[156:157] = b"S"
    with pytest.raises(IntegrityError, match="sparse"):
        files_of_bytes(bytes(_sign(data)))
    with pytest.raises(IntegrityError, match="a name of 4097 bytes"):
        files_of_bytes(tar_bytes([("n" * (MAX_NAME_BYTES + 1), b"")]))


@settings(max_examples=150)
@given(
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4
    ),
    stop=st.floats(0, 1),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    packed=st.booleans(),
    signed=st.booleans(),
)
def test_damage_is_an_error_of_ours_or_nothing(
    changes: list[tuple[float, int]], stop: float, form: int, packed: bool, signed: bool
) -> None:
    data = bytearray(tar_bytes([("long/" * 30 + "a.txt", b"abc"), ("b.txt", b"b" * 700)], form))
    data = bytearray(gzip.compress(data)) if packed else data
    for where, byte in changes:
        data[int(where * len(data))] = byte
    if signed and not packed:
        data = _sign(data)
    try:
        found = files_of_bytes(bytes(data[: int(stop * len(data)) + 1]))
    except MmpackError:
        return
    assert len(found) <= 6


def _sign(data: bytearray) -> bytearray:
    """The first header with a right checksum."""
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return data


class Counting(LocalStore):
    """A folder that counts the bytes read of it."""

    count = 0

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        self.count += size
        return super().read_range(name, offset, size)


def test_what_is_left_out_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with path.open("wb") as file:
        for number in range(5):
            file.write(tar.make_header(f"{number}.mp4", 50 << 20))
            file.seek(50 << 20, io.SEEK_CUR)
        file.write(tar.make_header("z.txt", 512) + bytes(512) + tar.END_OF_ARCHIVE)
    store = Counting(tmp_path)
    source = open_source(store, "a.tar", retries=0, stop=threading.Event())
    assert [member.name for member in iter_tar_members(source)][-1] == "z.txt"
    assert store.count < 20 << 20


def _read_all(path: Path) -> tuple[list[Any], int]:
    """What a tar gives, and the most memory that Python took for it."""
    samples = TarSamples([str(path)], Layout(LAYOUT), 128, retries=0)
    tracemalloc.start()
    try:
        found = [found for found, _ in samples.iter_from(TarCursor(0, 0), 1)]
        return found, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_gzip_bomb_takes_no_memory(tmp_path: Path) -> None:
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
    found, peak = _read_all(path)
    assert peak < 24 << 20
    kinds = [each.planned.key if isinstance(each, TarSample) else each.reason for each in found]
    assert kinds == ["holds no text, picture or clip", f"is larger than {MAX_SAMPLE_BYTES} bytes", "c"]


def test_members_without_end_take_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(30):
            file.write(tar.make_header("a.txt", 0) * 1000)
        file.write(tar.END_OF_ARCHIVE)
    found, peak = _read_all(path)
    assert [each.reason for each in found] == ["has two members '.txt'"]
    assert peak < 24 << 20


def test_places_offsets_and_sizes_are_those_in_the_tar(tmp_path: Path) -> None:
    entries = [
        ("a.wav", audio_clip()),
        ("a.txt", text(3)),
        ("b.cls", b"4"),
        ("b.txt", text(9)),
        ("c.txt", b"\xff"),
    ]
    path = write_tar(tmp_path / "a.tar", entries, tarfile.PAX_FORMAT)
    samples = TarSamples([str(path)], Layout(LAYOUT), 128, retries=0)
    found = list(samples.iter_from(TarCursor(0, 0), 1))
    assert [place for _, place in found] == [(0, 1), (0, 2), (0, 3)]
    data = path.read_bytes()
    for each, names in zip(found, [["a.wav", "a.txt"], ["b.cls", "b.txt"], ["c.txt"]], strict=True):
        what = each[0].planned if isinstance(each[0], TarSample) else each[0]
        stretch = (
            data[what.offset_bytes :][: what.size_bytes] + bytes(-what.size_bytes % 512) + tar.END_OF_ARCHIVE
        )
        with tarfile.open(fileobj=io.BytesIO(stretch)) as archive:
            assert archive.getnames() == names
    again = samples.reread([TarCursor(0, 1), TarCursor(3, 0)])
    assert [item.planned.key for item in again] == ["b", "a"]
    assert list(samples.iter_from(TarCursor(0, 1), 1)) == found[1:]


def test_a_missing_tar_is_a_storage_error_where_a_sample_waits(tmp_path: Path) -> None:
    samples = TarSamples([str(tmp_path / "a.tar")], Layout(LAYOUT), 128, retries=0)
    with pytest.raises(StorageError, match=r"a\.tar"):
        samples.reread([TarCursor(0, 0)])


_PIECES = st.one_of(
    st.sampled_from(["s3://b/a-", "x", "-", ".tar", "é"]),
    st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 3)).map(
        lambda ends: f"{{{ends[0]:0{ends[2]}d}..{ends[1]}}}"
    ),
    st.sampled_from(["{a,b}", "{a,,c}", "{train,val-{1..2}}"]),
)


@settings(max_examples=100)
@given(pieces=st.lists(_PIECES, min_size=1, max_size=3))
def test_braces_are_those_of_braceexpand(pieces: list[str]) -> None:
    url = "s3://" + "".join(pieces)
    if "-{1..2}" not in url:  # braces within braces are not ours
        assert expand_urls(url) == list(braceexpand(url))


def test_local_patterns_are_the_files_that_are_there(tmp_path: Path) -> None:
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
def test_slips_in_urls_are_refused(urls: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        expand_urls(urls)
