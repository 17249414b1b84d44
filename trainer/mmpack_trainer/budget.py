"""What a run asks for and what that costs: floating-point operations, GPU hours, days, money.

Training takes 6 FLOP a token for each weight that the token is multiplied with, forward and backward, and attention within
documents besides; 2 a weight are the forward pass alone. A utilisation is a share of the dense bf16 peak, without what
recomputation does again (MFU: PaLM, arXiv 2204.02311, appendix B).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mmpack_trainer.config.schema import ModelConfig
from mmpack_trainer.flops import Work, useful_flops
from mmpack_trainer.parameters import Parameters


@dataclass(frozen=True, slots=True)
class Utilisation:
    """What published runs of a kind of model reach on H100, in bf16."""

    planned: float
    """To plan with."""
    least: float
    """Under it, something holds a run up."""
    published: str


DENSE = Utilisation(
    planned=0.40,
    least=0.40,
    published="published dense runs reach 33 to 48 %: Llama 3 8B with torchtitan 33 to 39, Llama 3 405B 38 to 43, "
    "Megatron-LM 41 to 48; aim at 45 to 55",
)
MOE = Utilisation(
    planned=0.29,
    least=0.25,
    published="29 is the middle of 25 to 33 %; published MoE runs in bf16 reach 22 to 33: DeepSeek-V3 22 to 25, "
    "Qwen3-30B 28, Nemotron-Nano-30B 33",
)


def utilisation_of(parameters: Parameters) -> Utilisation:
    """Of models like this one."""
    return MOE if parameters.routed else DENSE


def alerts(mfu: float, parameters: Parameters) -> list[str]:
    """What to say of a utilisation that is too low; nothing if it is not."""
    least = utilisation_of(parameters).least
    if mfu >= least:
        return []
    kind = "a model with experts" if parameters.routed else "a dense model"
    return [
        f"ALERT: MFU {mfu:.1%} is under the {least:.0%} that {kind} should reach: look for what holds it up in data, "
        "communication and small kernels"
    ]


@dataclass(frozen=True, slots=True)
class Demand:
    """What a run asks for."""

    steps: int
    places: int
    """Token places of a step, over all ranks."""
    fill: float
    """Valid tokens over places."""
    products: float
    """FLOP a token in products with weights, 6 · N."""
    attention: float
    """FLOP a token in attention."""

    @property
    def tokens(self) -> float:
        """Valid ones of the run."""
        return self.steps * self.places * self.fill

    @property
    def flops(self) -> float:
        """Of the run."""
        return self.tokens * (self.products + self.attention)


def demand_of(work: Work, model: ModelConfig, parameters: Parameters, *, steps: int, places: int) -> Demand:
    """What `steps` steps of `places` places ask for.

    Args:
        work: some rows like those of the run.
    """
    products = useful_flops(replace(work, squares=0), model, parameters)
    attention = useful_flops(work, model, parameters) - products
    return Demand(steps, places, work.fill, products / work.tokens, attention / work.tokens)


@dataclass(frozen=True, slots=True)
class Rig:
    """What a run is done on."""

    gpus: int
    price: float
    """Of a GPU hour, in any currency."""
    buffer: float
    """Factor on time and cost, for restarts, checkpoints, evaluation and maintenance."""


@dataclass(frozen=True, slots=True)
class Bill:
    """What it takes."""

    gpu_hours: float
    days: float
    cost: float

    def times(self, factor: float) -> Bill:
        """With a buffer."""
        return Bill(self.gpu_hours * factor, self.days * factor, self.cost * factor)


def bill_at(tokens_per_s: float, tokens: float, rig: Rig) -> Bill:
    """Of `tokens` at a rate of all GPUs together."""
    hours = tokens / tokens_per_s / 3600
    return Bill(hours * rig.gpus, hours / 24, hours * rig.gpus * rig.price)


def planned_rate(demand: Demand, rig: Rig, *, peak_flops: float, mfu: float) -> float:
    """Tokens/s of all GPUs at a share of the peak of each."""
    return rig.gpus * peak_flops * mfu / (demand.products + demand.attention)
