"""A 5 x 7 bitmap font, with which burned-in names and times look the same on every machine."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

GLYPH_ROWS = 7
GLYPH_COLUMNS = 5

# Each character has seven rows of five bits: the top row is first, the highest bit is the leftmost column.
_GLYPHS = {
    "0": (14, 17, 19, 21, 25, 17, 14),
    "1": (4, 12, 4, 4, 4, 4, 14),
    "2": (14, 17, 1, 2, 4, 8, 31),
    "3": (31, 2, 4, 2, 1, 17, 14),
    "4": (2, 6, 10, 18, 31, 2, 2),
    "5": (31, 16, 30, 1, 1, 17, 14),
    "6": (6, 8, 16, 30, 17, 17, 14),
    "7": (31, 1, 2, 4, 8, 8, 8),
    "8": (14, 17, 17, 14, 17, 17, 14),
    "9": (14, 17, 17, 15, 1, 2, 12),
    "A": (14, 17, 17, 31, 17, 17, 17),
    "B": (30, 17, 17, 30, 17, 17, 30),
    "C": (14, 17, 16, 16, 16, 17, 14),
    "E": (31, 16, 16, 30, 16, 16, 31),
    "F": (31, 16, 16, 30, 16, 16, 16),
    "G": (14, 17, 16, 23, 17, 17, 14),
    "H": (17, 17, 17, 31, 17, 17, 17),
    "I": (14, 4, 4, 4, 4, 4, 14),
    "K": (17, 18, 20, 24, 20, 18, 17),
    "L": (16, 16, 16, 16, 16, 16, 31),
    "N": (17, 25, 21, 19, 17, 17, 17),
    "O": (14, 17, 17, 17, 17, 17, 14),
    "R": (30, 17, 17, 30, 20, 18, 17),
    "T": (31, 4, 4, 4, 4, 4, 4),
    ".": (0, 0, 0, 0, 0, 12, 12),
    " ": (0, 0, 0, 0, 0, 0, 0),
}


def text_bitmap(text: str, scale: int = 1) -> npt.NDArray[np.bool_]:
    """Renders one line of text.

    Args:
        text: text of digits, point, space and the capital letters of the camera names.
        scale: number of pixels per side of one dot of the font.

    Returns:
        bool array of shape (9 * scale, (6 * len(text) + 1) * scale): the text and a border that is one dot wide.

    Raises:
        KeyError: a character is not in the font.
    """
    line = np.hstack([_glyph(character) for character in text])
    dots = np.pad(line, ((1, 1), (1, 0)))
    return dots.repeat(scale, axis=0).repeat(scale, axis=1)


@functools.cache
def _glyph(character: str) -> npt.NDArray[np.bool_]:
    """Returns one character as bool (7, 6) dots; the last column is empty."""
    rows = np.array(_GLYPHS[character], dtype=np.uint8)[:, None]
    return (rows >> np.array([4, 3, 2, 1, 0, 8], dtype=np.uint8)) % 2 == 1
