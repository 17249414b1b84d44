"""Assignment of rows to steps and ranks, so that no rank waits long for another rank."""

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
    """The rows that each rank computes in each step.

    Attributes:
        rows: int64 (steps, ranks, rows per rank), row indices; a rank computes its rows of a step in this order.
        cost: float64 (steps, ranks), sum of the costs of the rows that a rank computes in a step.
        unscheduled_rows: int64, rows that did not fill a step, ascending.
    """

    rows: NDArray[np.int64]
    cost: NDArray[np.float64]
    unscheduled_rows: NDArray[np.int64]

    @property
    def utilisation(self) -> NDArray[np.float64]:
        """The share of each step in which a rank works: mean / maximum of the costs of the ranks, float64 (steps,)."""
        busiest = self.cost.max(axis=1)
        return np.divide(self.cost.mean(axis=1), busiest, out=np.ones_like(busiest), where=busiest > 0)

    @property
    def efficiency(self) -> float:
        """The utilisation of the whole schedule: work / (ranks × time), where a step takes as long as its slowest rank."""
        time = self.cost.max(axis=1).sum() * self.cost.shape[1]
        return float(self.cost.sum() / time) if time else 1.0


def row_costs(
    packing: Packing, lengths: ArrayLike, *, quadratic: float = 1.0, linear: float = 0.0
) -> NDArray[np.float64]:
    """Computes the cost of each row: Σ quadratic·l² + linear·l over the lengths l of its documents.

    The cost of attention is quadratic in the length of a document, all other costs are linear. A model with 7B
    parameters and width 4,096 costs about l² + 24,576·l: the matrix products of a layer cost as much as its attention
    where l is six times the width.

    Args:
        packing: n items in rows.
        lengths: integers (n,), the lengths that were packed.

    Returns:
        float64 (rows,).

    Raises:
        DataError: the number of lengths differs from the number of packed items.
    """
    values = as_lengths(lengths)
    if values.size != packing.ids.size:
        raise DataError(
            f"{values.size:,} lengths for {packing.ids.size:,} packed items",
            hint="Give one length per packed item.",
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
    """Assigns rows to steps, and the rows of each step to ranks.

    The rows of a step depend only on `costs`, `global_batch`, `steps` and `seed`: with another number of ranks every
    step has the same rows.

    Args:
        costs: float (rows,), finite and not negative, for instance from :func:`row_costs`.
        global_batch: number of rows of a step over all ranks.
        ranks: number of ranks; it divides `global_batch`. If a rank has several rows per step, they are assigned by
            longest processing time first, and then swapped between ranks while a swap helps. A rank computes its most
            expensive row first, so that the ranks are balanced within a step too.
        steps: "like" puts rows of similar cost into the same step and shuffles the steps; one row per rank needs this.
            "given" takes the rows in their order, so steps are as random as the rows; this is enough for several rows
            per rank.
        seed: seed of the order of the steps and of the choice of unscheduled rows, if `steps` is "like".

    Raises:
        DataError: a cost is negative or not finite (the message names the first one).
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
    invalid = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if invalid.size:
        raise DataError(
            f"cost is {values[invalid[0]]}",
            where=f"row {invalid[0]}",
            hint="Give costs that are finite and not negative.",
        )
    step_rows, unscheduled = _form_steps(values, global_batch, steps, seed)
    if ranks == global_batch:
        return RankSchedule(step_rows[:, :, None], values[step_rows], unscheduled)
    from mmpack.packing.rank_assignment import assign_rows_to_ranks

    rows = assign_rows_to_ranks(values, step_rows, ranks)
    return RankSchedule(rows, values[rows].sum(axis=2), unscheduled)


def _form_steps(
    costs: NDArray[np.float64], batch: int, order: str, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the row indices of each step, int64 (steps, batch), and the rows that do not fill a step."""
    steps = costs.size // batch
    rest = costs.size - steps * batch
    if order == "given":
        rows = np.arange(costs.size)
        return rows[: steps * batch].reshape(steps, batch), rows[steps * batch :]
    from mmpack.packing.shuffle import permutation

    unscheduled = np.sort(permutation(costs.size, seed)[:rest])
    rows = np.delete(np.arange(costs.size), unscheduled)
    rows = rows[np.argsort(costs[rows], kind="stable")].reshape(steps, batch)
    # Costs ascend within a step: rows are shuffled, so that no rank always gets the cheapest row.
    within = np.argsort(permutation(rows.size, seed + 1).reshape(steps, batch), axis=1)
    return np.take_along_axis(rows[permutation(steps, seed + 2)], within, axis=1), unscheduled
