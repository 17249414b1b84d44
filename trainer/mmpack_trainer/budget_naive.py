"""A budget with four common mistakes, next to the corrected one.

The example: 256 × H100 at 50 % of an FP8 peak of 2,000 TFLOP/s, a mixture of experts with 2.5B active parameters,
10T tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log10

from mmpack_trainer.budget import MOE
from mmpack_trainer.hardware import Device, peak_flops

_GPUS = 256
_FP8_PEAK = 2000e12
_FP8_SHARE = 0.5
_ACTIVE = 2.5e9
_TOKENS = 10e12
_DAY_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class ExampleColumn:
    """The example, computed in one way."""

    title: str
    flops_per_token: float
    tokens: float
    flops_per_s: float
    """Achieved FLOP/s of all GPUs together."""
    seconds: float
    days: float

    @property
    def flops(self) -> float:
        """FLOP of the training run."""
        return self.flops_per_token * self.tokens


CORRECTIONS = (
    "2 · N is the forward pass; forward and backward are 6 · N, plus attention (left out here).",
    "10T tokens are 10¹³. The naive product uses 5 · 10¹², which gives 2.5e22 instead of 5e22 at 2 · N, or 1.5e23 at 6 · N.",
    "97,600 s are 1.13 days, not 11.3.",
    "50 % of the FP8 peak is not reached by a mixture of experts: published runs reach 22 to 33 % of the bf16 peak, 989.4 TFLOP/s.",
)
"""What is wrong in the first column, one sentence each."""


def example_columns() -> tuple[ExampleColumn, ...]:
    """Returns the naive example; with correct sums; at 6 · N; and at the utilisation of published MoE runs."""
    fp8 = _GPUS * _FP8_PEAK * _FP8_SHARE
    bf16 = peak_flops(Device("H100", (9, 0))) or 0.0
    return (
        _naive(fp8),
        _column("correct sums", 2, fp8),
        _column("at 6 · N", 6, fp8),
        _column(f"and {MOE.planned:.0%} of bf16", 6, _GPUS * bf16 * MOE.planned),
    )


def _naive(flops_per_s: float) -> ExampleColumn:
    """Uses half of the tokens, truncates seconds to three digits, and gives days that are ten times too many."""
    flops_per_token, tokens = 2 * _ACTIVE, _TOKENS / 2
    seconds = flops_per_token * tokens / flops_per_s
    unit = 10 ** (floor(log10(seconds)) - 2)
    cut = seconds // unit * unit
    return ExampleColumn("naive", flops_per_token, tokens, flops_per_s, cut, round(10 * cut / _DAY_S, 1))


def _column(title: str, per_weight: int, flops_per_s: float) -> ExampleColumn:
    flops_per_token = per_weight * _ACTIVE
    seconds = flops_per_token * _TOKENS / flops_per_s
    return ExampleColumn(title, flops_per_token, _TOKENS, flops_per_s, seconds, seconds / _DAY_S)
