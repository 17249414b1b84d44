"""Rows for PyTorch: tensors, and torchdata's StatefulDataLoader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmpack.errors import ConfigError, MissingDependencyError
from mmpack.stream.collate import collate
from mmpack.stream.row import Row

if TYPE_CHECKING:
    from torchdata.stateful_dataloader import StatefulDataLoader

    from mmpack.stream.stream import RowStream


def to_tensors(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Every numpy array of a batch (also in lists) as a tensor on the same memory; all else as it is.

    Raises:
        MissingDependencyError: torch is not installed.
    """
    torch = _torch()

    def tensor(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return torch.from_numpy(value)
        if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
            return [torch.from_numpy(each) for each in value]
        return value

    return {name: tensor(value) for name, value in arrays.items()}


def row_tensors(row: Row) -> dict[str, Any]:
    """A row's arrays as tensors on the same memory, with `number` and `keys`. Raises MissingDependencyError."""
    return {**to_tensors(row.arrays()), "number": row.number, "keys": row.keys}


def collate_tensors(rows: Sequence[Row]) -> dict[str, Any]:
    """A batch of rows, see :func:`mmpack.stream.collate`, as tensors."""
    return to_tensors(collate(rows))


def stateful_loader(stream: RowStream, *, batch_size: int | None = None) -> StatefulDataLoader:
    """torchdata's loader over a row stream: its `state_dict` holds the stream's.

    The stream reads ahead in threads or processes of its own (`reader.workers`), which its order and its state do not
    depend on; so the loader has none.

    Args:
        stream: of this rank.
        batch_size: rows of a batch, see :func:`collate_tensors`; None: single rows, see :func:`row_tensors`.

    Raises:
        ConfigError: a rank's rows of a step are not a multiple of `batch_size`.
        MissingDependencyError: torch or torchdata is not installed.
    """
    _torch()
    try:
        from torchdata.stateful_dataloader import StatefulDataLoader
    except ImportError:
        raise MissingDependencyError(
            "StatefulDataLoader is of the package torchdata", mend="pip install 'mmpack[torch]'"
        ) from None
    share = stream.plan.config.global_batch // stream.ranks
    if batch_size is not None and (batch_size < 1 or share % batch_size):
        raise ConfigError(
            f"batches of {batch_size} do not divide a rank's {share} rows of a step",
            where="batch_size",
            mend="Choose a divisor: a state then always lies at the end of a batch.",
        )
    return StatefulDataLoader(
        _dataset(stream),
        batch_size=batch_size,
        collate_fn=row_tensors if batch_size is None else collate_tensors,
        num_workers=0,
    )


def _dataset(stream: RowStream) -> Any:
    torch = _torch()

    class Rows(torch.utils.data.IterableDataset):
        """The stream as torch knows it."""

        def __iter__(self) -> Iterator[Row]:
            if torch.utils.data.get_worker_info() is not None:
                raise ConfigError(
                    "a row stream would be read once in every worker of the loader",
                    where="num_workers",
                    mend="Use num_workers=0 and set reader.workers of the plan.",
                )
            return iter(stream)

        def state_dict(self) -> dict[str, Any]:
            return stream.state_dict()

        def load_state_dict(self, state: dict[str, Any]) -> None:
            stream.load_state_dict(state)

    return Rows()


def _torch() -> Any:
    try:
        import torch
        import torch.utils.data
    except ImportError:
        raise MissingDependencyError(
            "tensors need torch, and it is not installed", mend="pip install 'mmpack[torch]'"
        ) from None
    return torch
