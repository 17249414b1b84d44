"""Rows dealt to steps and ranks so that no rank waits long for another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmpack.errors import ConfigError, DataError
from mmpack.packing.pack import as_lengths, check_range
from mmpack.packing.packing import Packing


@dataclass(frozen=True, slots=True, eq=False)
class RankSchedule:
    """Which rank does which row when.

    Attributes:
        rows: int64 (steps, ranks, rows per rank), row numbers; a rank does its rows of a step in this order.
        cost: float64 (steps, ranks), what a rank has to do in a step.
        left: int64, rows that did not fill a step, ascending.
    """

    rows: NDArray[np.int64]
    cost: NDArray[np.float64]
    unscheduled_rows: NDArray[np.int64]

    @property
    def utilisation(self) -> NDArray[np.float64]:
        """float64 (steps,): mean / maximum of the ranks' cost: the share of a step in which a rank works."""
        most = self.cost.max(axis=1)
        return np.divide(self.cost.mean(axis=1), most, out=np.ones_like(most), where=most > 0)

    @property
    def efficiency(self) -> float:
        """Utilisation of the whole schedule: work done / (ranks × time), where a step lasts as its slowest rank."""
        time = self.cost.max(axis=1).sum() * self.cost.shape[1]
        return float(self.cost.sum() / time) if time else 1.0


def row_costs(
    packing: Packing, lengths: ArrayLike, *, quadratic: float = 1.0, linear: float = 0.0
) -> NDArray[np.float64]:
    """Cost of each row: Σ quadratic·l² + linear·l over its documents.

    Attention is quadratic in a document's length, all else linear. A model of 7B parameters of width 4,096 costs about
    l² + 24,576·l (six widths: the products with the weights of a layer against those of its attention).

    Args:
        packing: n items in rows.
        lengths: integers (n,), as they were packed.

    Returns:
        float64 (rows,).
    """
    values = as_lengths(lengths)
    if values.size != packing.ids.size:
        raise DataError(
            f"{values.size:,} lengths for {packing.ids.size:,} packed items", hint="Give one per item."
        )
    if not packing.rows:
        return np.zeros(0)
    tokens = values[packing.ids].astype(np.float64)
    return np.add.reduceat(tokens * (quadratic * tokens + linear), packing.offsets[:-1])


def balance_rows(
    costs: ArrayLike,
    *,
    global_batch: int,
    ranks: int,
    steps: Literal["like", "given"] = "like",
    seed: int = 0,
) -> RankSchedule:
    """Deal rows to steps, and a step's rows to ranks.

    Which rows form a step depends on `costs`, `global_batch`, `steps` and `seed` alone: on another number of ranks
    every step has the same rows.

    Args:
        costs: float (rows,), finite and not negative, for instance from :func:`row_costs`.
        global_batch: rows of a step over all ranks.
        ranks: divides `global_batch`. A rank with several rows per step gets them by longest processing time,
            then by swaps while they help; it does the costliest first, so that ranks are alike within a step too.
        steps: "like" puts rows of like cost into a step and shuffles the steps: what one row per rank needs. "given"
            takes rows as they come, which keeps steps as random as the rows are: enough for several rows per rank.
        seed: order of the steps, and which rows are left over, if steps are "like".

    Raises:
        DataError: a cost is negative or not finite (the first is named).
        ConfigError: `ranks` does not divide `global_batch`, or a setting is out of range.
    """
    check_range("ranks", ranks, 1, 1 << 32)
    check_range("global_batch", global_batch, 1, 1 << 32)
    check_range("seed", seed, 0, (1 << 63) - 1)
    if global_batch % ranks:
        raise ConfigError(
            f"{ranks} ranks cannot share {global_batch} rows", hint="Make global_batch a multiple of ranks."
        )
    if steps not in ("like", "given"):
        raise ConfigError(f"steps is {steps!r}", hint='Use "like" or "given".')
    values = np.asarray(costs, np.float64)
    if values.ndim != 1:
        raise DataError(f"costs have {values.ndim} dimensions", hint="Give one cost per row.")
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if wrong.size:
        raise DataError(
            f"cost is {values[wrong[0]]}", where=f"row {wrong[0]}", hint="Costs are finite and not negative."
        )
    members, left = _form_steps(values, global_batch, steps, seed)
    if ranks == global_batch:
        return RankSchedule(members[:, :, None], values[members], left)
    from mmpack.packing.rank_assignment import assign_rows_to_ranks

    rows = assign_rows_to_ranks(values, members, ranks)
    return RankSchedule(rows, values[rows].sum(axis=2), left)


def _form_steps(
    costs: NDArray[np.float64], batch: int, kind: str, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """((steps, batch) row numbers, rows left over)."""
    steps = costs.size // batch
    rest = costs.size - steps * batch
    if kind == "given":
        rows = np.arange(costs.size)
        return rows[: steps * batch].reshape(steps, batch), rows[steps * batch :]
    from mmpack.packing.shuffle import permutation

    left = np.sort(permutation(costs.size, seed)[:rest])
    rows = np.delete(np.arange(costs.size), left)
    rows = rows[np.argsort(costs[rows], kind="stable")].reshape(steps, batch)
    # Within a step costs still ascend: shuffled, so that no rank has always the cheapest row.
    within = np.argsort(permutation(rows.size, seed + 1).reshape(steps, batch), axis=1)
    return np.take_along_axis(rows[permutation(steps, seed + 2)], within, axis=1), left
