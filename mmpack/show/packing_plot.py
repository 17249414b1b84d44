"""Plot of a packing: histograms of the fill and the cost of rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmpack.packing import RunPacking


def plot_packing(run_packing: RunPacking, costs: Any, path: Path, max_seq_len: int) -> None:
    """Writes a PNG with a histogram of the fill of rows and one of their cost.

    Args:
        run_packing: packing of the documents.
        costs: cost of each row.
        path: PNG file to write.
        max_seq_len: number of positions of a row.
    """
    import numpy as np
    from matplotlib.figure import Figure

    packing = run_packing.packing
    used = (
        np.add.reduceat(run_packing.lengths[packing.ids], packing.offsets[:-1])
        if packing.rows
        else np.empty(0)
    )
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.hist(100 * used / max_seq_len, bins=60, color="#3b7dd8", log=True)
    left.set_xlabel("fill of a row, %")
    left.set_ylabel("rows (log)")
    left.set_title(f"{packing.rows} rows, fill {packing.fill:.3%}", loc="left", fontsize=10)
    right.hist(costs, bins=60, color="#e8871e")
    right.set_xlabel("cost of a row")
    right.set_ylabel("rows")
    right.set_title("cost of a row for a rank", loc="left", fontsize=10)
    figure.savefig(path, dpi=110)
