"""Plot of a packing: histograms of the fill and the cost of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from mmpack.show.figure_style import BLUE, ORANGE, make_figure

if TYPE_CHECKING:
    from mmpack.packing import RunPacking


def plot_packing(run_packing: RunPacking, costs: Any, max_seq_len: int) -> Figure:
    """Plots a histogram of the fill of rows and one of their cost.

    Args:
        run_packing: packing of the documents.
        costs: cost of each row.
        max_seq_len: number of positions of a row.
    """
    packing = run_packing.packing
    used = (
        np.add.reduceat(run_packing.lengths[packing.ids], packing.offsets[:-1])
        if packing.rows
        else np.empty(0)
    )
    figure = make_figure(11, 3.4)
    left, right = figure.subplots(1, 2)
    left.hist(100 * used / max_seq_len, bins=60, color=BLUE, log=packing.rows > 0)
    left.set_xlabel("fill of a row, %")
    left.set_ylabel("rows (log)")
    left.set_title(f"{packing.rows} rows, fill {packing.fill:.3%}", loc="left", fontsize=10)
    right.hist(costs, bins=60, color=ORANGE)
    right.set_xlabel("cost of a row")
    right.set_ylabel("rows")
    right.set_title("cost of a row for a rank", loc="left", fontsize=10)
    return figure
