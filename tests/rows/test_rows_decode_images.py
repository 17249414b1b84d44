"""Tests of image and tubelet decoding: patches have the right pixels in the right order; damage raises errors."""

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
from tests.examples import examples

LAYOUT = VisionLayout(patch_size=8, merge=2, max_tokens=12)
SIDE = LAYOUT.token_side
Pixels = NDArray[np.uint8]


def empty_patches(grid: PatchGrid) -> Pixels:
    side = grid.width // grid.cols
    return np.empty((grid.tokens, side, side, 3), np.uint8)


def join_patches(patches: Pixels, grid: PatchGrid) -> Pixels:
    """Joins patches to an image (slow reference)."""
    side = patches.shape[1]
    pixels = np.zeros((grid.height, grid.width, 3), np.uint8)
    for index, patch in enumerate(patches):
        row, column = divmod(index, grid.cols)
        pixels[row * side : (row + 1) * side, column * side : (column + 1) * side] = patch
    return pixels


def decode_pixels(data: bytes, size: tuple[int, int], extension: str = "jpg") -> Pixels:
    grid = LAYOUT.patch_grid(*size)
    out = empty_patches(grid)
    decode_image(data, extension, size, grid, out, where="here")
    return join_patches(out, grid)


def encode_image(image: Image.Image, format_: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def random_pixels(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 100))
@settings(max_examples=examples(60))
def test_the_resize_is_pillows_antialiased_bilinear_filter(height: int, width: int, seed: int) -> None:
    pixels, grid = random_pixels(height, width, seed), LAYOUT.patch_grid(height, width)
    out = empty_patches(grid)
    resize_to_patches(pixels, grid, out)
    expected = Image.fromarray(pixels).resize((grid.width, grid.height), Image.Resampling.BILINEAR)
    assert np.abs(join_patches(out, grid).astype(int) - np.asarray(expected)).max() <= 1


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 255))
@settings(max_examples=examples(40))
def test_a_uniform_image_stays_uniform(height: int, width: int, gray_level: int) -> None:
    grid = LAYOUT.patch_grid(height, width)
    out = empty_patches(grid)
    resize_to_patches(np.full((height, width, 3), gray_level, np.uint8), grid, out)
    assert (out == gray_level).all()


def test_patches_are_ordered_left_to_right_then_top_to_bottom() -> None:
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
    out = empty_patches(grid)
    decode_image(encode_image(Image.fromarray(pixels), "PNG"), "png", (48, 64), grid, out, where="")
    for index, patch in enumerate(out):
        assert (patch == (index // 4 * 20, index % 4 * 20, 200)).all()


def test_real_images_are_close_to_a_full_decode(real_data: Path) -> None:
    layout = VisionLayout()
    paths = sorted((real_data / "nuscenes_drivelm" / "samples").glob("*/*.jpg"))[::9]
    assert len(paths) == 6
    for path in paths:
        data = path.read_bytes()
        grid = layout.patch_grid(900, 1600)
        out = empty_patches(grid)
        decode_image(data, "jpg", (900, 1600), grid, out, where=path.name)
        with Image.open(path) as image:
            expected = image.convert("RGB").resize((grid.width, grid.height), Image.Resampling.BILINEAR)
        difference = np.abs(join_patches(out, grid).astype(int) - np.asarray(expected))
        assert difference.mean() < 2.5  # decoding at half size filters a little differently
        out_again = empty_patches(grid)
        decode_image(data, "jpg", (900, 1600), grid, out_again, where=path.name)
        assert np.array_equal(out, out_again)


def test_gray_becomes_rgb() -> None:
    gray = Image.fromarray(random_pixels(40, 64)[..., 0]).resize((64, 40))
    for format_, extension in (("JPEG", "jpg"), ("PNG", "png")):
        pixels = decode_pixels(encode_image(gray, format_), (40, 64), extension)
        assert (pixels == pixels[..., :1]).all()
        assert len(np.unique(pixels)) > 50


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_every_png_mode_is_decoded(mode: str) -> None:
    pixels = np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))
    if mode == "I;16":
        image = Image.fromarray(pixels.astype(np.uint16) * 256 + 77)
    else:
        image = Image.fromarray(np.stack([pixels] * 3, axis=2)).convert(mode)
    data = encode_image(image, "PNG")
    with Image.open(io.BytesIO(data)) as reopened:
        assert reopened.mode == mode
    result = decode_pixels(data, (48, 64), "png")
    if mode not in ("1", "P"):
        assert np.abs(result[..., 0].astype(int) - pixels).max() <= 1
    assert result[:, -1].mean() > result[:, 0].mean() + 200


