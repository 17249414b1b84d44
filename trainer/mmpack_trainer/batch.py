"""A collated batch of rows, made ready on the model's device: inputs, and the targets of the losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmpack.layout import Layout
from mmpack.rows.row import IGNORE_INDEX
from mmpack_trainer.config.schema import LossConfig
from mmpack_trainer.model.build import Widths
from mmpack_trainer.model.inputs import Inputs, Labels
from mmpack_trainer.model.masks import Backend, attention_mask


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Attributes:
    labels: int64 (B, L), -100 where nothing is predicted.
    ids: those that are, with their weights.
    actions: float32 (A, width), continuous actions.
    action_mask: bool (A, width).
    pair_valid: bool (K,), contrastive pairs whose two documents could be read.
    """

    labels: Tensor
    ids: Labels
    actions: Tensor
    action_mask: Tensor
    pair_valid: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """A micro-batch."""

    inputs: Inputs
    targets: Targets


class Batches:
    """Makes batches of one model.

    Args:
        layout: of the rows.
        loss: for the weights of labels.
        backend: of the attention.
        both_ways: whether places of one picture see each other both ways.
        device: of the model.
    """

    def __init__(
        self, layout: Layout, loss: LossConfig, *, backend: Backend, both_ways: bool, device: torch.device
    ) -> None:
        self.widths = Widths.of(layout)
        self._backend: Backend = backend
        self._both_ways, self._device = both_ways, device
        weights = torch.ones(self.widths.vocabulary)
        for stream in layout.config.numeric:
            if stream.mode == "discrete" and stream.role == "action":
                span = layout.vocabulary.range(f"bins:{stream.name}")
                weights[span.start : span.stop] = loss.discrete_action
        self._weights = weights.to(device)

    def __call__(self, arrays: Mapping[str, Any]) -> MicroBatch:
        """The batch of :func:`mmpack.stream.torch.collate_tensors`."""
        found = {name: value.to(self._device) for name, value in arrays.items() if isinstance(value, Tensor)}
        widths = self.widths
        seq_len = found["input_ids"].shape[1]
        value_stream = _places(found["value_stream"], widths.value_streams)
        action_stream = _places(found["action_stream"], widths.action_streams)
        inputs = Inputs(
            tokens=found["input_ids"].long(),
            positions=found["position_ids"].long(),
            valid=found["document_ids"] >= 0,
            mask=attention_mask(
                self._backend,
                [np.asarray(each) for each in arrays["cu_seqlens"]],
                [np.asarray(each) for each in arrays["image_spans"]] if self._both_ways else None,
                seq_len,
                self._device,
            ),
            numbers=tuple(arrays["numbers"].tolist()),
            patches=found["patches"].flatten(1) / 127.5 - 1,
            patch_index=found["patch_index"].long(),
            values=by_stream(found["values"], found["value_mask"], value_stream, len(widths.value_streams)),
            value_index=found["value_index"].long(),
            actions=by_stream(
                found["actions"], found["action_mask"], action_stream, len(widths.action_streams)
            ),
            action_index=found["action_index"].long(),
            action_stream=action_stream,
            cls_index=found["cls_index"].long(),
        )
        labels = found["labels"].long()
        # Where they are is found before they are on the device, which need not be waited for then.
        places = (arrays["labels"].flatten() != IGNORE_INDEX).nonzero().flatten().to(self._device)
        ids = labels.flatten()[places]
        targets = Targets(
            labels=labels,
            ids=Labels(places, ids, self._weights[ids]),
            actions=found["actions"],
            action_mask=found["action_mask"],
            pair_valid=found["document_valid"][found["pairs"].long()].all(1),
        )
        return MicroBatch(inputs, targets)


def by_stream(values: Tensor, mask: Tensor, stream: Tensor, streams: int) -> Tensor:
    """Vectors that one product embeds by stream: each lies in its own stream's columns, the others being 0.

    Args:
        values: float32 (V, width), 0 where `mask` is False.
        mask: bool (V, width).
        stream: int64 (V,), from 0.
        streams: how many there are.

    Returns:
        float32 (V, streams · 2 · width): values and their mask.
    """
    both = torch.cat([values, mask.to(values.dtype)], dim=1)
    out = both.new_zeros(len(both), streams, both.shape[1])
    out[torch.arange(len(both), device=both.device), stream] = both
    return out.flatten(1)


def _places(stream: Tensor, known: Sequence[int]) -> Tensor:
    """Numbers in `layout.numeric` as places in `known`, int64."""
    table = torch.zeros(max(known, default=0) + 1, dtype=torch.int64)
    table[list(known)] = torch.arange(len(known))
    return table.to(stream.device)[stream.long()]
