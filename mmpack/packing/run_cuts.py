"""Where chains are cut: to fit a row, and to complete one."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from mmpack.packing import bitset
from mmpack.packing.best_fit import grow_array
from mmpack.packing.exact_fit import add_length, complete_row, remove_length

#: Cuts looked at per hole, longest run first.
_CUTS = 64
#: Search steps to complete a row beside one cut.
_STEPS = 4096


@njit(cache=True, nogil=True)
def cut_to_fit(token_offsets: Any, offsets: Any, extra: Any, capacity: int) -> Any:
    """Each chain in the fewest documents of at most `capacity`, each as long as fits.

    Args:
        before: int64 (slices + 1,), tokens before each slice.
        offsets: int64 (chains + 1,).
        extra: int64 (chains,), overhead of each document; every slice fits with it.

    Returns:
        (start, stop, chain), int64 (documents,).
    """
    start, stop, chain = np.empty(256, np.int64), np.empty(256, np.int64), np.empty(256, np.int64)
    documents = 0
    for c in range(extra.size):
        first = offsets[c]
        while first < offsets[c + 1]:
            room = token_offsets[first] + capacity - extra[c]
            behind = min(np.searchsorted(token_offsets, room, side="right") - 1, offsets[c + 1])
            start, stop = grow_array(start, documents + 1), grow_array(stop, documents + 1)
            chain = grow_array(chain, documents + 1)
            start[documents], stop[documents], chain[documents] = first, behind, c
            documents += 1
            first = behind
    return start[:documents].copy(), stop[:documents].copy(), chain[:documents].copy()


class _Documents(NamedTuple):
    """All documents, by number: their slices, their chain, and the row they are in or -1."""

    begin: Any
    end: Any
    run: Any
    row: Any
    token_offsets: Any
    extra: Any


class _UnpackedDocuments(NamedTuple):
    """Documents in no row: how many and which (a list, linked both ways) of each length."""

    left: Any
    have: Any
    first: Any
    follower: Any
    leader: Any


class _Prefixes(NamedTuple):
    """Runs that start a document and do not end it, listed by their length as a document.

    They are struck off when they are met: the document may have been used or cut since.
    """

    have: Any
    first: Any
    follower: Any
    document: Any
    end: Any
    known: Any


@njit(cache=True)
def _tokens(documents: Any, document: Any, end: Any) -> Any:
    """Length of a document if it ended before slice `end`."""
    begin = documents.begin[document]
    return (
        documents.token_offsets[end]
        - documents.token_offsets[begin]
        + documents.extra[documents.run[document]]
    )


@njit(cache=True)
def _add_waiting(documents: Any, waiting: Any, runs: Any, document: int) -> None:
    """Let a document wait, and make its runs known as long as there is room for them."""
    length = _tokens(documents, document, documents.end[document])
    add_length(waiting.left, waiting.have, length)
    waiting.leader[document] = -1
    waiting.follower[document] = waiting.first[length]
    if waiting.first[length] >= 0:
        waiting.leader[waiting.first[length]] = document
    waiting.first[length] = document
    for end in range(documents.begin[document] + 1, documents.end[document]):
        known = runs.known[0]
        if known == runs.end.size:
            return
        part = _tokens(documents, document, end)
        runs.document[known], runs.end[known] = document, end
        runs.follower[known] = runs.first[part]
        runs.first[part] = known
        bitset.add(runs.have, part)
        runs.known[0] += 1


@njit(cache=True)
def _remove_waiting(waiting: Any, length: int, document: int) -> None:
    """Take a document off the list of its length; the count is the caller's."""
    leader, follower = waiting.leader[document], waiting.follower[document]
    if leader < 0:
        waiting.first[length] = follower
    else:
        waiting.follower[leader] = follower
    if follower >= 0:
        waiting.leader[follower] = leader


@njit(cache=True)
def _gap_after(waiting: Any, gap: int, row: Any) -> Any:
    """(hole, steps): the hole that completing would leave; takes nothing."""
    after, size, steps = complete_row(waiting.left, waiting.have, gap, row, 0, _STEPS)
    for place in range(size):
        add_length(waiting.left, waiting.have, row[place])
    return after, steps + 1


@njit(cache=True)
def _best_prefix(
    documents: Any, waiting: Any, runs: Any, gap: int, best: int, capacity_left: float, row: Any
) -> Any:
    """(hole left, run, steps): the run of a waiting document that helps most, the longest that fits first.

    The run is -1 if none halves the hole `best` that whole documents leave: what less is not worth a cut.
    """
    chosen = -1
    tries = steps = 0
    part = bitset.previous_member(runs.have, gap)
    while part > 0 and best > capacity_left and tries < _CUTS:
        run = runs.first[part]
        while run >= 0 and (
            documents.row[runs.document[run]] >= 0 or documents.end[runs.document[run]] <= runs.end[run]
        ):
            run = runs.follower[run]
        runs.first[part] = run
        if run < 0:
            bitset.remove(runs.have, part)
        else:
            whole = _tokens(documents, runs.document[run], documents.end[runs.document[run]])
            remove_length(waiting.left, waiting.have, whole)
            after, taken = _gap_after(waiting, gap - part, row)
            add_length(waiting.left, waiting.have, whole)
            tries += 1
            steps += taken
            if 2 * after < best:
                best, chosen = after, run
        part = bitset.previous_member(runs.have, part - 1)
    return best, chosen, steps


