"""Strips of the positions of a row: modality and prediction of each position, and the documents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from mmpack.layout import Modality
from mmpack.rows.row import IGNORE_INDEX, Row
from mmpack.show.row_page.markup import Markup, svg, svg_bar, tag
from mmpack.show.row_page.row_content import DocumentView

_CONTENT_HEIGHT, _GAP, _LABEL_HEIGHT = 14, 3, 6
_NUM_HUES = 8  # as in page.css


def position_strip(row: Row, start: int, stop: int) -> Markup:
    """Returns an SVG of the positions [start, stop): their modalities, and below a line where the next token is predicted."""
    is_padding = row.document_ids[start:stop] < 0
    kinds = np.where(is_padding, -1, row.modality[start:stop])
    bars = [
        svg_bar(first, last, 0, _CONTENT_HEIGHT, "pad" if kind < 0 else f"m-{Modality(kind).name.lower()}")
        for first, last, kind in equal_ranges(kinds.tolist())
    ]
    predicted = (row.labels[start:stop] != IGNORE_INDEX).tolist()
    bars += [
        svg_bar(
            first, last, _CONTENT_HEIGHT + _GAP, _LABEL_HEIGHT, "predicted" if is_predicted else "ignored"
        )
        for first, last, is_predicted in equal_ranges(predicted)
    ]
    count = int(sum(predicted))
    title = tag(
        "title",
        f"{count:,} of {stop - start:,} positions predict the next token; the label of the others is {IGNORE_INDEX}",
    )
    return svg(stop - start, _CONTENT_HEIGHT + _GAP + _LABEL_HEIGHT, title, *bars, class_="strip")


def document_lane(row: Row, documents: Sequence[DocumentView], names: Sequence[str]) -> Markup:
    """Returns an SVG of the documents of a row next to each other, in the colours of their data sets."""
    bars = [
        svg_bar(
            document.start,
            document.stop,
            0,
            10,
            dataset_class(document.dataset) if document.is_valid else "unreadable",
            f"document {document.number}, {names[document.dataset]}: {document.stop - document.start:,} positions",
        )
        for document in documents
    ]
    end = documents[-1].stop if documents else 0
    if end < row.seq_len:
        bars.append(svg_bar(end, row.seq_len, 0, 10, "pad", f"{row.seq_len - end:,} padding positions"))
    return svg(row.seq_len, 10, *bars, class_="lane")


def dataset_class(dataset: int) -> str:
    """Returns the CSS class with the colour of a data set."""
    return f"hue-{dataset % _NUM_HUES}"


def equal_ranges(values: Sequence) -> Iterator[tuple[int, int, int]]:
    """Yields (start, stop, value) of each range of equal values."""
    array = np.asarray(values)
    edges = [0, *(np.flatnonzero(array[1:] != array[:-1]) + 1).tolist(), len(array)]
    for start, stop in pairwise(edges):
        if stop > start:
            yield start, stop, array[start].item()
