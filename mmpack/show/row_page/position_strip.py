"""Places as a thin strip: what they hold above, which of them are predicted below."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from mmpack.layout import Modality
from mmpack.rows.row import IGNORE_INDEX, Row
from mmpack.show.row_page.markup import Markup, svg, svg_bar, tag
from mmpack.show.row_page.row_content import DocumentView

_CONTENT, _GAP, _LABELS = 14, 3, 6
_HUES = 8


def position_strip(row: Row, start: int, stop: int) -> Markup:
    """The places [start, stop): their modalities, and under them a line where the next place is predicted."""
    pads = row.document_ids[start:stop] < 0
    kinds = np.where(pads, -1, row.modality[start:stop])
    bars = [
        svg_bar(first, last, 0, _CONTENT, "pad" if kind < 0 else f"m-{Modality(kind).name.lower()}")
        for first, last, kind in equal_ranges(kinds.tolist())
    ]
    predicted = (row.labels[start:stop] != IGNORE_INDEX).tolist()
    bars += [
        svg_bar(first, last, _CONTENT + _GAP, _LABELS, "predicted" if is_predicted else "ignored")
        for first, last, is_predicted in equal_ranges(predicted)
    ]
    count = int(sum(predicted))
    title = tag(
        "title",
        f"{count:,} of {stop - start:,} places predict the next one; at the others the label is {IGNORE_INDEX}",
    )
    return svg(stop - start, _CONTENT + _GAP + _LABELS, title, *bars, class_="strip")


def document_lane(row: Row, documents: Sequence[DocumentView], names: Sequence[str]) -> Markup:
    """The documents of a row side by side, in the colours of their data sets."""
    bars = [
        svg_bar(
            one.start,
            one.stop,
            0,
            10,
            dataset_class(one.dataset) if one.valid else "unreadable",
            f"document {one.number}, {names[one.dataset]}: {one.stop - one.start:,} places",
        )
        for one in documents
    ]
    end = documents[-1].stop if documents else 0
    if end < row.seq_len:
        bars.append(svg_bar(end, row.seq_len, 0, 10, "pad", f"{row.seq_len - end:,} pads"))
    return svg(row.seq_len, 10, *bars, class_="lane")


def dataset_class(dataset: int) -> str:
    """The class that gives a data set its colour."""
    return f"hue-{dataset % _HUES}"


def equal_ranges(values: Sequence) -> Iterator[tuple[int, int, int]]:
    """(start, stop, value) of each stretch of equal values."""
    array = np.asarray(values)
    edges = [0, *(np.flatnonzero(array[1:] != array[:-1]) + 1).tolist(), len(array)]
    for start, stop in pairwise(edges):
        if stop > start:
            yield start, stop, array[start].item()
