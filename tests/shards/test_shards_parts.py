"""Unit tests of the parts of shards: statistics, numeric members, tar headers, images and tubelets."""

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
def test_merged_statistics_equal_the_statistics_of_all_rows(parts: list[np.ndarray]) -> None:
    merged = compute_statistics(("a", "b"), parts[0])
    for part in parts[1:]:
        merged = merge_statistics(merged, compute_statistics(("a", "b"), part))
    rows = np.concatenate(parts)
    manifest = merged.to_manifest()
    assert merged.rows == len(rows)
    for column in range(2):
        values = rows[np.isfinite(rows[:, column]), column]
        assert merged.count[column] == len(values)
        if len(values):
            assert manifest["mean"][column] == pytest.approx(values.mean(), rel=1e-9, abs=1e-6)
            assert manifest["std"][column] == pytest.approx(values.std(), rel=1e-6, abs=1e-4)
            assert (manifest["min"][column], manifest["max"][column]) == (values.min(), values.max())
        else:
            assert (manifest["min"][column], manifest["max"][column]) == (None, None)


def test_npz_round_trip_is_deterministic() -> None:
    arrays = {"imu": np.arange(6.0).reshape(2, 3), "imu.t_ns": np.array([1, 2])}
    data = encode_npz(arrays)
    assert data == encode_npz(dict(reversed(arrays.items())))
    decoded = decode_npz(data, where="x")
    assert decoded.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(decoded[name], array)
    with np.load(io.BytesIO(data), allow_pickle=False) as loaded:
        assert sorted(loaded.files) == ["imu", "imu.t_ns"]


@given(st.binary(max_size=300))
def test_decoding_any_bytes_as_npz_returns_or_raises_integrity_error(data: bytes) -> None:
    with contextlib.suppress(IntegrityError):
        decode_npz(data, where="x")


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_decoding_an_npz_with_a_changed_byte_returns_or_raises_integrity_error(
    offset: int, value: int
) -> None:
    data = bytearray(encode_npz({"a": np.arange(8.0), "b": np.zeros((2, 2))}))
    data[offset % len(data)] = value
    with contextlib.suppress(IntegrityError):
        decode_npz(bytes(data), where="x")


def test_npz_with_objects_compression_or_a_false_shape_is_an_error() -> None:
    pickled = io.BytesIO()
    np.savez(pickled, a=np.array([{"x": 1}], dtype=object))
    with pytest.raises(IntegrityError):
        decode_npz(pickled.getvalue(), where="x")
    compressed = io.BytesIO()
    np.savez_compressed(compressed, a=np.zeros(1000))
    with pytest.raises(IntegrityError, match="compressed"):
        decode_npz(compressed.getvalue(), where="x")
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    false_shape = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(8)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.npy", false_shape)
    with pytest.raises(IntegrityError, match="larger than its bytes"):
        decode_npz(archive.getvalue(), where="x")


@given(st.from_regex(r"[a-z0-9_+-]{1,60}\.[a-z]{1,5}", fullmatch=True), st.integers(0, 5000))
def test_tar_headers_can_be_read_by_tarfile(name: str, size: int) -> None:
    data = tar.make_header(name, size) + bytes(size) + tar.make_padding(size) + tar.END_OF_ARCHIVE
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        [member] = archive.getmembers()
    assert (member.name, member.size, member.mtime, member.uid, member.mode) == (name, size, 0, 0, 0o644)
    [parsed] = tar.iter_members(data, where="x")
    assert (parsed.name, parsed.size_bytes) == (name, size)


@given(st.binary(min_size=1, max_size=1500))
def test_reading_any_bytes_as_tar_returns_or_raises_integrity_error(data: bytes) -> None:
    with contextlib.suppress(IntegrityError):
        list(tar.iter_members(data, where="x"))


@pytest.mark.parametrize("name", ["../x.txt", "/etc/passwd", "a/../../x", "a\\..\\x"])
def test_tar_names_that_lead_out_of_the_folder_are_errors(name: str) -> None:
    info = tarfile.TarInfo(name)
    with pytest.raises(IntegrityError, match="would leave"):
        tar.parse_header(info.tobuf(tarfile.USTAR_FORMAT)[:512], 0, where="x")


def test_tar_links_are_errors() -> None:
    info = tarfile.TarInfo("a")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with pytest.raises(IntegrityError, match="not a regular file"):
        tar.parse_header(info.tobuf(tarfile.USTAR_FORMAT), 0, where="x")


def test_long_or_non_ascii_tar_names_are_errors() -> None:
    with pytest.raises(DataError, match="longer than 100 bytes"):
        tar.make_header("x" * 101, 0)
    with pytest.raises(DataError, match="not ASCII"):
        tar.make_header("ü.txt", 0)