def test_cmyk_raises_a_data_error() -> None:
    data = encode_image(Image.fromarray(random_pixels(48, 64)).convert("CMYK"), "JPEG")
    with pytest.raises(DataError, match="CMYK"):
        decode_pixels(data, (48, 64))


def test_another_size_than_described_raises_a_data_error() -> None:
    with pytest.raises(DataError, match="is not"):
        decode_pixels(encode_image(Image.fromarray(random_pixels(48, 64)), "PNG"), (64, 48), "png")


def test_an_image_that_claims_a_billion_pixels_is_rejected_before_decoding() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    bomb += chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    with pytest.raises(DataError, match="more than"):
        decode_pixels(bomb, (60_000, 60_000), "png")


def test_a_truncated_jpeg_raises_a_data_error() -> None:
    data = simplejpeg.encode_jpeg(random_pixels(200, 300), quality=90)
    truncated = data[: len(data) // 2] + b"\xff\xd9"
    with pytest.raises(DataError):
        decode_pixels(truncated, (200, 300))


@given(st.sampled_from(["jpg", "png", "mp4"]), st.integers(0, 1 << 20), st.binary(min_size=1, max_size=30))
@settings(max_examples=examples(120))
def test_damaged_bytes_are_decoded_or_raise_a_data_error(extension: str, at: int, damage: bytes) -> None:
    intact = SAMPLES[extension]
    at %= len(intact)
    grid = LAYOUT.patch_grid(48, 64)
    for data in (intact[:at] + damage + intact[at + len(damage) :], intact[:at] + damage, damage):
        try:
            if extension == "mp4":
                out = np.empty((3, grid.tokens, SIDE, SIDE, 3), np.uint8)
                decode_tubelet(data, (48, 64), grid, out, where="")
            else:
                decode_image(data, extension, (48, 64), grid, empty_patches(grid), where="")
        except DataError:
            continue


def make_tubelet(gray_levels: list[int]) -> tuple[bytes, list[int]]:
    frames = [
        av.VideoFrame.from_ndarray(np.full((48, 64, 3), gray_level, np.uint8)) for gray_level in gray_levels
    ]
    data, height, width = encode_tubelet(
        frames, [index * 50_000_000 for index in range(len(gray_levels))], crf=5
    )
    assert (height, width) == (48, 64)
    return data, gray_levels


SAMPLES = {
    "jpg": encode_image(Image.fromarray(random_pixels(48, 64)), "JPEG"),
    "png": encode_image(Image.fromarray(random_pixels(48, 64)), "PNG"),
    "mp4": make_tubelet([30, 120, 200])[0],
}


def test_a_tubelet_has_all_its_frames_in_order() -> None:
    data, gray_levels = make_tubelet([20, 90, 160, 230])
    grid = LAYOUT.patch_grid(48, 64)
    out = np.zeros((4, grid.tokens, SIDE, SIDE, 3), np.uint8)
    decode_tubelet(data, (48, 64), grid, out, where="")
    for patches, gray_level in zip(out, gray_levels, strict=True):
        assert np.abs(patches.astype(int) - gray_level).max() <= 3


@pytest.mark.parametrize("frames", [3, 5])
def test_a_tubelet_with_another_number_of_frames_raises_a_data_error(frames: int) -> None:
    grid = LAYOUT.patch_grid(48, 64)
    out = np.empty((frames, grid.tokens, SIDE, SIDE, 3), np.uint8)
    with pytest.raises(DataError, match="frames"):
        decode_tubelet(make_tubelet([20, 90, 160, 230])[0], (48, 64), grid, out, where="")


def test_real_video_decodes_as_pyav_decodes_it(real_data: Path) -> None:
    path = real_data / "gopro" / "max-heromode.mp4"
    with av.open(str(path)) as container:
        frames = [frame for frame, _ in zip(container.decode(video=0), range(4), strict=False)]
    data, height, width = encode_tubelet(frames, [index * 33_000_000 for index in range(4)], crf=18)
    grid = VisionLayout().patch_grid(height, width)
    out = np.empty((4, grid.tokens, 32, 32, 3), np.uint8)
    decode_tubelet(data, (height, width), grid, out, where="")
    with av.open(io.BytesIO(data)) as container:
        images = [Image.fromarray(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    for patches, image in zip(out, images, strict=True):
        expected = np.asarray(image.resize((grid.width, grid.height), Image.Resampling.BILINEAR))
        assert np.abs(join_patches(patches, grid).astype(int) - expected).max() <= 1
