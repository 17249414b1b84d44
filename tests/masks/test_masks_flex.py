"""BlockMask against torch's own: index tensors, mask function, and what attention makes of them."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpack.errors import MissingDependencyError
from mmpack.masks import build_block_mask, dense_mask
from mmpack.masks.blocks import FIELDS
from tests.masks.random_rows import RandomRow, random_rows

torch = pytest.importorskip("torch")
from torch._dynamo.testing import CompileCounterWithBackend  # noqa: E402
from torch.nn.attention.flex_attention import create_block_mask, flex_attention  # noqa: E402

sizes = st.sampled_from([32, 64, 128])


def same_tensors(ours: object, theirs: object) -> None:
    for name in FIELDS:
        mine, other = getattr(ours, name), getattr(theirs, name)
        assert mine.dtype == other.dtype, name
        assert torch.equal(mine, other), name


def reference(
    row: RandomRow, block_size: int, images: list[tuple[int, int]] | None, batch: int | None = None
):
    """torch's BlockMask of the dense mask, which knows nothing of intervals."""
    dense = torch.from_numpy(dense_mask(row.ends, row.seq_len, image_spans=images))
    return create_block_mask(
        lambda b, h, query, key: dense[query, key],
        batch,
        None,
        row.seq_len,
        row.seq_len,
        device="cpu",
        BLOCK_SIZE=block_size,
    )


@settings(max_examples=1000)
@given(random_rows(longest=900), sizes)
def test_causal_equals_torch(row: RandomRow, block_size: int) -> None:
    ours = build_block_mask(row.ends, row.seq_len, block_size=block_size)
    theirs = reference(row, block_size, None)
    same_tensors(ours, theirs)
    assert ours.seq_lengths == theirs.seq_lengths
    assert ours.BLOCK_SIZE == theirs.BLOCK_SIZE
    assert ours.shape == theirs.shape


@settings(max_examples=1000)
@given(random_rows(longest=900), sizes)
def test_both_ways_inside_images_equals_torch(row: RandomRow, block_size: int) -> None:
    ours = build_block_mask(row.ends, row.seq_len, block_size=block_size, image_spans=row.images)
    same_tensors(ours, reference(row, block_size, row.images))


@given(random_rows(longest=300), random_rows(longest=300), st.booleans())
def test_a_batch_equals_torch(one: RandomRow, other: RandomRow, with_images: bool) -> None:
    seq_len = max(one.seq_len, other.seq_len)
    images = [one.images, other.images] if with_images else None
    ours = build_block_mask([one.ends, other.ends], seq_len, block_size=32, image_spans=images)
    masks = np.stack(
        [
            dense_mask(row.ends, seq_len, image_spans=row.images if with_images else None)
            for row in (one, other)
        ]
    )
    dense = torch.from_numpy(masks)
    theirs = create_block_mask(
        lambda b, h, query, key: dense[b, query, key], 2, None, seq_len, seq_len, "cpu", BLOCK_SIZE=32
    )
    same_tensors(ours, theirs)


@given(random_rows(longest=200), st.booleans())
def test_the_mask_function_is_right_at_every_place(row: RandomRow, with_images: bool) -> None:
    images = row.images if with_images else None
    mask_mod = build_block_mask(row.ends, row.seq_len, image_spans=images).mask_mod
    places = torch.arange(row.seq_len)
    zero = torch.zeros((), dtype=torch.int64)
    found = mask_mod(zero, zero, places[:, None], places[None, :])
    assert np.array_equal(found.numpy(), dense_mask(row.ends, row.seq_len, image_spans=images))


@settings(max_examples=60)
@given(random_rows(longest=200), st.booleans(), st.integers(1, 3))
def test_attention_equals_sdpa_with_the_dense_mask(row: RandomRow, with_images: bool, batch: int) -> None:
    images = row.images if with_images else None
    torch.manual_seed(row.seq_len)
    query, key, value = torch.randn(3, batch, 2, row.seq_len, 16, dtype=torch.float64)
    # One row's mask serves every batch.
    mask = build_block_mask(row.ends, row.seq_len, block_size=32, image_spans=images)
    found = flex_attention(query, key, value, block_mask=mask)
    assert isinstance(found, torch.Tensor)
    dense = torch.from_numpy(dense_mask(row.ends, row.seq_len, image_spans=images))
    valid = row.ends[-1]
    expected = torch.nn.functional.scaled_dot_product_attention(
        query[:, :, :valid], key[:, :, :valid], value[:, :, :valid], attn_mask=dense[:valid, :valid]
    )
    torch.testing.assert_close(found[:, :, :valid], expected)
    assert not found[:, :, valid:].any()


def test_attention_of_a_batch_keeps_each_row_to_its_own_mask() -> None:
    ends, images = [[0, 40, 100], [0, 70]], [[(10, 30)], [(0, 5), (60, 70)]]
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 1, 100, 8, dtype=torch.float64)
    mask = build_block_mask(ends, 100, block_size=32, image_spans=images)
    found = flex_attention(query, key, value, block_mask=mask)
    for row in range(2):
        alone = build_block_mask(ends[row], 100, block_size=32, image_spans=images[row])
        part = slice(row, row + 1)
        torch.testing.assert_close(
            found[part], flex_attention(query[part], key[part], value[part], block_mask=alone)
        )


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("c++") or shutil.which("g++")), reason="torch compiles with a C++ compiler"
)
def test_compiled_attention_is_compiled_once_a_length_and_is_right() -> None:
    counter = CompileCounterWithBackend("inductor")
    attention = torch.compile(flex_attention, backend=counter)
    torch.manual_seed(0)
    # The second length is compiled with dynamic shapes.
    for compiled, seq_len in enumerate((512, 500), 1):
        for cut in (100, 333):
            ends, images = [0, cut, seq_len - 20], [(10, 60), (cut, cut + 40)]
            query, key, value = torch.randn(3, 1, 2, seq_len, 64)
            mask = build_block_mask(ends, seq_len, image_spans=images)
            with torch.no_grad():
                found = attention(query, key, value, block_mask=mask)
            expected = flex_attention(query, key, value, block_mask=mask)
            torch.testing.assert_close(found, expected)
            assert counter.frame_count == compiled


def test_a_changed_document_changes_no_other() -> None:
    ends, images = [0, 50, 120, 180], [(60, 90)]
    mask = build_block_mask(ends, 200, block_size=32, image_spans=images)
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 200, 8)
    before = flex_attention(query, key, value, block_mask=mask)
    for tensor in (query, key, value):
        tensor[:, :, 50:120] = torch.randn(1, 2, 70, 8)
        tensor[:, :, 180:] = 1e3
    after = flex_attention(query, key, value, block_mask=mask)
    assert torch.equal(before[:, :, :50], after[:, :, :50])
    assert torch.equal(before[:, :, 120:180], after[:, :, 120:180])
    assert not torch.equal(before[:, :, 50:120], after[:, :, 50:120])


def test_a_tensor_is_taken_as_cu_seqlens() -> None:
    ends = torch.tensor([0, 40, 90], dtype=torch.int32)
    same_tensors(build_block_mask(ends, 100), build_block_mask([0, 40, 90], 100))


def test_torch_stays_out_until_a_mask_is_made() -> None:
    code = "import sys, mmpack.masks; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_torch_the_pip_line_is_named(tmp_path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport mmpack.masks as m\n"
    code += "print(m.block_index([0, 3], 4).first.tolist())\nm.block_mask([0, 3], 4)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[[0, 0, 0, 4]]"
    assert MissingDependencyError.__name__ in done.stderr
    assert "pip install 'mmpack[torch]'" in done.stderr
