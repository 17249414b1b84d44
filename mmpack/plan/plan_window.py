"""A window of the plan: drawn documents are packed into rows, and rows are assigned to steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mmpack.packing import balance_rows
from mmpack.packing.pack_window import WindowPacking, pack_window
from mmpack.plan.draws import DrawnDocuments
from mmpack.plan.epoch_order import epoch_order
from mmpack.plan.plan_config import PlanConfig
from mmpack.plan.state import WindowCursor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Window:
    """The rows of one window, step after step.

    Attributes:
        number: number of the window, from 0.
        start: cursor at which the window starts.
        end: cursor at which the next window starts; None if this window is the last.
        dataset: int16 (documents,), index of the data set of each document.
        first, stop: int64 (documents,), a document holds the samples `first` to `stop - 1` of its shard set.
        tokens: int64 (documents,), length of each document in positions.
        offsets: int64 (rows + 1,), row r holds the documents `offsets[r]` to `offsets[r + 1] - 1`.
        cost: float64 (rows,), cost of each row, as `[cost]` defines it.
        num_unplanned: number of documents that are in no row, because they do not fill a step at the end of the plan.
    """

    number: int
    start: WindowCursor
    end: WindowCursor | None
    dataset: NDArray[np.int16]
    first: NDArray[np.int64]
    stop: NDArray[np.int64]
    tokens: NDArray[np.int64]
    offsets: NDArray[np.int64]
    cost: NDArray[np.float64]
    num_unplanned: int

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.offsets) - 1


def plan_window(number: int, draws: DrawnDocuments, config: PlanConfig, key: np.uint64) -> Window:
    """Plans the rows of a window.

    Args:
        number: number of the window.
        draws: documents from the start of the window on, more than the window holds unless the plan ends.
        config: settings of the plan.
        key: uint64, seed of every random choice in this window.
    """
    max_rows = config.window_steps * config.global_batch
    slice_lengths, offsets, overhead = _document_runs(draws)
    seed = int(key >> np.uint64(1))
    packed = pack_window(slice_lengths, offsets, overhead, config.max_seq_len, max_rows, seed=seed)
    cost = _row_costs(packed, config)
    row_order = _order_rows(cost, config, key, seed)
    # A window is the last if it contains all draws and no draws follow them.
    is_last = draws.ended and packed.num_runs == len(draws.dataset)
    sizes = np.diff(packed.offsets)[row_order]
    bounds = np.concatenate(([0], np.cumsum(sizes)))
    id_index = np.repeat(packed.offsets[:-1][row_order] - bounds[:-1], sizes) + np.arange(bounds[-1])
    document = packed.ids[id_index]
    run = packed.run[document]
    # An indivisible document was packed as a run of one slice, so slice indices do not count its samples.
    is_indivisible = draws.is_indivisible[run]
    first = draws.first[run] + np.where(is_indivisible, 0, packed.start[document] - offsets[run])
    stop = np.where(is_indivisible, draws.stop[run], first + packed.stop[document] - packed.start[document])
    return Window(
        number=number,
        start=draws.start,
        end=None if is_last else draws.cursor_after(packed.num_runs),
        dataset=draws.dataset[run],
        first=first,
        stop=stop,
        tokens=packed.lengths[document],
        offsets=bounds,
        cost=cost[row_order],
        num_unplanned=len(packed.lengths) - len(document),
    )


def _document_runs(draws: DrawnDocuments) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Returns the drawn documents as runs: (slice lengths, run offsets, overheads), the input of `pack_window`."""
    num_slices = np.where(draws.is_indivisible, 1, draws.stop - draws.first)
    offsets = np.concatenate(([0], np.cumsum(num_slices)))
    lengths = np.empty(offsets[-1], np.int64)
    lengths[offsets[:-1][draws.is_indivisible]] = draws.tokens[draws.is_indivisible]
    for dataset in draws.datasets:
        draw = np.flatnonzero((draws.dataset == dataset.index) & ~draws.is_indivisible)
        _gather_lengths(
            dataset.catalog.columns["tokens"], draws.first[draw], num_slices[draw], offsets[draw], lengths
        )
    run_lengths = np.add.reduceat(lengths, offsets[:-1]) if len(lengths) else np.empty(0, np.int64)
    return lengths, offsets, draws.tokens - run_lengths


@njit(cache=True, nogil=True)
def _gather_lengths(tokens: Any, first: Any, num_slices: Any, offsets: Any, lengths: Any) -> None:
    """Copies the tokens of samples `first[i]`, `first[i] + 1`, ... to `lengths[offsets[i]]` and the entries after it."""
    for i in range(first.size):
        for j in range(num_slices[i]):
            lengths[offsets[i] + j] = tokens[first[i] + j]


def _row_costs(packed: WindowPacking, config: PlanConfig) -> NDArray[np.float64]:
    """Computes the cost of each row: the sum of the costs of its documents."""
    if not packed.rows:
        return np.empty(0)
    length = packed.lengths[packed.ids].astype(np.float64)
    return np.add.reduceat(
        length * (config.cost.quadratic * length + config.cost.linear), packed.offsets[:-1]
    )


def _order_rows(
    cost: NDArray[np.float64], config: PlanConfig, key: np.uint64, seed: int
) -> NDArray[np.int64]:
    """Returns the indices of the packed rows in the order of the plan, step after step, for complete steps only."""
    batch = config.global_batch
    if config.balance == "step":
        return balance_rows(cost, global_batch=batch, ranks=batch, seed=seed).rows.reshape(-1)
    num_rows = len(cost) // batch * batch
    if not num_rows:
        return np.empty(0, np.int64)
    rows = epoch_order(0, len(cost), len(cost), 1, key)[:num_rows]
    if config.balance == "off":
        return rows
    # Each rank computes its rows in descending order of cost, which so is the order of their numbers.
    steps = rows.reshape(-1, batch)
    by_cost = np.argsort(-cost[steps], axis=1, kind="stable")
    return np.take_along_axis(steps, by_cost, axis=1).reshape(-1)
