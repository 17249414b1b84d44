"""The parts of shards on their own: statistics, numeric members, tar headers, pictures."""

from __future__ import annotations

import contextlib
import io
import struct
import tarfile
import zipfile
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmpack.errors import DataError, IntegrityError
from mmpack.ingest.tasks.encode_images import encode_image, encode_tubelet
from mmpack.recording import Frame
from mmpack.samples.images import image_size
from mmpack.samples.npz import decode_npz, encode_npz
from mmpack.samples.statistics import compute_statistics, merge_statistics
from mmpack.shards import tar

ROWS = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 20), st.just(2)),
    elements=st.floats(-1e6, 1e6) | st.sampled_from([np.nan, np.inf]),
)


@given(st.lists(ROWS, min_size=1, max_size=5))
def test_statistics_of_parts_are_those_of_the_whole(parts: list[np.ndarray]) -> None:
    found = compute_statistics(("a", "b"), parts[0])
    for part in parts[1:]:
        found = merge_statistics(found, compute_statistics(("a", "b"), part))
    whole = np.concatenate(parts)
    public = found.to_manifest()
    assert found.rows == len(whole)
    for column in range(2):
        values = whole[np.isfinite(whole[:, column]), column]
        assert found.count[column] == len(values)
        if len(values):
            assert public["mean"][column] == pytest.approx(values.mean(), rel=1e-9, abs=1e-6)
            assert public["std"][column] == pytest.approx(values.std(), rel=1e-6, abs=1e-4)
            assert (public["min"][column], public["max"][column]) == (values.min(), values.max())
        else:
            assert (public["min"][column], public["max"][column]) == (None, None)


def test_npz_round_trip_is_deterministic() -> None:
    arrays = {"imu": np.arange(6.0).reshape(2, 3), "imu.t_ns": np.array([1, 2])}
    data = encode_npz(arrays)
    assert data == encode_npz(dict(reversed(arrays.items())))
    back = decode_npz(data, where="x")
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)
    with np.load(io.BytesIO(data), allow_pickle=False) as loaded:
        assert sorted(loaded.files) == ["imu", "imu.t_ns"]


@given(st.binary(max_size=300))
def test_npz_of_any_bytes_is_refused_or_read(data: bytes) -> None:
    with contextlib.suppress(IntegrityError):
        decode_npz(data, where="x")


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_npz_with_a_changed_byte_is_refused_or_read(place: int, value: int) -> None:
    data = bytearray(encode_npz({"a": np.arange(8.0), "b": np.zeros((2, 2))}))
    data[place % len(data)] = value
    with contextlib.suppress(IntegrityError):
        decode_npz(bytes(data), where="x")


def test_npz_refuses_objects_bombs_and_false_shapes() -> None:
    pickled = io.BytesIO()
    np.savez(pickled, a=np.array([{"x": 1}], dtype=object))
    with pytest.raises(IntegrityError):
        decode_npz(pickled.getvalue(), where="x")
    packed = io.BytesIO()
    np.savez_compressed(packed, a=np.zeros(1000))
    with pytest.raises(IntegrityError, match="compressed"):
        decode_npz(packed.getvalue(), where="x")
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    false = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(8)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.npy", false)
    with pytest.raises(IntegrityError, match="larger than its bytes"):
        decode_npz(archive.getvalue(), where="x")


@given(st.from_regex(r"[a-z0-9_+-]{1,60}\.[a-z]{1,5}", fullmatch=True), st.integers(0, 5000))
def test_tar_headers_are_tarfiles(name: str, size: int) -> None:
    data = tar.make_header(name, size) + bytes(size) + tar.make_padding(size) + tar.END_OF_ARCHIVE
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        [member] = archive.getmembers()
    assert (member.name, member.size, member.mtime, member.uid, member.mode) == (name, size, 0, 0, 0o644)
    [own] = tar.iter_members(data, where="x")
    assert (own.name, own.size_bytes) == (name, size)


@given(st.binary(min_size=1, max_size=1500))
def test_tar_of_any_bytes_is_refused_or_read(data: bytes) -> None:
    with contextlib.suppress(IntegrityError):
        list(tar.iter_members(data, where="x"))


@pytest.mark.parametrize("name", ["../x.txt", "/etc/passwd", "a/../../x", "a\\..\\x"])
def test_tar_names_that_climb_out(name: str) -> None:
    info = tarfile.TarInfo(name)
    with pytest.raises(IntegrityError, match="would leave"):
        tar.parse_header(info.tobuf(tarfile.USTAR_FORMAT)[:512], 0, where="x")


def test_tar_links_are_refused() -> None:
    info = tarfile.TarInfo("a")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with pytest.raises(IntegrityError, match="no regular file"):
        tar.parse_header(info.tobuf(tarfile.USTAR_FORMAT), 0, where="x")


