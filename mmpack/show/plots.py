"""Plots: the PNG files that commands write.

A new plot is one file with a function that returns a matplotlib figure, and one line in `PLOTS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpack.errors import ConfigError
from mmpack.storage.store import storage_errors

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot.

    Attributes:
        content: what the plot shows.
        function: "module:function" of the function that draws the plot and returns the figure. It is imported only
            when the plot is drawn, because importing matplotlib takes most of the start of a command.
    """

    content: str
    function: str

    def draw(self, *arguments: Any) -> Figure:
        """Returns the figure; the arguments are those of the function."""
        module, _, function = self.function.partition(":")
        return getattr(import_module(module), function)(*arguments)


PLOTS: dict[str, Plot] = {
    "sync": Plot("residuals by stream and a timeline with gaps", "mmpack.show.sync_plot:plot_sync"),
    "mixture": Plot("shares and epochs of data sets over tokens", "mmpack.show.mixture_plot:plot_forecast"),
    "packing": Plot("histograms of the fill and the cost of rows", "mmpack.show.packing_plot:plot_packing"),
    "mask": Plot("a row, the blocks of its mask, and spot checks", "mmpack.show.mask.mask_plot:plot_mask"),
}
"""Every plot, by name."""


def write_plot(name: str, path: Path, *arguments: Any) -> None:
    """Draws a plot and writes it to a PNG file.

    Args:
        name: name of the plot in :data:`PLOTS`.
        path: file to write; an existing file is replaced.
        arguments: arguments of the plot's function.

    Raises:
        ConfigError: `path` does not end in .png.
        StorageError: the file cannot be written.
    """
    require_png_suffix(path)
    figure = PLOTS[name].draw(*arguments)
    with storage_errors(path, "writing"):
        figure.savefig(path, dpi="figure", format="png")


def require_png_suffix(path: Path | None) -> None:
    """Raises ConfigError if `path` is set and does not end in .png. Commands with --plot call this before any work."""
    if path is not None and path.suffix.lower() != ".png":
        raise ConfigError(
            f"'{path.name}' is not the name of a PNG file",
            where="--plot",
            hint="Use a name that ends in .png.",
        )
