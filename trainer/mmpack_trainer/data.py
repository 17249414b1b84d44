"""The rows of a rank, as torchtitan's loaders hand out data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mmpack.stream import RowStream
from mmpack.stream.torch import collate_tensors
from mmpack_trainer.titan import BaseDataLoader


class RowLoader(BaseDataLoader):
    """Micro-batches of a row stream.

    Each is the arrays of :func:`mmpack.stream.torch.collate_tensors` but for the labels, and the labels, int32 (B, L):
    what torchtitan's trainer also takes. The state is the stream's, that of the rows handed out, equal on all ranks: a
    run goes on from it on another number of ranks, from the end of a step.

    Args:
        config: how many rows a micro-batch has.
        stream: of this data-parallel rank. Whoever opened it closes it.
    """

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):
        micro_batch: int = 1

    def __init__(self, config: Config, *, stream: RowStream) -> None:
        self._micro_batch = config.micro_batch
        self._stream = stream

    def __iter__(self) -> Iterator[tuple[dict[str, Any], Tensor]]:
        while True:
            rows = []
            for row in self._stream:
                rows.append(row)
                if len(rows) == self._micro_batch:
                    break
            if len(rows) < self._micro_batch:
                return
            arrays = collate_tensors(rows)
            yield {name: value for name, value in arrays.items() if name != "labels"}, arrays["labels"]

    def state_dict(self) -> dict[str, Any]:
        return self._stream.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self._stream.load_state_dict(state_dict)