def _colour_blocks() -> np.ndarray:
    """Makes an image of 32 x 32 blocks of one colour each, which compression does not change."""
    blocks = np.array([[[200, 30, 30], [30, 200, 30]], [[30, 30, 200], [180, 180, 40]]], np.uint8)
    return np.kron(blocks, np.ones((32, 32, 1), np.uint8))


@pytest.mark.parametrize(
    ("matrix", "is_full_range"), [("bt601", False), ("bt601", True), ("bt709", False), ("bt709", True)]
)
def test_jpeg_of_a_video_frame_keeps_the_colours(matrix: str, is_full_range: bool) -> None:
    """Checks all colour matrices and ranges, some of which are encoded directly from planes and some through RGB."""
    from av.video.reformatter import ColorRange, Colorspace

    space = Colorspace.ITU601 if matrix == "bt601" else Colorspace.ITU709
    color_range = ColorRange.JPEG if is_full_range else ColorRange.MPEG
    source = av.VideoFrame.from_ndarray(_colour_blocks(), format="rgb24")
    frame = source.reformat(format="yuv420p", dst_colorspace=space, dst_color_range=color_range)
    frame.colorspace, frame.color_range = space, color_range
    data, extension, height, width = encode_image(Frame(0, decoded=frame), 95)
    assert (extension, height, width) == ("jpg", 64, 64)
    decoded = simplejpeg.decode_jpeg(data).astype(int)
    for row in (16, 48):
        for column in (16, 48):
            np.testing.assert_allclose(decoded[row, column], _colour_blocks()[row, column], atol=6)


def test_tubelets_keep_frames_and_timestamps_and_are_deterministic() -> None:
    frames = []
    for index in range(5):
        image = np.full((48, 64, 3), 40 * index, np.uint8)
        frames.append(av.VideoFrame.from_ndarray(image, format="rgb24"))
    timestamps_ns = [1_000_000_000 + 33_366_667 * index for index in range(5)]
    data, height, width = encode_tubelet(frames, timestamps_ns, crf=20)
    assert (data, height, width) == encode_tubelet(frames, timestamps_ns, crf=20)
    assert (height, width) == (48, 64)
    with av.open(io.BytesIO(data)) as container:
        decoded = list(container.decode(video=0))
        times_s = [Fraction(frame.pts or 0) * (frame.time_base or 0) for frame in decoded]
    assert len(decoded) == 5
    for time_s, timestamp_ns in zip(times_s, timestamps_ns, strict=True):
        assert abs(time_s * 10**9 - (timestamp_ns - timestamps_ns[0])) <= 1000


def test_tubelets_of_odd_sizes_lose_a_row_and_a_column() -> None:
    frame = av.VideoFrame.from_ndarray(np.full((47, 63, 3), 90, np.uint8), format="rgb24")
    data, height, width = encode_tubelet([frame], [0], crf=20)
    assert (height, width) == (46, 62)
    with av.open(io.BytesIO(data)) as container:
        [decoded] = container.decode(video=0)
        assert (decoded.height, decoded.width) == (46, 62)


def test_bytes_that_are_not_an_image_are_an_error() -> None:
    for data, extension in ((b"", "jpg"), (b"\xff\xd8\xff", "jpg"), (b"\x89PNG", "png")):
        with pytest.raises(DataError):
            image_size(data, extension, where="x")


def _jpeg(preview: bytes = b"") -> bytes:
    """Makes a JPEG with `preview` in a separate segment, where cameras store it."""
    data = simplejpeg.encode_jpeg(_colour_blocks(), quality=80)
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
def test_truncated_images_are_errors(num_missing: int) -> None:
    jpeg, with_preview, png = _jpeg(), _jpeg(_jpeg()), _png()
    for data, extension in ((jpeg, "jpg"), (with_preview, "jpg"), (png, "png")):
        assert image_size(data, extension, where="x") == (64, 64)
        assert image_size(data + bytes(5000) + b"made by a camera", extension, where="x") == (64, 64)
        with pytest.raises(DataError, match=r"is truncated|is not a"):
            image_size(data[: max(len(data) - num_missing, 0)], extension, where="x")


def test_images_with_impossible_sizes_are_errors() -> None:
    for width, height in ((2**31, 2**31), (65_536, 1), (0, 64), (64, 0)):
        with pytest.raises(DataError, match="pixels"):
            image_size(_png(width, height), "png", where="x")
    with pytest.raises(DataError, match="is truncated"):
        image_size(_png()[:33], "png", where="x")
