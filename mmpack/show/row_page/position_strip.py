"""Places as a thin strip: what they hold above, which of them are predicted below."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from mmpack.layout import Modality
from mmpack.rows.row import IGNORE, Row
from mmpack.show.row_page.markup import Markup, bar, drawing, tag
from mmpack.show.row_page.row_content import Document

_CONTENT, _GAP, _LABELS = 14, 3, 6
_HUES = 8


def strip(row: Row, start: int, stop: int) -> Markup:
    """The places [start, stop): their modalities, and under them a line where the next place is predicted."""
    pads = row.document_ids[start:stop] < 0
    kinds = np.where(pads, -1, row.modality[start:stop])
    bars = [
        bar(first, last, 0, _CONTENT, "pad" if kind < 0 else f"m-{Modality(kind).name.lower()}")
        for first, last, kind in runs(kinds.tolist())
    ]
    predicted = (row.labels[start:stop] != IGNORE).tolist()
    bars += [
        bar(first, last, _CONTENT + _GAP, _LABELS, "predicted" if is_predicted else "ignored")
        for first, last, is_predicted in runs(predicted)
    ]
    count = int(sum(predicted))
    title = tag(
        "title",
        f"{count:,} of {stop - start:,} places predict the next one; at the others the label is {IGNORE}",
    )
    return drawing(stop - start, _CONTENT + _GAP + _LABELS, title, *bars, class_="strip")


def document_lane(row: Row, documents: Sequence[Document], names: Sequence[str]) -> Markup:
    """The documents of a row side by side, in the colours of their data sets."""
    bars = [
        bar(
            one.start,
            one.stop,
            0,
            10,
            hue(one.dataset) if one.valid else "unreadable",
            f"document {one.number}, {names[one.dataset]}: {one.stop - one.start:,} places",
        )
        for one in documents
    ]
    end = documents[-1].stop if documents else 0
    if end < row.seq_len:
        bars.append(bar(end, row.seq_len, 0, 10, "pad", f"{row.seq_len - end:,} pads"))
    return drawing(row.seq_len, 10, *bars, class_="lane")


def hue(dataset: int) -> str:
    """The class that gives a data set its colour."""
    return f"hue-{dataset % _HUES}"


def runs(values: Sequence) -> Iterator[tuple[int, int, int]]:
    """(start, stop, value) of each stretch of equal values."""
    array = np.asarray(values)
    edges = [0, *(np.flatnonzero(array[1:] != array[:-1]) + 1).tolist(), len(array)]
    for start, stop in pairwise(edges):
        if stop > start:
            yield start, stop, array[start].item()
