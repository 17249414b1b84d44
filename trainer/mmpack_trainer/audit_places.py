"""Whose a place of a batch is, and what lies in a place of another document before any model sees it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmpack.rows.row import IGNORE_INDEX


@dataclass(frozen=True, slots=True)
class BatchDocument:
    """A document of the batch.

    Attributes:
        row: of the batch, from 0.
        number: in its row.
        start, stop: its places in the row.
        keys: of its samples.
    """

    row: int
    number: int
    start: int
    stop: int
    keys: tuple[str, ...]

    def __str__(self) -> str:
        name = f"row {self.row} document {self.number}"
        return f"{name} ({self.keys[0]})" if self.keys else name


@dataclass(frozen=True, slots=True)
class Misplaced:
    """What is wrong with a batch before any model sees it, or with the positions that the model turns heads by."""

    kind: Literal["spans", "images", "labels", "positions"]
    document: int | None
    """Number in `AuditReport.documents`; None: of no single one."""
    what: str


def documents_of(arrays: Mapping[str, Any]) -> tuple[tuple[BatchDocument, ...], NDArray[np.int64]]:
    """The documents of a batch, and the number of each place's, (B, L); their count where there is none."""
    ids = np.asarray(arrays["document_ids"])
    found: list[BatchDocument] = []
    owner = np.full(ids.shape, -1, np.int64)
    for row, (places, keys) in enumerate(zip(ids, arrays["keys"], strict=True)):
        for number in np.unique(places[places >= 0]).tolist():
            own = np.flatnonzero(places == number)
            owner[row, own] = len(found)
            found.append(BatchDocument(row, number, int(own[0]), int(own[-1]) + 1, tuple(keys[number])))
    owner[owner < 0] = len(found)
    return tuple(found), owner


def image_faults(arrays: Mapping[str, Any], owner: NDArray[np.int64]) -> Iterator[Misplaced]:
    """Pictures that lie in two documents."""
    for row, spans in enumerate(arrays["image_spans"]):
        for start, stop in np.asarray(spans).tolist():
            inside = np.unique(owner[row, start:stop])
            if len(inside) > 1:
                what = (
                    f"a picture of row {row} lies in places {start} to {stop - 1}, across an end of documents"
                )
                yield Misplaced("images", int(inside[0]), what)


def label_faults(
    arrays: Mapping[str, Any], documents: tuple[BatchDocument, ...], owner: NDArray[np.int64]
) -> Iterator[Misplaced]:
    """Labels that are not the next id of their own document."""
    labels, ids = np.asarray(arrays["labels"]), np.asarray(arrays["input_ids"])
    same = np.zeros(owner.shape, bool)
    same[:, :-1] = owner[:, :-1] == owner[:, 1:]
    following = np.full(ids.shape, IGNORE_INDEX, ids.dtype)
    following[:, :-1] = ids[:, 1:]
    wrong = (labels != IGNORE_INDEX) & ~(same & (labels == following))
    for row, place in np.argwhere(wrong).tolist():
        number = int(owner[row, place])
        reason = "is not the id that follows" if same[row, place] else "lies beyond the document's end"
        yield Misplaced(
            "labels", number if number < len(documents) else None, f"the label of place {place} {reason}"
        )


def position_faults(
    layers: list[NDArray[np.int64]], documents: tuple[BatchDocument, ...]
) -> Iterator[Misplaced]:
    """Documents whose positions do not count from 0, in some layer."""
    for number, document in enumerate(documents):
        for layer, positions in enumerate(layers):
            own = positions[document.row, document.start : document.stop]
            wrong = np.flatnonzero(own != np.arange(len(own)))
            if len(wrong):
                place = document.start + int(wrong[0])
                what = f"position {own[wrong[0]]} at place {place}, not {wrong[0]} (layer {layer})"
                yield Misplaced("positions", number, what)
                break
