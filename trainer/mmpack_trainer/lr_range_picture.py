"""A range test as a picture: loss over learning rate, and what is read off it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from mmpack_trainer.lr_range import Found, smoothed

# Okabe and Ito's colours, distinct to the colour-blind.
_LINE, _STEEPEST, _TENTH, _USUAL, _EACH = "#0072b2", "#009e73", "#d55e00", "#e69f00", "#c9c9c9"


def draw_range(
    rates: Sequence[float],
    losses: Sequence[float],
    found: Found,
    path: Path,
    *,
    usual: tuple[float, float] | None,
) -> None:
    """Writes a PNG.

    Args:
        rates: learning rates, ascending.
        losses: at each.
        found: what was read off them.
        path: of the file.
        usual: least and greatest peak that is usual for the model's size.

    Raises:
        OSError: the file cannot be written.
    """
    means = smoothed(losses)
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.plot(rates, losses, ".", color=_EACH, label="each step")
    axes.plot(rates, means, color=_LINE, linewidth=1.8, label="smoothed")
    if found.steepest is not None:
        axes.axvline(
            found.steepest, color=_STEEPEST, linestyle="--", label=f"falls fastest, {found.steepest:.1e}"
        )
    if found.diverged is not None:
        tenth = found.diverged / 10
        axes.axvline(tenth, color=_TENTH, linestyle=":", label=f"a tenth of where it diverges, {tenth:.1e}")
    if usual is not None:
        axes.axvspan(*usual, color=_USUAL, alpha=0.25, linewidth=0, label="usual for this size")
    # What comes behind the divergence would flatten all that is of interest.
    until = means[: rates.index(found.lowest) + 1]
    low, high = min(until), max(until)
    span = (high - low) or 1.0
    axes.set_ylim(low - 0.15 * span, high + 0.6 * span)
    axes.set_xlim(rates[0], rates[-1])
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)
