"""Work of a packed step in floating-point operations, and what share of the hardware's peak it is.

Four figures are told apart. *Fill* is valid tokens over places. *Useful* MFU counts valid tokens and attention within
documents, Σ l². *Slot* MFU counts every place and attention over whole rows, L², which is what is often printed. *HFU*
adds to the useful work what recomputation does again. (MFU: PaLM, arXiv 2204.02311, appendix B.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from mmpack.stream import Plan
from mmpack_trainer.config.schema import ComputeConfig, ModelConfig
from mmpack_trainer.parameters import Parameters, head_width

#: Forward and backward are three passes of two operations a weight; attention adds 12 · width · Σ l² for the full square, and
#: half of it where later places are never seen.
_PER_WEIGHT = 6
_PER_PAIR_CAUSAL = 6


@dataclass(frozen=True, slots=True)
class Work:
    """What rows hold. Works of ranks and micro-batches add up."""

    rows: int
    places: int
    """Of all rows."""
    tokens: int
    """Valid ones."""
    squares: int
    """Σ l² over documents."""
    squares_rows: int
    """Σ L² over rows."""
    patches: int
    unlabelled: int = 0
    """Valid tokens that predict no id: the output head passes over them."""

    @classmethod
    def of(cls, cu_seqlens: Sequence[ArrayLike], *, seq_len: int, patches: int) -> Self:
        """Of rows with documents at `cu_seqlens`, integers (D + 1,) each, and `patches` in all."""
        lengths = [np.diff(np.asarray(each)).astype(np.int64) for each in cu_seqlens]
        rows = len(lengths)
        return cls(
            rows=rows,
            places=rows * seq_len,
            tokens=sum(int(each.sum()) for each in lengths),
            squares=sum(int((each * each).sum()) for each in lengths),
            squares_rows=rows * seq_len * seq_len,
            patches=patches,
        )

    @classmethod
    def sum(cls, works: Iterable[Self]) -> Self:
        """All of them together."""
        each = list(works)
        return cls(*(sum(getattr(work, name) for work in each) for name in cls.__slots__))

    @property
    def fill(self) -> float:
        """Valid tokens over places."""
        return self.tokens / self.places if self.places else 0.0


def planned_work(plan: Plan, step: int) -> Work:
    """Of a step of the run, from its plan alone: no row is read. Patches are left out, under 1 % of a model's work.

    Raises:
        DataError: the plan ends before it.
    """
    first, seq_len = step * plan.config.global_batch, plan.config.max_seq_len
    window = plan.window(first // plan.rows_per_window)
    slot = first % plan.rows_per_window
    offsets = window.offsets[slot : slot + plan.config.global_batch + 1]
    lengths = window.tokens[offsets[0] : offsets[-1]]
    rows = len(offsets) - 1
    return Work(
        rows, rows * seq_len, int(lengths.sum()), int((lengths**2).sum()), rows * seq_len * seq_len, patches=0
    )


def planned_steps(plan: Plan) -> int | None:
    """How many steps a plan has rows for: exact where its first window is its last, else as if all were as full.

    Returns:
        None: without end.

    Raises:
        DataError: not for one.
    """
    end = plan.quota_curve.end_tokens
    if end is None:
        return None
    plan.row(0)
    window = plan.window(0)
    tokens = int(window.tokens[: window.offsets[window.rows]].sum())
    rows = window.rows if window.end is None else end * window.rows // tokens
    return rows // plan.config.global_batch


def useful_flops(work: Work, model: ModelConfig, parameters: Parameters) -> int:
    """Forward and backward of the valid tokens, without recomputation; the head only where an id is predicted."""
    skipped = _PER_WEIGHT * parameters.head * work.unlabelled
    return _flops(work.tokens, work.squares, work.patches, model, parameters) - skipped


def slot_flops(work: Work, model: ModelConfig, parameters: Parameters) -> int:
    """The same as if rows were one document each, full to the last place."""
    return _flops(work.places, work.squares_rows, work.patches, model, parameters)


def _flops(tokens: int, squares: int, patches: int, model: ModelConfig, parameters: Parameters) -> int:
    products = parameters.products * tokens + parameters.patches * patches
    attention = model.layers * model.heads * head_width(model) * squares
    return _PER_WEIGHT * products + _PER_PAIR_CAUSAL * attention


@dataclass(frozen=True, slots=True)
class Rates:
    """Of one step over all devices. Utilisations are None where there is no peak to measure them by, as on a CPU."""

    tokens_per_s: float
    """Valid tokens."""
    fill: float
    useful_mfu: float | None
    slot_mfu: float | None
    hfu: float | None
    """None with selective recomputation, too: what is done again is torch's choice."""


def rates_of(
    work: Work,
    *,
    wall_s: float,
    devices: int,
    peak_flops: float | None,
    model: ModelConfig,
    parameters: Parameters,
    recompute: str = ComputeConfig().recompute,
) -> Rates:
    """Rates of a step.

    Args:
        work: of the whole step, summed over data-parallel ranks.
        wall_s: what it took.
        devices: all of them, tensor-parallel peers included.
        peak_flops: of one device at the precision of the products, see :func:`mmpack_trainer.hardware.peak_flops`.
        recompute: `none`, `selective` or `full`.
    """
    tokens_per_s = work.tokens / wall_s
    if peak_flops is None:
        return Rates(tokens_per_s, work.fill, None, None, None)
    most = peak_flops * devices * wall_s
    useful = useful_flops(work, model, parameters) / most
    # Recomputing every layer is a second forward pass: four passes where there were three.
    hfu = {"none": useful, "full": useful * 4 / 3}.get(recompute)
    return Rates(tokens_per_s, work.fill, useful, slot_flops(work, model, parameters) / most, hfu)
