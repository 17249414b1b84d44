"""The documents of a window, in the order they are drawn."""

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

#: Documents held ready beyond what a data set's share should take.
_SPARE = 64


@dataclass(frozen=True, slots=True, eq=False)
class DrawnDocuments:
    """Documents as they were drawn.

    Attributes:
        datasets: of the plan.
        start: where drawing began.
        dataset: int16 (draws,), number of the data set.
        first, stop: int64 (draws,), samples of its build.
        tokens: int64 (draws,), places.
        whole: bool (draws,), it may not be cut: a contrastive pair.
        ended: nothing comes after these.
    """

    datasets: Sequence[Dataset]
    start: WindowCursor
    dataset: NDArray[np.int16]
    first: NDArray[np.int64]
    stop: NDArray[np.int64]
    tokens: NDArray[np.int64]
    is_full: NDArray[np.bool_]
    ended: bool

    def cursor_after(self, count: int) -> WindowCursor:
        """Where the first `count` draws lead to."""
        n = len(self.datasets)
        documents = np.bincount(self.dataset[:count], minlength=n)
        tokens = np.zeros(n, np.int64)
        np.add.at(tokens, self.dataset[:count], self.tokens[:count])
        return WindowCursor(
            tuple((np.array(self.start.documents) + documents).tolist()),
            tuple((np.array(self.start.tokens) + tokens).tolist()),
        )


def draw_window_documents(
    datasets: Sequence[Dataset], curve: QuotaCurve, start: WindowCursor, positions: int
) -> DrawnDocuments:
    """Documents of more than `places` tokens, or all that are left.

    Args:
        datasets: of the plan.
        course: of its mixture.
        start: where to begin.
        places: tokens of a window.
    """
    drawn = np.array(start.tokens, np.int64)
    held = [np.empty(0, np.int64)] * len(datasets)  # units
    lengths = [np.empty(0, np.int32)] * len(datasets)
    want = [_expected_count(each, curve, start, positions) for each in datasets]
    while True:
        for number, dataset in enumerate(datasets):
            have = len(held[number])
            if want[number] > have:
                more = dataset.draw_order(start.documents[number] + have, want[number] - have)
                held[number] = np.concatenate((held[number], more))
                lengths[number] = np.concatenate((lengths[number], dataset.document_table.tokens[more]))
        offsets = np.concatenate(([0], np.cumsum([len(each) for each in held])))
        # One more than fills the window: the first that does not fit ends it.
        found = draw_documents(
            curve, drawn, np.concatenate(lengths), offsets, until_tokens=start.total_tokens + positions + 1
        )
        if found.stop != "dry":
            break
        want[found.exhausted_dataset] = 2 * want[found.exhausted_dataset] + _SPARE
    count = len(found.chosen)
    first, stop = np.empty(count, np.int64), np.empty(count, np.int64)
    tokens = np.empty(count, np.int64)
    for number, dataset in enumerate(datasets):
        mine = np.flatnonzero(found.chosen == number)
        units = held[number][: len(mine)]
        first[mine], stop[mine] = dataset.document_table.start[units], dataset.document_table.stop[units]
        tokens[mine] = lengths[number][: len(mine)]
    contrastive = np.array([each.config.contrastive for each in datasets], np.bool_)
    return DrawnDocuments(
        datasets,
        start,
        found.chosen,
        first,
        stop,
        tokens,
        contrastive[found.chosen],
        found.stop == "end",
    )


def _expected_count(dataset: Dataset, curve: QuotaCurve, start: WindowCursor, positions: int) -> int:
    """Documents that the data set's share of a window should take, and some to spare."""
    now = start.total_tokens
    due = curve.tokens_at(now + positions)[dataset.number] - curve.tokens_at(now)[dataset.number]
    return int(due * dataset.documents / (SCALE * dataset.tokens)) + _SPARE if due else 1
