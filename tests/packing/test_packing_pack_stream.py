from __future__ import annotations

import itertools
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.support.packing_inputs import mixes
from mmpack.errors import ConfigError, DataError
from mmpack.packing import pack_stream

CASES = st.integers(1, 60).flatmap(
    lambda capacity: st.tuples(
        st.lists(st.integers(0, capacity), max_size=80), st.just(capacity), st.integers(1, 20)
    )
)


def number_items(lengths):
    return list(enumerate(lengths))


def pack_pairs(items, capacity, pool):
    return pack_stream(items, capacity, pool=pool, length=lambda item: item[1])


@given(CASES)
def test_every_item_is_in_exactly_one_row(case):
    lengths, capacity, pool = case
    rows = list(pack_pairs(number_items(lengths), capacity, pool))
    assert sorted(itertools.chain(*rows)) == number_items(lengths)
    assert all(rows)
    assert all(sum(length for _, length in row) <= capacity for row in rows)


@given(CASES)
def test_every_row_has_the_oldest_item_and_no_item_waits_for_more_rows_than_the_pool_size(case):
    lengths, capacity, pool = case
    waiting = set(range(len(lengths)))
    read = 0
    earlier_rows = []

    def source():
        nonlocal read
        for item in number_items(lengths):
            read += 1
            yield item

    for row_index, row in enumerate(pack_pairs(source(), capacity, pool)):
        assert min(waiting) in {item for item, _ in row}
        assert read <= pool + sum(len(earlier) for earlier in earlier_rows)
        waiting -= {item for item, _ in row}
        earlier_rows.append(row)
        assert all(row_index <= item for item in waiting)


@given(CASES, st.integers(0, 30))
def test_restored_stream_continues_with_the_same_rows(case, num_rows):
    lengths, capacity, pool = case
    items = number_items(lengths)
    stream = pack_pairs(items, capacity, pool)
    for _ in itertools.islice(stream, num_rows):
        pass
    state = pickle.loads(pickle.dumps(stream.state_dict()))
    restored = pack_pairs(items[state["taken"] :], capacity, pool)
    restored.load_state_dict(state)
    assert restored.state_dict() == state
    assert list(restored) == list(stream)


@pytest.mark.parametrize(
    ("name", "min_fill"),
    [("lognormal", 0.999), ("mm8k", 0.9984), ("11/9", 0.9975), ("mm32k", 0.9998), ("half-mix", 0.949)],
)
def test_fill_with_a_pool_of_a_thousand_items_reaches_the_target(name, min_fill):
    lengths, capacity = mixes(100_000)[name]
    rows = sum(1 for _ in pack_stream(lengths.tolist(), capacity, length=int))
    assert lengths.sum() / (rows * capacity) >= min_fill


def test_default_length_of_an_item_is_len():
    assert list(pack_stream([[1, 2], [3, 4, 5], [6]], 4)) == [[[1, 2], [6]], [[3, 4, 5]]]


def test_stream_reads_only_as_many_items_as_the_pool_holds():
    source = itertools.count(1)
    stream = pack_stream(source, 1 << 20, pool=10, length=lambda item: 1 << 19)
    assert next(stream) == [1, 2]
    assert next(source) == 11


def test_invalid_lengths_raise_errors_that_name_the_item():
    stream = pack_stream([3, 4, 9], 8, length=lambda item: item)
    with pytest.raises(DataError, match="item 2: 9 tokens"):
        list(stream)
    with pytest.raises(DataError, match=r"item 0: length is 2\.5"):
        next(pack_stream([2.5], 8, length=lambda item: item))
    with pytest.raises(DataError, match="item 0: length is -1"):
        next(pack_stream([-1], 8, length=lambda item: item))
    with pytest.raises(ConfigError, match="pool"):
        pack_stream([], 8, pool=0)


def test_state_is_loaded_only_into_a_new_stream_of_the_same_capacity():
    stream = pack_stream(range(1, 8), 8, pool=4, length=int)
    next(stream)
    state = stream.state_dict()
    with pytest.raises(DataError, match="capacity"):
        pack_stream([], 9, pool=4, length=int).load_state_dict(state)
    with pytest.raises(DataError, match="already read items"):
        stream.load_state_dict(state)
