"""Pictures and tubelets as patches: the right pixels in the right order, and nothing else."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mmpack.errors import DataError
from mmpack.ingest.tasks.encode_images import encode_tubelet
from mmpack.layout import PatchGrid, VisionLayout
from mmpack.rows.decode.images import decode_image, decode_tubelet
from mmpack.rows.decode.resize import resize_to_patches

LAYOUT = VisionLayout(patch_size=8, merge=2, max_tokens=12)
SIDE = LAYOUT.token_side
Pixels = NDArray[np.uint8]


def empty(grid: PatchGrid) -> Pixels:
    side = grid.width // grid.cols
    return np.empty((grid.tokens, side, side, 3), np.uint8)


def picture_of(patches: Pixels, grid: PatchGrid) -> Pixels:
    """Patches laid out again, told slowly."""
    side = patches.shape[1]
    found = np.zeros((grid.height, grid.width, 3), np.uint8)
    for number, patch in enumerate(patches):
        row, column = divmod(number, grid.cols)
        found[row * side : (row + 1) * side, column * side : (column + 1) * side] = patch
    return found


def decoded(data: bytes, size: tuple[int, int], extension: str = "jpg") -> Pixels:
    grid = LAYOUT.patch_grid(*size)
    out = empty(grid)
    decode_image(data, extension, size, grid, out, where="here")
    return picture_of(out, grid)


def saved(picture: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 100))
@settings(max_examples=60)
def test_the_resize_is_pillows_antialiased_bilinear(height: int, width: int, seed: int) -> None:
    pixels, grid = noise(height, width, seed), LAYOUT.patch_grid(height, width)
    out = empty(grid)
    resize_to_patches(pixels, grid, out)
    expected = Image.fromarray(pixels).resize((grid.width, grid.height), Image.Resampling.BILINEAR)
    assert np.abs(picture_of(out, grid).astype(int) - np.asarray(expected)).max() <= 1


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 255))
@settings(max_examples=40)
def test_a_plain_picture_stays_plain(height: int, width: int, shade: int) -> None:
    grid = LAYOUT.patch_grid(height, width)
    out = empty(grid)
    resize_to_patches(np.full((height, width, 3), shade, np.uint8), grid, out)
    assert (out == shade).all()


def test_patches_go_from_left_to_right_then_down() -> None:
    grid = LAYOUT.patch_grid(48, 64)
    assert (grid.rows, grid.cols, grid.height, grid.width) == (3, 4, 48, 64)
    pixels = np.zeros((48, 64, 3), np.uint8)
    for row in range(3):
        for column in range(4):
            pixels[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE] = (
                row * 20,
                column * 20,
                200,
            )
    out = empty(grid)
    decode_image(saved(Image.fromarray(pixels), "PNG"), "png", (48, 64), grid, out, where="")
    for number, patch in enumerate(out):
        assert (patch == (number // 4 * 20, number % 4 * 20, 200)).all()


def test_real_pictures_look_as_a_full_decode_does(real_data: Path) -> None:
    layout = VisionLayout()
    paths = sorted((real_data / "nuscenes_drivelm" / "samples").glob("*/*.jpg"))[::9]
    assert len(paths) == 6
    for path in paths:
        data = path.read_bytes()
        grid = layout.patch_grid(900, 1600)
        out = empty(grid)
        decode_image(data, "jpg", (900, 1600), grid, out, where=path.name)
        with Image.open(path) as picture:
            expected = picture.convert("RGB").resize((grid.width, grid.height), Image.Resampling.BILINEAR)
        apart = np.abs(picture_of(out, grid).astype(int) - np.asarray(expected))
        assert apart.mean() < 2.5  # decoding at half size filters a little differently
        again = empty(grid)
        decode_image(data, "jpg", (900, 1600), grid, again, where=path.name)
        assert np.array_equal(out, again)


def test_gray_becomes_rgb() -> None:
    gray = Image.fromarray(noise(40, 64)[..., 0]).resize((64, 40))
    for form, extension in (("JPEG", "jpg"), ("PNG", "png")):
        found = decoded(saved(gray, form), (40, 64), extension)
        assert (found == found[..., :1]).all()
        assert len(np.unique(found)) > 50


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_every_mode_of_png_is_read(mode: str) -> None:
    pixels = np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))
    if mode == "I;16":
        picture = Image.fromarray(pixels.astype(np.uint16) * 256 + 77)
    else:
        picture = Image.fromarray(np.stack([pixels] * 3, axis=2)).convert(mode)
    data = saved(picture, "PNG")
    with Image.open(io.BytesIO(data)) as read:
        assert read.mode == mode
    found = decoded(data, (48, 64), "png")
    if mode not in ("1", "P"):
        assert np.abs(found[..., 0].astype(int) - pixels).max() <= 1
    assert found[:, -1].mean() > found[:, 0].mean() + 200


def test_cmyk_is_refused() -> None:
    data = saved(Image.fromarray(noise(48, 64)).convert("CMYK"), "JPEG")
    with pytest.raises(DataError, match="CMYK"):
        decoded(data, (48, 64))


def test_another_size_than_described_is_refused() -> None:
    with pytest.raises(DataError, match="is not"):
        decoded(saved(Image.fromarray(noise(48, 64)), "PNG"), (64, 48), "png")


def test_a_picture_that_claims_a_billion_pixels_is_refused_unread() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    bomb += chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    with pytest.raises(DataError, match="more than"):
        decoded(bomb, (60_000, 60_000), "png")


def test_a_damaged_scan_is_refused_and_not_smeared() -> None:
    data = simplejpeg.encode_jpeg(noise(200, 300), quality=90)
    hole = data[: len(data) // 2] + b"\xff\xd9"
    with pytest.raises(DataError):
        decoded(hole, (200, 300))


@given(st.sampled_from(["jpg", "png", "mp4"]), st.integers(0, 1 << 20), st.binary(min_size=1, max_size=30))
@settings(max_examples=120)
def test_whatever_the_bytes_they_are_read_or_refused(kind: str, at: int, damage: bytes) -> None:
    whole = SAMPLES[kind]
    at %= len(whole)
    grid = LAYOUT.patch_grid(48, 64)
    for data in (whole[:at] + damage + whole[at + len(damage) :], whole[:at] + damage, damage):
        try:
            if kind == "mp4":
                out = np.empty((3, grid.tokens, SIDE, SIDE, 3), np.uint8)
                decode_tubelet(data, (48, 64), grid, out, where="")
            else:
                decode_image(data, kind, (48, 64), grid, empty(grid), where="")
        except DataError:
            continue


def film(shades: list[int]) -> tuple[bytes, list[int]]:
    frames = [av.VideoFrame.from_ndarray(np.full((48, 64, 3), shade, np.uint8)) for shade in shades]
    data, height, width = encode_tubelet(
        frames, [number * 50_000_000 for number in range(len(shades))], crf=5
    )
    assert (height, width) == (48, 64)
    return data, shades


SAMPLES = {
    "jpg": saved(Image.fromarray(noise(48, 64)), "JPEG"),
    "png": saved(Image.fromarray(noise(48, 64)), "PNG"),
    "mp4": film([30, 120, 200])[0],
}


def test_a_tubelet_has_all_its_frames_in_order() -> None:
    data, shades = film([20, 90, 160, 230])
    grid = LAYOUT.patch_grid(48, 64)
    out = np.zeros((4, grid.tokens, SIDE, SIDE, 3), np.uint8)
    decode_tubelet(data, (48, 64), grid, out, where="")
    for patches, shade in zip(out, shades, strict=True):
        assert np.abs(patches.astype(int) - shade).max() <= 3


@pytest.mark.parametrize("frames", [3, 5])
def test_a_tubelet_with_another_number_of_frames_is_refused(frames: int) -> None:
    grid = LAYOUT.patch_grid(48, 64)
    out = np.empty((frames, grid.tokens, SIDE, SIDE, 3), np.uint8)
    with pytest.raises(DataError, match="frames"):
        decode_tubelet(film([20, 90, 160, 230])[0], (48, 64), grid, out, where="")


def test_real_video_decodes_as_pyav_decodes_it(real_data: Path) -> None:
    path = real_data / "gopro" / "max-heromode.mp4"
    with av.open(str(path)) as container:
        frames = [frame for frame, _ in zip(container.decode(video=0), range(4), strict=False)]
    data, height, width = encode_tubelet(frames, [number * 33_000_000 for number in range(4)], crf=18)
    grid = VisionLayout().patch_grid(height, width)
    out = np.empty((4, grid.tokens, 32, 32, 3), np.uint8)
    decode_tubelet(data, (height, width), grid, out, where="")
    with av.open(io.BytesIO(data)) as container:
        shown = [Image.fromarray(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    for patches, picture in zip(out, shown, strict=True):
        expected = np.asarray(picture.resize((grid.width, grid.height), Image.Resampling.BILINEAR))
        assert np.abs(picture_of(patches, grid).astype(int) - expected).max() <= 1
