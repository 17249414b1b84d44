"""One window: documents drawn in their shares, packed into rows, rows dealt to steps."""

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


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """The rows of one window, step after step.

    Attributes:
        number: of the window.
        start: where it starts.
        end: where the next one starts; None if it is the last.
        dataset: int16 (documents,), of each document.
        first, stop: int64 (documents,), its samples in its data set's build.
        tokens: int64 (documents,), places.
        offsets: int64 (rows + 1,), row r holds the documents `offsets[r]` to `offsets[r + 1] - 1`.
        cost: float64 (rows,), what a rank has to do for each.
        left: documents at the very end of the run that fill no whole step.
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
        """How many there are."""
        return len(self.offsets) - 1


def plan_window(number: int, draws: DrawnDocuments, config: PlanConfig, key: np.uint64) -> Window:
    """The rows of a window.

    Args:
        number: of the window.
        draws: the documents from its start on, more than fill it.
        config: of the plan.
        key: uint64, of everything random in this window.
    """
    rows = config.window_steps * config.global_batch
    slices, offsets, overhead = _document_runs(draws)
    seed = int(key >> np.uint64(1))
    packed = pack_window(slices, offsets, overhead, config.max_seq_len, rows, seed=seed)
    cost = _row_costs(packed, config)
    chosen = _order_rows(cost, config, key, seed)
    # Only the end of the data, or of the last phase, leaves a window short.
    is_last = draws.ended and packed.num_runs == len(draws.dataset)
    sizes = np.diff(packed.offsets)[chosen]
    bounds = np.concatenate(([0], np.cumsum(sizes)))
    place = np.repeat(packed.offsets[:-1][chosen] - bounds[:-1], sizes) + np.arange(bounds[-1])
    document = packed.ids[place]
    chain = packed.run[document]
    # A pair was packed as one indivisible slice, whatever it holds.
    whole = draws.is_full[chain]
    begin = draws.first[chain] + np.where(whole, 0, packed.start[document] - offsets[chain])
    end = np.where(whole, draws.stop[chain], begin + packed.stop[document] - packed.start[document])
    return Window(
        number,
        draws.start,
        None if is_last else draws.cursor_after(packed.num_runs),
        draws.dataset[chain],
        begin,
        end,
        packed.lengths[document],
        bounds,
        cost[chosen],
        len(packed.lengths) - len(document),
    )


def _document_runs(draws: DrawnDocuments) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(slice lengths, chain offsets, overheads), as packing takes them."""
    count = np.where(draws.is_full, 1, draws.stop - draws.first)
    offsets = np.concatenate(([0], np.cumsum(count)))
    lengths = np.empty(offsets[-1], np.int64)
    lengths[offsets[:-1][draws.is_full]] = draws.tokens[draws.is_full]
    for dataset in draws.datasets:
        mine = np.flatnonzero((draws.dataset == dataset.number) & ~draws.is_full)
        _gather_lengths(
            dataset.catalog.columns["tokens"], draws.first[mine], count[mine], offsets[mine], lengths
        )
    within = np.add.reduceat(lengths, offsets[:-1]) if len(lengths) else np.empty(0, np.int64)
    return lengths, offsets, draws.tokens - within


@njit(cache=True, nogil=True)
def _gather_lengths(tokens: Any, first: Any, count: Any, to: Any, lengths: Any) -> None:
    for i in range(first.size):
        for j in range(count[i]):
            lengths[to[i] + j] = tokens[first[i] + j]


def _row_costs(packed: WindowPacking, config: PlanConfig) -> NDArray[np.float64]:
    if not packed.rows:
        return np.empty(0)
    length = packed.lengths[packed.ids].astype(np.float64)
    return np.add.reduceat(
        length * (config.cost.quadratic * length + config.cost.linear), packed.offsets[:-1]
    )


def _order_rows(
    cost: NDArray[np.float64], config: PlanConfig, key: np.uint64, seed: int
) -> NDArray[np.int64]:
    """Row numbers, step after step; whole steps only."""
    batch = config.global_batch
    if config.balance == "step":
        return balance_rows(cost, global_batch=batch, ranks=batch, seed=seed).rows.reshape(-1)
    whole = len(cost) // batch * batch
    if not whole:
        return np.empty(0, np.int64)
    rows = epoch_order(0, len(cost), len(cost), 1, key)[:whole]
    if config.balance == "off":
        return rows
    # The costliest first, as ranks do their rows: so a rank's rows come in the order of their numbers.
    steps = rows.reshape(-1, batch)
    by_cost = np.argsort(-cost[steps], axis=1, kind="stable")
    return np.take_along_axis(steps, by_cost, axis=1).reshape(-1)
