"""Alarms of a run: one sentence each, said once, and again only after it has cleared.

They go by the last steps that this process did. A run that is resumed gathers them anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean, median
from typing import TYPE_CHECKING

import numpy as np

from mmpack_trainer.budget import utilisation_of
from mmpack_trainer.config.schema import TrainConfig
from mmpack_trainer.panel import loads
from mmpack_trainer.parameters import Parameters

if TYPE_CHECKING:
    from mmpack_trainer.train import Step

WINDOW = 20
"""Steps that means are taken of. The first step of a process fills pipelines, and is in none."""
_SPIKE_WINDOW = 50
#: What is a spike, over the median of the steps before. Losses move less than gradients do.
_GRADIENT_SPIKE = 5.0
_LOSS_SPIKE = 2.0
_MOST_WAITING = 0.10
_MOST_DROPPED = 0.001
#: Of an even share.
_MOST_LOAD = 2.0
#: With random weights 0.5 to 2.6 % of the choices are dropped, and shares are uneven: no alarm until training could mend it.
_LEAST_GRACE, _MOST_GRACE = 100, 1000
#: The balancing loss is about 1 at least, and starts there: that it does not fall says nothing. Nor does it rise where the
#: gate chooses one expert by a hair, which is why loads are watched too.
_MOST_BALANCE = 1.25
#: Of the layer's median. Below this share of the whole gradient it is rounding.
_MOST_GATE_GRADIENT = 5.0
_LEAST_GATE_GRADIENT = 1e-6
_LOGGED = 5
#: An alarm that stands is cleared when its value is this far below the limit: one near the limit is not said again and again.
_CLEARED = 0.9


class Monitors:
    """Looks at every step of a run.

    Args:
        config: the run.
        parameters: of its model.
        global_batch: rows of a step.
    """

    def __init__(self, config: TrainConfig, parameters: Parameters, *, global_batch: int) -> None:
        moe = config.model.moe
        self._first_layer = moe.dense_layers if moe is not None else 0
        self._grace = min(max(config.schedule.warmup_steps, _LEAST_GRACE), _MOST_GRACE)
        self._kind = "a model with experts" if parameters.routed else "a dense model"
        self._least_mfu = utilisation_of(parameters).least
        self._global_batch = global_batch
        self._steps: deque[Step] = deque(maxlen=_SPIKE_WINDOW + 1)
        self._mfus: deque[float] = deque(maxlen=_LOGGED)
        self._seen = 0
        self._standing: set[str] = set()

    def see(self, step: Step, *, useful_mfu: float | None = None) -> list[str]:
        """Takes the next step.

        Args:
            step: what it did.
            useful_mfu: of the step, where it was worked out.

        Returns:
            Alarms that have come up with it.
        """
        self._seen += 1
        self._steps.append(step)
        if useful_mfu is not None and self._seen > WINDOW:
            self._mfus.append(useful_mfu)
        found = dict(self._alarms(step))
        new = [f"step {step.number}: {text}" for name, text in found.items() if name not in self._standing]
        self._standing = set(found)
        return new

    def _alarms(self, step: Step) -> Iterator[tuple[str, str]]:
        """(name, sentence) of each that there is cause for."""
        yield from self._spikes(step)
        yield from self._utilisation()
        if self._seen <= WINDOW:
            return
        recent = list(self._steps)[-WINDOW:]
        yield from self._waiting(recent)
        if step.chosen.numel():
            if recent[0].number > self._grace:
                yield from self._dropping(recent)
                yield from self._uneven(recent)
            yield from self._balance(recent)
            yield from self._idle(recent)
            yield from self._gates(recent)

    def _is_over(self, name: str, value: float, limit: float) -> bool:
        return value > (limit * _CLEARED if name in self._standing else limit)

    def _spikes(self, step: Step) -> Iterator[tuple[str, str]]:
        before = list(self._steps)[:-1]
        if len(before) < WINDOW:
            return
        first = (step.number - 1) * self._global_batch
        where = f"rows {first} to {first + self._global_batch - 1} (mmpack show-row)"
        watched: tuple[tuple[str, float, Callable[[Step], float]], ...] = (
            ("the gradient's norm", _GRADIENT_SPIKE, lambda each: each.gradient_norm),
            ("the loss", _LOSS_SPIKE, lambda each: each.loss),
        )
        for name, factor, value in watched:
            usual = median(map(value, before))
            if self._is_over(name, value(step), factor * usual):
                yield (
                    name,
                    f"{name} is {value(step):.4g}, and was {usual:.4g} in the median of {len(before)}: {where}",
                )

    def _utilisation(self) -> Iterator[tuple[str, str]]:
        if len(self._mfus) < _LOGGED:
            return
        mean = fmean(self._mfus)
        if self._is_over("MFU", self._least_mfu, mean):
            yield (
                "MFU",
                f"useful MFU is {mean:.1%}, and {self._kind} should reach {self._least_mfu:.0%}: look for what holds it up "
                "in data, communication and small kernels",
            )

    def _waiting(self, recent: Sequence[Step]) -> Iterator[tuple[str, str]]:
        share = sum(step.waited for step in recent) / max(sum(step.seconds for step in recent), 1e-9)
        if self._is_over("waiting", share, _MOST_WAITING):
            yield (
                "waiting",
                f"{share:.0%} of the last {WINDOW} steps' time was spent waiting for rows: raise data.workers or "
                "data.threads",
            )

    def _dropping(self, recent: Sequence[Step]) -> Iterator[tuple[str, str]]:
        share = sum(step.dropped for step in recent) / max(sum(int(step.chosen.sum()) for step in recent), 1)
        if self._is_over("dropped", share, _MOST_DROPPED):
            yield (
                "dropped",
                f"{share:.2%} of the choices of the last {WINDOW} steps were dropped, over {_MOST_DROPPED:.1%}: raise "
                "model.moe.capacity_factor, or balance the experts",
            )

    def _uneven(self, recent: Sequence[Step]) -> Iterator[tuple[str, str]]:
        load = np.mean([loads(step) for step in recent], axis=0)
        layer, expert = np.unravel_index(int(load.argmax()), load.shape)
        if self._is_over("uneven", float(load.max()), _MOST_LOAD):
            yield (
                "uneven",
                f"expert {expert} of layer {layer + self._first_layer} got {load.max():.1f} times an even share of the last "
                f"{WINDOW} steps' tokens: raise loss.aux, model.moe.bias_rate or model.moe.noise",
            )

    def _balance(self, recent: Sequence[Step]) -> Iterator[tuple[str, str]]:
        mean = fmean(step.parts["aux"] for step in recent)
        if self._is_over("balance", mean, _MOST_BALANCE):
            yield (
                "balance",
                f"the balancing loss is {mean:.2f} over {WINDOW} steps, and about 1 where experts share evenly: raise "
                "loss.aux, model.moe.bias_rate or model.moe.noise",
            )

    def _idle(self, recent: Sequence[Step]) -> Iterator[tuple[str, str]]:
        layers, experts = np.nonzero(np.sum([step.chosen.numpy() for step in recent], axis=0) == 0)
        if layers.size:
            named = [
                f"{expert} of layer {layer + self._first_layer}"
                for layer, expert in zip(layers[:4].tolist(), experts[:4].tolist(), strict=True)
            ]
            more = f" and {layers.size - len(named)} more" if layers.size > len(named) else ""
            yield (
                "idle",
                f"no token chose expert {', '.join(named)}{more} in {WINDOW} steps: raise loss.aux, model.moe.bias_rate or "
                "model.moe.noise",
            )

    def _gates(self, recent: Sequence[Step]) -> Iterator[tuple[str, str]]:
        norms = np.mean([step.router_gradient.numpy() for step in recent], axis=0)
        least = _LEAST_GATE_GRADIENT * fmean(step.gradient_norm for step in recent)
        ratios = norms / np.maximum(np.median(norms, axis=1, keepdims=True), max(least, 1e-30))
        layer, expert = np.unravel_index(int(ratios.argmax()), ratios.shape)
        if self._is_over("gates", float(ratios.max()), _MOST_GATE_GRADIENT):
            yield (
                "gates",
                f"the gate's gradient of expert {expert} of layer {layer + self._first_layer} is {ratios.max():.1f} times the "
                f"median of its layer over {WINDOW} steps: raise model.moe.noise or loss.aux",
            )
