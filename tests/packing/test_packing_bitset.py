from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mmpack.packing import bitset

SIZES = st.sampled_from([1, 2, 63, 64, 65, 4_095, 4_096, 4_097, 10_000, 300_000])


@given(
    SIZES.flatmap(
        lambda size: st.tuples(st.just(size), st.lists(st.integers(0, size - 1), max_size=30), st.data())
    )
)
def test_next_and_previous_member_equal_those_of_a_python_set(case):
    size, values, data = case
    bits = bitset.make_bitset(size)
    members = set()
    for value in values:
        if data.draw(st.booleans()):
            bitset.add(bits, value)
            members.add(value)
        else:
            bitset.remove(bits, value)
            members.discard(value)
    for value in [*values, 0, size - 1, data.draw(st.integers(0, size - 1))]:
        assert bitset.next_member(bits, value) == min((m for m in members if m >= value), default=-1)
        assert bitset.previous_member(bits, value) == max((m for m in members if m <= value), default=-1)
