"""The worked example of a budget that this project started from, beside the same example put right.

It reads: 256 × H100 at 50 % of an FP8 peak of 2,000 TFLOP/s; a mixture of experts of which 2.5B parameters work on a token;
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
class Column:
    """The example under one convention."""

    title: str
    flops_per_token: float
    tokens: float
    flops_per_s: float
    """Of all GPUs, as used."""
    seconds: float
    days: float

    @property
    def flops(self) -> float:
        """Of the run."""
        return self.flops_per_token * self.tokens


SLIPS = (
    "2 · N is the forward pass; forward and backward are 6 · N, and attention besides (left out here).",
    "10T tokens are 10¹³. The product is made with 5 · 10¹², so 2.5e22 stands for 5e22 at 2 · N, 1.5e23 at 6 · N.",
    "97,600 s are 1.13 days, not 11.3.",
    "50 % of the FP8 peak is no utilisation of a MoE: those published reach 22 to 33 % of the bf16 peak, 989.4 TFLOP/s.",
)
"""Of the first column, in one sentence each."""


def columns() -> tuple[Column, ...]:
    """As printed; with its sums put right; at 6 · N; and at what MoE runs reach."""
    fp8 = _GPUS * _FP8_PEAK * _FP8_SHARE
    bf16 = peak_flops(Device("H100", (9, 0))) or 0.0
    return (
        _printed(fp8),
        _column("sums put right", 2, fp8),
        _column("at 6 · N", 6, fp8),
        _column(f"and {MOE.planned:.0%} of bf16", 6, _GPUS * bf16 * MOE.planned),
    )


def _printed(flops_per_s: float) -> Column:
    """Half of the tokens; seconds cut to three digits; days a digit too large."""
    flops_per_token, tokens = 2 * _ACTIVE, _TOKENS / 2
    seconds = flops_per_token * tokens / flops_per_s
    unit = 10 ** (floor(log10(seconds)) - 2)
    cut = seconds // unit * unit
    return Column("as printed", flops_per_token, tokens, flops_per_s, cut, round(10 * cut / _DAY_S, 1))


def _column(title: str, per_weight: int, flops_per_s: float) -> Column:
    flops_per_token = per_weight * _ACTIVE
    seconds = flops_per_token * _TOKENS / flops_per_s
    return Column(title, flops_per_token, _TOKENS, flops_per_s, seconds, seconds / _DAY_S)
