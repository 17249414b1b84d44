"""Rows for PyTorch: tensors, a dataset, and torchdata's StatefulDataLoader over it.

Tensors have the dtypes of the arrays, see :class:`mmpack.stream.Row`, and share their memory: nothing is copied. Ids,
labels and indices are int32, which embeddings and attention accept. `cross_entropy` needs `labels.long()`, and indexing
needs `index.long()`; convert after the copy to the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmpack.errors import ConfigError, MissingDependencyError
from mmpack.rows.collate import collate
from mmpack.rows.row import Row
from mmpack.stream.row_stream import RowStream

__all__ = ["collate_tensors", "row_dataset", "row_tensors", "stateful_loader", "to_tensors"]

if TYPE_CHECKING:
    from torch.utils.data import IterableDataset
    from torchdata.stateful_dataloader import StatefulDataLoader

    from mmpack.stream.tars.tar_stream import TarStream


def to_tensors(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Converts every numpy array of a batch (also in lists) to a tensor on the same memory; other values stay.

    Raises:
        MissingDependencyError: torch is not installed.
    """
    torch = _import_torch()

    def to_tensor(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return torch.from_numpy(value)
        if isinstance(value, list):
            return [to_tensor(element) for element in value]
        return value

    return {name: to_tensor(value) for name, value in arrays.items()}


def row_tensors(row: Row) -> dict[str, Any]:
    """Returns the arrays of a row as tensors, with its `number` and `keys`. Raises MissingDependencyError."""
    return to_tensors({**row.arrays(), "number": row.number, "keys": row.keys})


def collate_tensors(rows: Sequence[Row]) -> dict[str, Any]:
    """Returns a batch of rows as tensors, see :func:`mmpack.rows.collate.collate`.

    Raises:
        DataError: as `collate`.
        MissingDependencyError: torch is not installed.
    """
    return to_tensors(collate(rows))


def row_dataset(stream: RowStream | TarStream) -> IterableDataset:
    """Makes a torch dataset of a stream, for a loader of your own.

    It yields :class:`mmpack.stream.Row`, and has `state_dict` and `load_state_dict`. Iterating again continues after the
    rows that were handed out. Iterating in a loader with worker processes raises a ConfigError, because each worker would
    read all rows.

    Args:
        stream: stream of this rank. The caller closes it.

    Raises:
        MissingDependencyError: torch is not installed.
    """
    torch = _import_torch()

    class RowDataset(torch.utils.data.IterableDataset):
        """A dataset over the rows of one stream."""

        def __iter__(self) -> Iterator[Row]:
            if torch.utils.data.get_worker_info() is not None:
                raise _workers_error()
            # `yield from` would close the stream together with this iterator.
            for row in stream:  # noqa: UP028
                yield row

        def __reduce__(self) -> Any:
            # Worker processes that are not forked receive the dataset by pickling.
            raise _workers_error()

        def state_dict(self) -> dict[str, Any]:
            return stream.state_dict()

        def load_state_dict(self, state: Mapping[str, Any]) -> None:
            stream.load_state_dict(state)

    return RowDataset()


def stateful_loader(
    stream: RowStream | TarStream, *, batch_size: int | None = None
) -> StatefulDataLoader[dict[str, Any]]:
    """Makes torchdata's loader over a stream; its `state_dict` contains the stream's state after the rows handed out.

    The loader has no worker processes. The stream prefetches in threads or processes of its own (`reader.workers`), and
    its order and state do not depend on them.

    Args:
        stream: stream of this rank. The caller closes it.
        batch_size: number of rows of a batch, see :func:`collate_tensors`; None: single rows, see :func:`row_tensors`.
            The last batch of a :class:`TarStream` may have fewer rows.

    Raises:
        ConfigError: the number of rows of a rank in a step is not a multiple of `batch_size`.
        MissingDependencyError: torch or torchdata is not installed.
    """
    dataset = row_dataset(stream)
    try:
        from torchdata.stateful_dataloader import StatefulDataLoader
    except ImportError:
        raise MissingDependencyError(
            "StatefulDataLoader needs the package torchdata, which is not installed",
            hint="pip install 'mmpack[torch]'",
        ) from None
    if batch_size is not None:
        _check_batch_size(stream, batch_size)
    # torchdata annotates the argument of `collate_fn` as a list; without a batch size it is the row itself.
    collate_fn: Any = row_tensors if batch_size is None else collate_tensors
    return StatefulDataLoader(dataset, batch_size=batch_size, collate_fn=collate_fn, num_workers=0)


def _workers_error() -> ConfigError:
    return ConfigError(
        "every worker of the loader would read all rows",
        where="num_workers",
        hint="Use num_workers=0, and set reader.workers of the plan to read in processes.",
    )


def _check_batch_size(stream: RowStream | TarStream, batch_size: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"batch size {batch_size} is less than 1", where="batch_size")
    if isinstance(stream, RowStream):
        share = stream.plan.config.global_batch // stream.ranks
        if share % batch_size:
            raise ConfigError(
                f"batches of {batch_size} rows do not divide the {share} rows of a rank in a step",
                where="batch_size",
                hint=f"Choose a divisor of {share}, so that a step ends with a batch.",
            )


def _import_torch() -> Any:
    try:
        import torch
        import torch.utils.data
    except ImportError:
        raise MissingDependencyError(
            "tensors need the package torch, which is not installed", hint="pip install 'mmpack[torch]'"
        ) from None
    return torch
