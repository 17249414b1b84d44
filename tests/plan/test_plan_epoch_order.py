"""The compiled epoch order against a second implementation."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpack.plan.epoch_order import epoch_order
from tests.examples import examples
from tests.plan.epoch_order_reference import epoch_order_reference


@settings(max_examples=examples(300), deadline=None)
@given(data=st.data(), n=st.integers(1, 300), key=st.integers(0, 2**64 - 1), step=st.integers(1, 9))
def test_the_compiled_order_equals_the_reference(data: st.DataObject, n: int, key: int, step: int) -> None:
    block = data.draw(st.integers(1, n))
    first, count = data.draw(st.integers(0, 10**6)), data.draw(st.integers(0, 200))
    order = epoch_order_reference(first, count, n, block, key, step)
    assert np.array_equal(epoch_order(first, count, n, block, np.uint64(key), step), order)
