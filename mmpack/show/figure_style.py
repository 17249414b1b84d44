"""The common look of all plots: size and resolution of figures, headings, colours."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, RED, ORANGE = "#3b7dd8", "#d1495b", "#e8871e"


def make_figure(width: float, height: float, *, dpi: int = 110) -> Figure:
    """Makes an empty figure of `width` × `height` inches whose parts are laid out without overlaps."""
    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def set_heading(figure: Figure, text: str, *, size: int = 12) -> None:
    """Writes the heading of a figure at its upper left."""
    figure.suptitle(text, fontsize=size, x=0.01, ha="left")


def hide_spines(axes: Axes, *sides: str) -> None:
    """Hides the lines at these sides of the axes."""
    for side in sides:
        axes.spines[side].set_visible(False)