@njit(cache=True)
def _best_truncation(
    documents: Any, waiting: Any, head: int, capacity: int, best: int, capacity_left: float, row: Any
) -> Any:
    """(end, steps): where the row's head is best cut, the longest run kept first; -1 if that does not halve `best`."""
    chosen = -1
    tries = steps = 0
    end = documents.end[head] - 1
    while end > documents.begin[head] and best > capacity_left and tries < _CUTS:
        after, taken = _gap_after(waiting, capacity - _tokens(documents, head, end), row)
        tries += 1
        steps += taken
        if 2 * after < best:
            best, chosen = after, end
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
    limit: int,
) -> Any:
    """Rows headed by the longest document left, completed by whole ones and, where these leave a hole, by a cut.

    Args:
        before: int64 (slices + 1,), tokens before each slice.
        extra: int64 (chains,), overhead of each document.
        start, stop, chain: int64 (documents,), none longer than `capacity`.
        allowance: token places per row that may stay empty, on average over the rows so far.
        limit: search steps; without any left nothing more is cut.

    Returns:
        (start, stop, chain, row), int64, of all documents after the cuts.
    """
    number = start.size
    slices = token_offsets.size - 1
    # A cut makes one document more, and there cannot be more documents than slices.
    begin, end, owner = np.empty(slices, np.int64), np.empty(slices, np.int64), np.empty(slices, np.int64)
    begin[:number], end[:number], owner[:number] = start, stop, run
    documents = _Documents(begin, end, owner, np.full(slices, -1, np.int64), token_offsets, extra)
    left, by_length = np.zeros(capacity + 1, np.int64), np.full(capacity + 1, -1, np.int64)
    links, back = np.empty(slices, np.int64), np.empty(slices, np.int64)
    waiting = _UnpackedDocuments(left, bitset.make_bitset(capacity + 1), by_length, links, back)
    first, room_for = np.full(capacity + 1, -1, np.int64), 2 * slices
    follower, of, to = (
        np.empty(room_for, np.int64),
        np.empty(room_for, np.int64),
        np.empty(room_for, np.int64),
    )
    runs = _Prefixes(bitset.make_bitset(capacity + 1), first, follower, of, to, np.zeros(1, np.int64))
    for document in range(number - 1, -1, -1):
        _add_waiting(documents, waiting, runs, document)
    row = np.empty(min(capacity, slices), np.int64)
    rows = empty = 0
    longest = bitset.previous_member(waiting.have, capacity)
    while longest > 0:
        head = waiting.first[longest]
        remove_length(waiting.left, waiting.have, longest)
        _remove_waiting(waiting, longest, head)
        documents.row[head] = rows
        hole = capacity - longest
        after, size, steps = complete_row(waiting.left, waiting.have, hole, row, 0, max(0, limit))
        limit -= steps
        room = allowance * (rows + 1) - empty
        if after > room and limit > 0:
            for place in range(size):
                add_length(waiting.left, waiting.have, row[place])
            best, prefix, steps = _best_prefix(documents, waiting, runs, hole, after, room, row)
            kept, more = _best_truncation(documents, waiting, head, capacity, best, room, row)
            limit -= steps + more
            cut, at = -1, -1
            if kept >= 0:
                cut, at = head, kept
                hole = capacity - _tokens(documents, head, kept)
            elif prefix >= 0:
                cut, at = runs.document[prefix], runs.end[prefix]
                whole = _tokens(documents, cut, end[cut])
                remove_length(waiting.left, waiting.have, whole)
                _remove_waiting(waiting, whole, cut)
                documents.row[cut] = rows
                hole -= _tokens(documents, cut, at)
            after, size, _ = complete_row(waiting.left, waiting.have, hole, row, 0, _STEPS)
            if cut >= 0:
                begin[number], end[number], owner[number] = at, end[cut], owner[cut]
                end[cut] = at
                _add_waiting(documents, waiting, runs, number)
                number += 1
        for place in range(size):
            document = waiting.first[row[place]]
            _remove_waiting(waiting, row[place], document)
            documents.row[document] = rows
        empty += after
        rows += 1
        longest = bitset.previous_member(waiting.have, capacity)
    return begin[:number].copy(), end[:number].copy(), owner[:number].copy(), documents.row[:number].copy()
