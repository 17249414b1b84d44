"""What each way to balance buys and costs, measured on the plan itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from msgspec.structs import replace

from mmpack.packing import balance_rows
from mmpack.plan.plan import Plan

BalanceMode = Literal["rank", "step", "off"]
BALANCE_MODES: tuple[BalanceMode, ...] = get_args(BalanceMode)


@dataclass(frozen=True, slots=True)
class BalanceReport:
    """One way to balance, over some windows.

    Attributes:
        mode: setting `balance`.
        utilisation: mean / largest cost of the ranks of a step, mean over steps: the share of a step in which a rank
            works.
        worst: that of the worst step.
        length_spread: how unlike steps are in document length: deviation over steps of the length of the document
            that a token lies in, relative to its mean.
        share_error: how far a step's token shares are from the window's: half the sum of |differences|, mean over
            steps.
        fill: tokens / places.
    """

    mode: BalanceMode
    utilisation: float
    worst: float
    length_spread: float
    share_error: float
    fill: float


def compare_balance_modes(plan: Plan, *, ranks: int, windows: int) -> list[BalanceReport]:
    """The price of every mode on a plan's first windows.

    Args:
        plan: of any mode.
        ranks: that share a step.
        windows: how many are looked at; the run may have fewer.

    Raises:
        ConfigError: the ranks cannot share a step's rows.
        DataError: the run has not a single step.
    """
    plan.step_rows(0, 0, ranks)
    return [_measure_mode(plan, mode, ranks, windows) for mode in BALANCE_MODES]


def _measure_mode(plan: Plan, mode: BalanceMode, ranks: int, windows: int) -> BalanceReport:
    config = replace(plan.config, balance=mode)
    other = Plan(config, plan.catalogs, plan.datasets, plan.layout, ledger=False)
    batch = config.global_batch
    worked, lengths, errors = [], [], []
    tokens = places = 0
    for number in range(windows):
        window = other.window(number)
        if not window.rows:
            break
        cost = window.cost.reshape(-1, batch)
        if mode == "rank":
            load = balance_rows(window.cost, global_batch=batch, ranks=ranks, steps="given").cost
        else:
            load = cost.reshape(len(cost), batch // ranks, ranks).sum(axis=1)
        worked.append(load.mean(axis=1) / load.max(axis=1))
        row = np.repeat(np.arange(window.rows), np.diff(window.offsets))
        step = row // batch
        length = window.tokens.astype(np.float64)
        used = np.bincount(step, length)
        lengths.append(np.bincount(step, length**2) / used)
        shares = np.zeros((len(cost), len(plan.datasets)))
        np.add.at(shares, (step, window.dataset), length)
        whole = shares.sum(axis=0) / shares.sum()
        errors.append(np.abs(shares / used[:, None] - whole).sum(axis=1) / 2)
        tokens += int(window.tokens.sum())
        places += window.rows * config.max_seq_len
        if window.end is None:
            break
    utilisation, length = np.concatenate(worked), np.concatenate(lengths)
    return BalanceReport(
        mode,
        float(utilisation.mean()),
        float(utilisation.min()),
        float(length.std() / length.mean()),
        float(np.concatenate(errors).mean()),
        tokens / places,
    )
