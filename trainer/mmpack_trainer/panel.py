"""The experts of a step: figures over all layers, bars of each layer, and one line to read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from mmpack_trainer.train import Step

#: Columns of `Step.gate`. A softmax does not see a shift of all logits, so that their mean alone tells nothing.
_GATE = ("mean", "variance", "logsumexp", "entropy", "margin")
_HEIGHTS = "▁▂▃▄▅▆▇█"
_WIDEST = 64


def loads(step: Step) -> NDArray[np.float64]:
    """Choices of each expert over the even share of its layer, (layers, E): 1 is even."""
    counts = step.chosen.numpy().astype(np.float64)
    return counts / np.maximum(counts.mean(1, keepdims=True), 1e-9)


def figures(step: Step) -> dict[str, float]:
    """Over all layers: least and most load, experts without a token, choices dropped, the balancing loss whether it is
    minimised or not, and means of the gates' statistics; nothing without experts."""
    if not step.chosen.numel():
        return {}
    load = loads(step)
    gate = step.gate.double().mean(0).tolist()
    return {
        "experts/dropped": step.dropped / max(int(step.chosen.sum()), 1),
        "experts/balance": step.parts["aux"],
        "experts/least": float(load.min()),
        "experts/most": float(load.max()),
        "experts/idle": float((load == 0).sum()),
        **{f"gate/{name}": value for name, value in zip(_GATE, gate, strict=True)},
    }


def bars(step: Step, *, first_layer: int) -> dict[str, list[float]]:
    """Of each layer, a bar an expert: tokens that chose it, and the norm of its gradient in the gate.

    Args:
        step: what is shown.
        first_layer: the number of the first layer with experts.
    """
    found: dict[str, list[float]] = {}
    for name, rows in (("experts/tokens", step.chosen), ("gate/gradient", step.router_gradient)):
        for number, row in enumerate(rows.tolist(), first_layer):
            found[f"{name}/layer{number}"] = [float(f"{value:.5g}") if value % 1 else value for value in row]
    return found


def experts_line(step: Step, *, first_layer: int) -> str:
    """Tokens of each expert of the most uneven layer, as bars: an even one is half as high as can be, `·` has none.

    More than 64 experts are shown as that many groups or fewer, by their fullest.
    """
    load = loads(step)
    layer = int(load.std(1).argmax())
    row = load[layer]
    groups = np.array_split(row, min(len(row), _WIDEST))
    highest = [float(group.max()) for group in groups]
    scale = 8 / max(2.0, *highest)
    drawn = "".join(_HEIGHTS[max(0, round(each * scale) - 1)] if each else "·" for each in highest)
    return f"experts {drawn} layer {layer + first_layer}, {row.min():.2f} to {row.max():.2f} of an even share"
