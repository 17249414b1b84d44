"""A comparison of the balance modes, measured on the plan itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from msgspec.structs import replace

from mmpack.packing import balance_rows
from mmpack.plan.plan import Plan

BalanceMode = Literal["rank", "step", "off"]
"""A value of the setting `balance`."""
BALANCE_MODES: tuple[BalanceMode, ...] = get_args(BalanceMode)


@dataclass(frozen=True, kw_only=True, slots=True)
class BalanceReport:
    """The measurements of one balance mode over some windows.

    Attributes:
        mode: value of the setting `balance`.
        utilisation: mean cost / largest cost of the ranks of a step, averaged over steps: the share of a step in which a
            rank works.
        worst_step: utilisation of the worst step.
        length_spread: difference of steps in document length: standard deviation over steps, divided by the mean, of the
            length of the document that contains a random token of the step.
        share_error: distance of the token shares of a step from those of its window: half the sum of the absolute
            differences over the data sets, averaged over steps.
        fill: document tokens / positions of the rows.
    """

    mode: BalanceMode
    utilisation: float
    worst_step: float
    length_spread: float
    share_error: float
    fill: float


def compare_balance_modes(plan: Plan, *, ranks: int, windows: int) -> list[BalanceReport]:
    """Measures every balance mode on the first windows of a plan.

    Args:
        plan: plan with any balance mode.
        ranks: number of ranks that share a step.
        windows: number of windows to measure; the plan may have fewer.

    Raises:
        ConfigError: the ranks cannot share the rows of a step.
        DataError: the plan has no step.
    """
    plan.step_rows(0, 0, ranks)
    return [_measure_mode(plan, mode, ranks, windows) for mode in BALANCE_MODES]


def _measure_mode(plan: Plan, mode: BalanceMode, ranks: int, windows: int) -> BalanceReport:
    config = replace(plan.config, balance=mode)
    mode_plan = Plan(config, plan.catalogs, plan.datasets, plan.layout, window_starts=False)
    batch = config.global_batch
    utilisations, mean_lengths, share_errors = [], [], []
    tokens = positions = 0
    for number in range(windows):
        window = mode_plan.window(number)
        if not window.rows:
            break
        cost = window.cost.reshape(-1, batch)
        if mode == "rank":
            load = balance_rows(window.cost, global_batch=batch, ranks=ranks, steps="given").cost
        else:
            load = cost.reshape(len(cost), batch // ranks, ranks).sum(axis=1)
        utilisations.append(load.mean(axis=1) / load.max(axis=1))
        row = np.repeat(np.arange(window.rows), np.diff(window.offsets))
        step = row // batch
        length = window.tokens.astype(np.float64)
        step_tokens = np.bincount(step, length)
        mean_lengths.append(np.bincount(step, length**2) / step_tokens)
        shares = np.zeros((len(cost), len(plan.datasets)))
        np.add.at(shares, (step, window.dataset), length)
        window_shares = shares.sum(axis=0) / shares.sum()
        share_errors.append(np.abs(shares / step_tokens[:, None] - window_shares).sum(axis=1) / 2)
        tokens += int(window.tokens.sum())
        positions += window.rows * config.max_seq_len
        if window.end is None:
            break
    utilisation, length = np.concatenate(utilisations), np.concatenate(mean_lengths)
    return BalanceReport(
        mode=mode,
        utilisation=float(utilisation.mean()),
        worst_step=float(utilisation.min()),
        length_spread=float(length.std() / length.mean()),
        share_error=float(np.concatenate(share_errors).mean()),
        fill=tokens / positions,
    )
