from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.support.packing_inputs import multimodal_runs
from mmpack.errors import ConfigError, DataError
from mmpack.packing import RunLengths, pack, pack_runs
from tests.packing.packing_reference import check_packing


@st.composite
def run_cases(draw):
    capacity = draw(st.integers(1, 60))
    overhead = draw(st.integers(0, min(3, capacity - 1)))
    slices = st.integers(1, capacity - overhead)
    if draw(st.booleans()):  # equal slices, as in videos
        slices = st.just(draw(slices))
    runs = draw(st.lists(st.lists(slices, max_size=12), max_size=25))
    offsets = np.concatenate(([0], np.cumsum([len(run) for run in runs]))).astype(np.int64)
    return np.array([length for run in runs for length in run], np.int64), offsets, capacity, overhead


#: A case whose cuts add overhead that the lower bound does not count.
_OVER_THE_BOUND = (np.array([1, 1, 1, 7, 20, 17, 3, 15, 16, 4, 20]), np.array([0, 6, 11]), 32, 3)


@example(_OVER_THE_BOUND, 0.9, 0, 10)
@given(run_cases(), st.sampled_from([0.0, 0.9, 1.0]), st.integers(0, 9), st.sampled_from([0, 10, 10**6]))
def test_documents_are_consecutive_slices_and_every_slice_is_in_one_document(case, fill, seed, effort):
    slices, offsets, capacity, overhead = case
    cut = pack_runs(RunLengths(slices, offsets, overhead), capacity, fill=fill, seed=seed, effort=effort)
    assert (cut.start < cut.stop).all()
    assert cut.start.tolist() == [0, *cut.stop[:-1].tolist()][: cut.start.size]
    assert (cut.stop[-1] if cut.stop.size else 0) == slices.size
    for start, stop, run, length in zip(cut.start, cut.stop, cut.run, cut.lengths, strict=True):
        assert offsets[run] <= start < stop <= offsets[run + 1]
        assert length == slices[start:stop].sum() + overhead
    check_packing(cut.packing, cut.lengths)
    assert cut.cuts == cut.start.size - np.count_nonzero(np.diff(offsets))
    if not fill:
        assert cut.cuts == cut.forced_cuts


@given(run_cases())
def test_forced_cuts_make_every_document_as_long_as_possible(case):
    slices, offsets, capacity, overhead = case
    cut = pack_runs(RunLengths(slices, offsets, overhead), capacity, fill=0)
    for stop, run, length in zip(cut.stop, cut.run, cut.lengths, strict=True):
        assert stop == offsets[run + 1] or length + slices[stop] > capacity


@given(run_cases(), st.integers(0, 9))
def test_additional_cuts_are_made_only_if_they_save_rows(case, seed):
    slices, offsets, capacity, overhead = case
    forced = pack_runs(RunLengths(slices, offsets, overhead), capacity, fill=0)
    cut = pack_runs(RunLengths(slices, offsets, overhead), capacity, seed=seed)
    again = pack_runs(RunLengths(slices, offsets, overhead), capacity, seed=seed)
    assert cut.packing.rows < forced.packing.rows or cut.cuts == forced.cuts
    assert (cut.packing.ids == again.packing.ids).all()
    assert cut.packing.lower_bound == forced.packing.lower_bound <= cut.packing.rows


def test_a_cut_completes_a_row():
    # Three runs of two slices of 3 tokens in rows of 9: without cuts each run needs a row; one cut fills two rows.
    cut = pack_runs(RunLengths([3] * 6, [0, 2, 4, 6]), 9)
    assert cut.packing.rows == 2
    assert cut.cuts == 1
    assert pack_runs(RunLengths([3] * 6, [0, 2, 4, 6]), 9, fill=0).packing.rows == 3


def test_overhead_may_differ_between_runs():
    cut = pack_runs(RunLengths([4, 4, 7], [0, 2, 3], [2, 0]), 10)
    assert cut.lengths.tolist() == [10, 7]


def test_fill_of_the_multimodal_mixture_reaches_the_target():
    slices, offsets = multimodal_runs(100_000, 8192)
    cut = pack_runs(RunLengths(slices, offsets), 8192)
    uncut = pack(np.add.reduceat(slices, offsets[:-1]), 8192)
    assert cut.packing.fill >= 0.9995
    assert cut.packing.rows < uncut.rows
    assert cut.cuts < 0.02 * 100_000


def test_many_documents_of_one_length_are_packed_well():
    slices = np.full(400_000, 3)
    cut = pack_runs(RunLengths(slices, np.arange(0, 400_001, 2)), 9)
    assert cut.packing.fill > 0.999


@pytest.mark.parametrize(
    ("slices", "offsets", "overhead", "message"),
    [
        ([4, 9, 10], [0, 1, 3], 0, r"slice 1 \(run 1, overhead 0\): 9 tokens do not fit a row of 8"),
        ([4, 7], [0, 0, 2], 2, r"slice 1 \(run 1, overhead 2\): 9 tokens"),
        ([4, -1], [0, 2], 0, r"slice 1 .*negative"),
        ([4, 0], [0, 2], 0, r"slice 1 .*length is 0"),
        ([4, 1], [0, 1], 0, "run offsets"),
        ([4, 1], [0, 2, 1, 2], 0, "run offsets"),
        ([4, 1], [], 0, "run offsets"),
        ([4, 1], [0, 2], [1, 2], "2 overheads for 1 runs"),
        ([4, 1], [0, 2], -1, "overhead is negative"),
        ([4, 1], [0, 2], 2**62, "overhead of run 0"),
        ([4, 2**62], [0, 2], 2, "slice 1"),
    ],
)
def test_invalid_inputs_raise_data_errors(slices, offsets, overhead, message):
    with pytest.raises(DataError, match=message):
        pack_runs(RunLengths(np.array(slices, np.int64), np.array(offsets, np.int64), overhead), 8)


def test_fill_above_one_raises_a_config_error():
    with pytest.raises(ConfigError, match="fill"):
        pack_runs(RunLengths([1], [0, 1]), 8, fill=1.5)
