"""The documents of a window, in the order in which they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmpack.mixture.draw import draw_documents
from mmpack.mixture.quota import QuotaCurve
from mmpack.mixture.weights import SCALE
from mmpack.plan.dataset import Dataset
from mmpack.plan.state import WindowCursor

#: Documents that are looked up for each data set in addition to its expected number.
_NUM_SPARE_DOCUMENTS = 64


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DrawnDocuments:
    """Documents in the order in which they were drawn.

    Attributes:
        datasets: data sets of the plan.
        start: cursor at which drawing began.
        dataset: int16 (draws,), index of the data set of each document.
        first, stop: int64 (draws,), a document holds the samples `first` to `stop - 1` of its shard set.
        tokens: int64 (draws,), length of each document in positions.
        is_indivisible: bool (draws,), whether the document must not be cut, because it belongs to a contrastive data set.
        ended: whether these are the last documents of the plan.
    """

    datasets: Sequence[Dataset]
    start: WindowCursor
    dataset: NDArray[np.int16]
    first: NDArray[np.int64]
    stop: NDArray[np.int64]
    tokens: NDArray[np.int64]
    is_indivisible: NDArray[np.bool_]
    ended: bool

    def cursor_after(self, count: int) -> WindowCursor:
        """Returns the cursor after the first `count` draws."""
        num_datasets = len(self.datasets)
        documents = np.bincount(self.dataset[:count], minlength=num_datasets)
        tokens = np.zeros(num_datasets, np.int64)
        np.add.at(tokens, self.dataset[:count], self.tokens[:count])
        return WindowCursor(
            tuple((np.array(self.start.documents) + documents).tolist()),
            tuple((np.array(self.start.tokens) + tokens).tolist()),
        )


def draw_window_documents(
    datasets: Sequence[Dataset], curve: QuotaCurve, start: WindowCursor, positions: int
) -> DrawnDocuments:
    """Draws documents of more than `positions` tokens together, or all documents that are left.

    Args:
        datasets: data sets of the plan.
        curve: quota curve of the mixture.
        start: cursor at which the window begins.
        positions: number of positions of a window.
    """
    drawn = np.array(start.tokens, np.int64)
    buffers = [np.empty(0, np.int64)] * len(datasets)
    lengths = [np.empty(0, np.int32)] * len(datasets)
    counts = [_expected_count(dataset, curve, start, positions) for dataset in datasets]
    while True:
        for index, dataset in enumerate(datasets):
            buffered = len(buffers[index])
            if counts[index] > buffered:
                documents = dataset.draw_order(start.documents[index] + buffered, counts[index] - buffered)
                buffers[index] = np.concatenate((buffers[index], documents))
                lengths[index] = np.concatenate((lengths[index], dataset.document_table.tokens[documents]))
        offsets = np.concatenate(([0], np.cumsum([len(buffer) for buffer in buffers])))
        # One token more than the window holds, because the first document that does not fit ends the window.
        result = draw_documents(
            curve, drawn, np.concatenate(lengths), offsets, until_tokens=start.total_tokens + positions + 1
        )
        if result.stop != "exhausted":
            break
        counts[result.exhausted_dataset] = 2 * counts[result.exhausted_dataset] + _NUM_SPARE_DOCUMENTS
    num_draws = len(result.chosen)
    first, stop = np.empty(num_draws, np.int64), np.empty(num_draws, np.int64)
    tokens = np.empty(num_draws, np.int64)
    for index, dataset in enumerate(datasets):
        draws = np.flatnonzero(result.chosen == index)
        documents = buffers[index][: len(draws)]
        first[draws], stop[draws] = (
            dataset.document_table.start[documents],
            dataset.document_table.stop[documents],
        )
        tokens[draws] = lengths[index][: len(draws)]
    contrastive = np.array([dataset.config.contrastive for dataset in datasets], np.bool_)
    return DrawnDocuments(
        datasets=datasets,
        start=start,
        dataset=result.chosen,
        first=first,
        stop=stop,
        tokens=tokens,
        is_indivisible=contrastive[result.chosen],
        ended=result.stop == "end",
    )


def _expected_count(dataset: Dataset, curve: QuotaCurve, start: WindowCursor, positions: int) -> int:
    """Returns the expected number of documents of a data set in a window, plus some spare documents."""
    now = start.total_tokens
    due = curve.tokens_at(now + positions)[dataset.index] - curve.tokens_at(now)[dataset.index]
    if not due:
        return 1
    return int(due * dataset.num_documents / (SCALE * dataset.tokens)) + _NUM_SPARE_DOCUMENTS