def test_tar_names_that_do_not_fit() -> None:
    with pytest.raises(DataError, match="longer than 100 bytes"):
        tar.make_header("x" * 101, 0)
    with pytest.raises(DataError, match="not ASCII"):
        tar.make_header("ü.txt", 0)


def _colours() -> np.ndarray:
    """A picture of flat colours, in blocks of 32, that survive compression."""
    blocks = np.array([[[200, 30, 30], [30, 200, 30]], [[30, 30, 200], [180, 180, 40]]], np.uint8)
    return np.kron(blocks, np.ones((32, 32, 1), np.uint8))


@pytest.mark.parametrize(
    ("matrix", "full"), [("bt601", False), ("bt601", True), ("bt709", False), ("bt709", True)]
)
def test_colours_of_video_frames_survive(matrix: str, full: bool) -> None:
    """Straight planes or through RGB: what comes out of the JPEG looks like what went into the video."""
    from av.video.reformatter import ColorRange, Colorspace

    space = Colorspace.ITU601 if matrix == "bt601" else Colorspace.ITU709
    span = ColorRange.JPEG if full else ColorRange.MPEG
    source = av.VideoFrame.from_ndarray(_colours(), format="rgb24")
    frame = source.reformat(format="yuv420p", dst_colorspace=space, dst_color_range=span)
    frame.colorspace, frame.color_range = space, span
    data, extension, height, width = encode_image(Frame(0, decoded=frame), 95)
    assert (extension, height, width) == ("jpg", 64, 64)
    back = simplejpeg.decode_jpeg(data).astype(int)
    for row in (16, 48):
        for column in (16, 48):
            np.testing.assert_allclose(back[row, column], _colours()[row, column], atol=6)


def test_tubelets_keep_frames_and_stamps_and_are_deterministic() -> None:
    frames = []
    for number in range(5):
        picture = np.full((48, 64, 3), 40 * number, np.uint8)
        frames.append(av.VideoFrame.from_ndarray(picture, format="rgb24"))
    stamps = [1_000_000_000 + 33_366_667 * number for number in range(5)]
    data, height, width = encode_tubelet(frames, stamps, crf=20)
    assert (data, height, width) == encode_tubelet(frames, stamps, crf=20)
    assert (height, width) == (48, 64)
    with av.open(io.BytesIO(data)) as container:
        shown = list(container.decode(video=0))
        found = [Fraction(frame.pts or 0) * (frame.time_base or 0) for frame in shown]
    assert len(shown) == 5
    for seconds, stamp in zip(found, stamps, strict=True):
        assert abs(seconds * 10**9 - (stamp - stamps[0])) <= 1000


def test_tubelets_of_odd_sides() -> None:
    frame = av.VideoFrame.from_ndarray(np.full((47, 63, 3), 90, np.uint8), format="rgb24")
    data, height, width = encode_tubelet([frame], [0], crf=20)
    assert (height, width) == (46, 62)
    with av.open(io.BytesIO(data)) as container:
        [shown] = container.decode(video=0)
        assert (shown.height, shown.width) == (46, 62)


def test_pictures_that_are_none() -> None:
    for data, extension in ((b"", "jpg"), (b"\xff\xd8\xff", "jpg"), (b"\x89PNG", "png")):
        with pytest.raises(DataError):
            image_size(data, extension, where="x")


def _jpeg(preview: bytes = b"") -> bytes:
    """A JPEG, with `preview` in a segment of its own as cameras put theirs."""
    data = simplejpeg.encode_jpeg(_colours(), quality=80)
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(preview)) + preview
    return data[:2] + segment + data[2:] if preview else data


def _png(width: int = 64, height: int = 64) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(65 * 64))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@given(st.integers(1, 600))
def test_pictures_cut_short(cut: int) -> None:
    whole, with_preview, png = _jpeg(), _jpeg(_jpeg()), _png()
    for data, extension in ((whole, "jpg"), (with_preview, "jpg"), (png, "png")):
        assert image_size(data, extension, where="x") == (64, 64)
        assert image_size(data + bytes(5000) + b"made by a camera", extension, where="x") == (64, 64)
        with pytest.raises(DataError, match=r"cut short|is not a"):
            image_size(data[: max(len(data) - cut, 0)], extension, where="x")


def test_pictures_of_absurd_sides() -> None:
    for width, height in ((2**31, 2**31), (65_536, 1), (0, 64), (64, 0)):
        with pytest.raises(DataError, match="pixels"):
            image_size(_png(width, height), "png", where="x")
    with pytest.raises(DataError, match="cut short"):
        image_size(_png()[:33], "png", where="x")
