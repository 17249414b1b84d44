"""The cuts of runs: forced cuts, so that documents fit a row, and further cuts that complete rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from mmpack.packing import bitset
from mmpack.packing.best_fit import grow_array
from mmpack.packing.exact_fit import add_length, complete_row, remove_length

#: Largest number of cuts that are tried per gap, longest part first.
_MAX_CUTS = 64
#: Largest number of search steps to complete a row after one tried cut.
_MAX_STEPS = 4096


@njit(cache=True, nogil=True)
def cut_to_fit(token_offsets: Any, run_offsets: Any, extra: Any, capacity: int) -> Any:
    """Cuts each run into the smallest number of documents of at most `capacity` tokens, each as long as possible.

    Args:
        token_offsets: int64 (slices + 1,), number of tokens before each slice, and of all slices.
        run_offsets: int64 (runs + 1,), run r consists of the slices `run_offsets[r]` to `run_offsets[r + 1] - 1`.
        extra: int64 (runs,), overhead of each document of a run; every slice fits a row together with it.
        capacity: number of positions of a row.

    Returns:
        (start, stop, run), int64 (documents,): first slice, end slice and run of each document.
    """
    start, stop, run = np.empty(256, np.int64), np.empty(256, np.int64), np.empty(256, np.int64)
    documents = 0
    for r in range(extra.size):
        first = run_offsets[r]
        while first < run_offsets[r + 1]:
            max_offset = token_offsets[first] + capacity - extra[r]
            end = min(np.searchsorted(token_offsets, max_offset, side="right") - 1, run_offsets[r + 1])
            start, stop = grow_array(start, documents + 1), grow_array(stop, documents + 1)
            run = grow_array(run, documents + 1)
            start[documents], stop[documents], run[documents] = first, end, r
            documents += 1
            first = end
    return start[:documents].copy(), stop[:documents].copy(), run[:documents].copy()


class _Documents(NamedTuple):
    """All documents by index: first slice, end slice, run, and row (-1 before the document is packed)."""

    begin: Any
    end: Any
    run: Any
    row: Any
    token_offsets: Any
    extra: Any


class _UnpackedDocuments(NamedTuple):
    """The documents that are in no row yet.

    `remaining` is their number by length, `available` the set of lengths with documents. The documents of each length form
    a doubly linked list: `first` (by length), `next` and `previous` (by document); -1 ends a list.
    """

    remaining: Any
    available: Any
    first: Any
    next: Any
    previous: Any


class _Prefixes(NamedTuple):
    """The proper prefixes of documents: the first slices of a document, listed by their length as a document.

    `available` is the set of lengths with prefixes. The prefixes of each length form a linked list: `first` (by length),
    `next` (by prefix). `document` and `end` are the document and the end slice of each prefix, `num_prefixes[0]` is the
    number of prefixes. A prefix whose document was packed or cut is removed only when a search meets it.
    """

    available: Any
    first: Any
    next: Any
    document: Any
    end: Any
    num_prefixes: Any


@njit(cache=True)
def _document_length(documents: Any, document: Any, end: Any) -> Any:
    """Returns the length of a document if it ended before slice `end`, overhead included."""
    begin = documents.begin[document]
    return (
        documents.token_offsets[end]
        - documents.token_offsets[begin]
        + documents.extra[documents.run[document]]
    )


@njit(cache=True)
def _add_unpacked(documents: Any, unpacked: Any, prefixes: Any, document: int) -> None:
    """Adds a document to the unpacked documents, and its prefixes to the prefixes while the arrays have space."""
    length = _document_length(documents, document, documents.end[document])
    add_length(unpacked.remaining, unpacked.available, length)
    unpacked.previous[document] = -1
    unpacked.next[document] = unpacked.first[length]
    if unpacked.first[length] >= 0:
        unpacked.previous[unpacked.first[length]] = document
    unpacked.first[length] = document
    for end in range(documents.begin[document] + 1, documents.end[document]):
        prefix = prefixes.num_prefixes[0]
        if prefix == prefixes.end.size:
            return
        prefix_length = _document_length(documents, document, end)
        prefixes.document[prefix], prefixes.end[prefix] = document, end
        prefixes.next[prefix] = prefixes.first[prefix_length]
        prefixes.first[prefix_length] = prefix
        bitset.add(prefixes.available, prefix_length)
        prefixes.num_prefixes[0] += 1


@njit(cache=True)
def _unlink_unpacked(unpacked: Any, length: int, document: int) -> None:
    """Removes a document from the list of its length; the caller updates `remaining`."""
    previous_document, next_document = unpacked.previous[document], unpacked.next[document]
    if previous_document < 0:
        unpacked.first[length] = next_document
    else:
        unpacked.next[previous_document] = next_document
    if next_document >= 0:
        unpacked.previous[next_document] = previous_document


@njit(cache=True)
def _gap_after(unpacked: Any, gap: int, row: Any) -> Any:
    """Returns (gap, steps): the gap that complete_row would leave; no document is taken."""
    gap_left, size, steps = complete_row(unpacked.remaining, unpacked.available, gap, row, 0, _MAX_STEPS)
    for index in range(size):
        add_length(unpacked.remaining, unpacked.available, row[index])
    return gap_left, steps + 1


@njit(cache=True)
def _best_prefix(
    documents: Any, unpacked: Any, prefixes: Any, gap: int, best: int, allowed_gap: float, row: Any
) -> Any:
    """Searches the prefix of an unpacked document that leaves the smallest gap, longest prefixes first.

    Args:
        documents, unpacked, prefixes: all documents and their state.
        gap: number of positions that the prefix and further whole documents may fill.
        best: gap that whole documents alone leave.
        allowed_gap: gap at which the search stops.
        row: int64, scratch array for the lengths of a row.

    Returns:
        (gap left, prefix, steps). The prefix is -1 if none leaves less than half of `best`: a smaller gain is not worth a
        cut.
    """
    chosen = -1
    tries = steps = 0
    length = bitset.previous_member(prefixes.available, gap)
    while length > 0 and best > allowed_gap and tries < _MAX_CUTS:
        prefix = prefixes.first[length]
        while prefix >= 0 and (
            documents.row[prefixes.document[prefix]] >= 0
            or documents.end[prefixes.document[prefix]] <= prefixes.end[prefix]
        ):
            prefix = prefixes.next[prefix]
        prefixes.first[length] = prefix
        if prefix < 0:
            bitset.remove(prefixes.available, length)
        else:
            document = prefixes.document[prefix]
            full_length = _document_length(documents, document, documents.end[document])
            remove_length(unpacked.remaining, unpacked.available, full_length)
            gap_left, used_steps = _gap_after(unpacked, gap - length, row)
            add_length(unpacked.remaining, unpacked.available, full_length)
            tries += 1
            steps += used_steps
            if 2 * gap_left < best:
                best, chosen = gap_left, prefix
        length = bitset.previous_member(prefixes.available, length - 1)
    return best, chosen, steps


@njit(cache=True)
def _best_truncation(
    documents: Any, unpacked: Any, head: int, capacity: int, best: int, allowed_gap: float, row: Any
) -> Any:
    """Searches the end slice at which the head of a row is best cut, longest parts first.

    Returns:
        (end, steps). The end is -1 if no cut leaves less than half of the gap `best`.
    """
    chosen = -1
    tries = steps = 0
    end = documents.end[head] - 1
    while end > documents.begin[head] and best > allowed_gap and tries < _MAX_CUTS:
        gap_left, used_steps = _gap_after(unpacked, capacity - _document_length(documents, head, end), row)
        tries += 1
        steps += used_steps
        if 2 * gap_left < best:
            best, chosen = gap_left, end
        end -= 1
    return chosen, steps


@njit(cache=True, nogil=True)
def cut_to_complete(
    token_offsets: Any,
    extra: Any,
    start: Any,
    stop: Any,
    run: Any,
    capacity: int,
    allowance: float,
    max_steps: int,
) -> Any:
    """Packs documents into rows and cuts documents where whole ones leave a gap.

    Each row starts with the longest document left (its head) and is completed with whole documents. If they leave too large
    a gap, either a prefix of another document is added or the head is cut.

    Args:
        token_offsets: int64 (slices + 1,), number of tokens before each slice, and of all slices.
        extra: int64 (runs,), overhead of each document of a run.
        start, stop, run: int64 (documents,), first slice, end slice and run of each document; none is longer than
            `capacity`.
        capacity: number of positions of a row.
        allowance: number of positions per row that may stay empty, on average over the rows so far.
        max_steps: largest number of search steps; after them no document is cut.

    Returns:
        (start, stop, run, row), int64, for all documents after the cuts.
    """
    num_documents = start.size
    slices = token_offsets.size - 1
    # Each cut adds one document, and there cannot be more documents than slices.
    begin, end, owner = np.empty(slices, np.int64), np.empty(slices, np.int64), np.empty(slices, np.int64)
    begin[:num_documents], end[:num_documents], owner[:num_documents] = start, stop, run
    documents = _Documents(begin, end, owner, np.full(slices, -1, np.int64), token_offsets, extra)
    unpacked = _UnpackedDocuments(
        np.zeros(capacity + 1, np.int64),
        bitset.make_bitset(capacity + 1),
        np.full(capacity + 1, -1, np.int64),
        np.empty(slices, np.int64),
        np.empty(slices, np.int64),
    )
    max_prefixes = 2 * slices
    prefixes = _Prefixes(
        bitset.make_bitset(capacity + 1),
        np.full(capacity + 1, -1, np.int64),
        np.empty(max_prefixes, np.int64),
        np.empty(max_prefixes, np.int64),
        np.empty(max_prefixes, np.int64),
        np.zeros(1, np.int64),
    )
    for document in range(num_documents - 1, -1, -1):
        _add_unpacked(documents, unpacked, prefixes, document)
    row = np.empty(min(capacity, slices), np.int64)
    rows = empty = 0
    longest = bitset.previous_member(unpacked.available, capacity)
    while longest > 0:
        head = unpacked.first[longest]
        remove_length(unpacked.remaining, unpacked.available, longest)
        _unlink_unpacked(unpacked, longest, head)
        documents.row[head] = rows
        gap = capacity - longest
        gap_left, size, steps = complete_row(
            unpacked.remaining, unpacked.available, gap, row, 0, max(0, max_steps)
        )
        max_steps -= steps
        allowed_gap = allowance * (rows + 1) - empty
        if gap_left > allowed_gap and max_steps > 0:
            for index in range(size):
                add_length(unpacked.remaining, unpacked.available, row[index])
            best, prefix, prefix_steps = _best_prefix(
                documents, unpacked, prefixes, gap, gap_left, allowed_gap, row
            )
            head_end, head_steps = _best_truncation(
                documents, unpacked, head, capacity, best, allowed_gap, row
            )
            max_steps -= prefix_steps + head_steps
            cut_document, cut_slice = -1, -1
            if head_end >= 0:
                cut_document, cut_slice = head, head_end
                gap = capacity - _document_length(documents, head, head_end)
            elif prefix >= 0:
                cut_document, cut_slice = prefixes.document[prefix], prefixes.end[prefix]
                full_length = _document_length(documents, cut_document, end[cut_document])
                remove_length(unpacked.remaining, unpacked.available, full_length)
                _unlink_unpacked(unpacked, full_length, cut_document)
                documents.row[cut_document] = rows
                gap -= _document_length(documents, cut_document, cut_slice)
            gap_left, size, _ = complete_row(unpacked.remaining, unpacked.available, gap, row, 0, _MAX_STEPS)
            if cut_document >= 0:
                begin[num_documents], end[num_documents], owner[num_documents] = (
                    cut_slice,
                    end[cut_document],
                    owner[cut_document],
                )
                end[cut_document] = cut_slice
                _add_unpacked(documents, unpacked, prefixes, num_documents)
                num_documents += 1
        for index in range(size):
            document = unpacked.first[row[index]]
            _unlink_unpacked(unpacked, row[index], document)
            documents.row[document] = rows
        empty += gap_left
        rows += 1
        longest = bitset.previous_member(unpacked.available, capacity)
    return (
        begin[:num_documents].copy(),
        end[:num_documents].copy(),
        owner[:num_documents].copy(),
        documents.row[:num_documents].copy(),
    )
