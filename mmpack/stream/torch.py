"""Rows for PyTorch: tensors, a dataset, and torchdata's StatefulDataLoader over it.

Tensors have the arrays' types, see :class:`mmpack.stream.Row`, and lie on their memory: nothing is copied. Ids, labels and
indices are int32, which embeddings and attention take as they are; `cross_entropy` wants `labels.long()`, and indexing
with an index `index.long()`, best after the copy to the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmpack.errors import ConfigError, MissingDependencyError
from mmpack.rows.collate import collate
from mmpack.rows.row import Row
from mmpack.stream.row_stream import RowStream

if TYPE_CHECKING:
    from torch.utils.data import IterableDataset
    from torchdata.stateful_dataloader import StatefulDataLoader

    from mmpack.stream.tars.tar_stream import TarStream


def to_tensors(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Every numpy array of a batch (also in lists) as a tensor on the same memory; all else as it is.

    Raises:
        MissingDependencyError: torch is not installed.
    """
    torch = _torch()

    def tensor(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return torch.from_numpy(value)
        if isinstance(value, list):
            return [tensor(each) for each in value]
        return value

    return {name: tensor(value) for name, value in arrays.items()}


def row_tensors(row: Row) -> dict[str, Any]:
    """A row's arrays as tensors, with its `number` and `keys`. Raises MissingDependencyError."""
    return to_tensors({**row.arrays(), "number": row.number, "keys": row.keys})


def collate_tensors(rows: Sequence[Row]) -> dict[str, Any]:
    """A batch of rows, see :func:`mmpack.rows.collate`, as tensors. Raises DataError, MissingDependencyError."""
    return to_tensors(collate(rows))


def row_dataset(stream: RowStream | TarStream) -> IterableDataset:
    """The stream as torch knows it, for loaders of one's own: it yields :class:`mmpack.stream.Row`, and has `state_dict`
    and `load_state_dict`.

    Iterating again goes on behind the rows handed out. A loader with workers of its own is refused with a ConfigError
    once it iterates: each of them would read all rows.

    Args:
        stream: of this rank. Whoever opened it closes it.

    Raises:
        MissingDependencyError: torch is not installed.
    """
    torch = _torch()

    class RowDataset(torch.utils.data.IterableDataset):
        """Yields the rows of one stream."""

        def __iter__(self) -> Iterator[Row]:
            if torch.utils.data.get_worker_info() is not None:
                raise _workers_error()
            # Not `yield from`, which would close the stream together with this iterator.
            for row in stream:  # noqa: UP028
                yield row

        def __reduce__(self) -> Any:
            # Workers that are not forked are sent the data set.
            raise _workers_error()

        def state_dict(self) -> dict[str, Any]:
            return stream.state_dict()

        def load_state_dict(self, state: Mapping[str, Any]) -> None:
            stream.load_state_dict(state)

    return RowDataset()


def stateful_loader(
    stream: RowStream | TarStream, *, batch_size: int | None = None
) -> StatefulDataLoader[dict[str, Any]]:
    """torchdata's loader over a row stream: its `state_dict` holds the stream's, that of the rows handed out.

    The stream reads ahead in threads or processes of its own (`reader.workers`), which its order and its state do not
    depend on; so the loader has none.

    Args:
        stream: of this rank. Whoever opened it closes it.
        batch_size: rows of a batch, see :func:`collate_tensors`; None: single rows, see :func:`row_tensors`. The last
            batch of a :class:`TarStream` may have fewer.

    Raises:
        ConfigError: a rank's rows of a step are not a multiple of `batch_size`.
        MissingDependencyError: torch or torchdata is not installed.
    """
    dataset = row_dataset(stream)
    try:
        from torchdata.stateful_dataloader import StatefulDataLoader
    except ImportError:
        raise MissingDependencyError(
            "StatefulDataLoader is of the package torchdata", hint="pip install 'mmpack[torch]'"
        ) from None
    if batch_size is not None:
        _check_batch_size(stream, batch_size)
    # torchdata's annotation of `collate_fn` knows lists alone; without a batch size it gets the row itself.
    collate_fn: Any = row_tensors if batch_size is None else collate_tensors
    return StatefulDataLoader(dataset, batch_size=batch_size, collate_fn=collate_fn, num_workers=0)


def _workers_error() -> ConfigError:
    return ConfigError(
        "every worker of the loader would read all rows",
        where="num_workers",
        hint="Use num_workers=0; reader.workers of the plan reads in processes.",
    )


def _check_batch_size(stream: RowStream | TarStream, batch_size: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"{batch_size} is not 1 or more", where="batch_size")
    if isinstance(stream, RowStream):
        share = stream.plan.config.global_batch // stream.ranks
        if share % batch_size:
            raise ConfigError(
                f"batches of {batch_size} do not divide a rank's {share} rows of a step",
                where="batch_size",
                hint="Choose a divisor: a step then ends with a batch.",
            )


def _torch() -> Any:
    try:
        import torch
        import torch.utils.data
    except ImportError:
        raise MissingDependencyError(
            "tensors need torch, and it is not installed", hint="pip install 'mmpack[torch]'"
        ) from None
    return torch
