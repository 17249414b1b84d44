"""Comparison of the BlockMask with that of torch: index tensors, mask function, and the results of attention."""

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
from tests.examples import examples
from tests.masks.random_rows import RandomRow, random_rows

torch = pytest.importorskip("torch")
from torch._dynamo.testing import CompileCounterWithBackend  # noqa: E402
from torch.nn.attention.flex_attention import create_block_mask, flex_attention  # noqa: E402

sizes = st.sampled_from([32, 64, 128])


def check_same_tensors(mask: object, expected: object) -> None:
    for name in FIELDS:
        tensor, expected_tensor = getattr(mask, name), getattr(expected, name)
        assert tensor.dtype == expected_tensor.dtype, name
        assert torch.equal(tensor, expected_tensor), name


def torch_block_mask(
    row: RandomRow, block_size: int, images: list[tuple[int, int]] | None, batch: int | None = None
):
    """Returns the BlockMask that torch builds from the dense mask, without key intervals."""
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


@settings(max_examples=examples(1000))
@given(random_rows(max_seq_len=900), sizes)
def test_causal_mask_equals_that_of_torch(row: RandomRow, block_size: int) -> None:
    mask = build_block_mask(row.ends, row.seq_len, block_size=block_size)
    expected = torch_block_mask(row, block_size, None)
    check_same_tensors(mask, expected)
    assert mask.seq_lengths == expected.seq_lengths
    assert mask.BLOCK_SIZE == expected.BLOCK_SIZE
    assert mask.shape == expected.shape


@settings(max_examples=examples(1000))
@given(random_rows(max_seq_len=900), sizes)
def test_mask_with_bidirectional_images_equals_that_of_torch(row: RandomRow, block_size: int) -> None:
    mask = build_block_mask(row.ends, row.seq_len, block_size=block_size, image_spans=row.images)
    check_same_tensors(mask, torch_block_mask(row, block_size, row.images))


@given(random_rows(max_seq_len=300), random_rows(max_seq_len=300), st.booleans())
def test_mask_of_a_batch_equals_that_of_torch(one: RandomRow, other: RandomRow, with_images: bool) -> None:
    seq_len = max(one.seq_len, other.seq_len)
    images = [one.images, other.images] if with_images else None
    mask = build_block_mask([one.ends, other.ends], seq_len, block_size=32, image_spans=images)
    masks = np.stack(
        [
            dense_mask(row.ends, seq_len, image_spans=row.images if with_images else None)
            for row in (one, other)
        ]
    )
    dense = torch.from_numpy(masks)
    expected = create_block_mask(
        lambda b, h, query, key: dense[b, query, key], 2, None, seq_len, seq_len, "cpu", BLOCK_SIZE=32
    )
    check_same_tensors(mask, expected)


@given(random_rows(max_seq_len=200), st.booleans())
def test_mask_function_equals_the_dense_mask_at_every_position(row: RandomRow, with_images: bool) -> None:
    images = row.images if with_images else None
    mask_mod = build_block_mask(row.ends, row.seq_len, image_spans=images).mask_mod
    positions = torch.arange(row.seq_len)
    zero = torch.zeros((), dtype=torch.int64)
    result = mask_mod(zero, zero, positions[:, None], positions[None, :])
    assert np.array_equal(result.numpy(), dense_mask(row.ends, row.seq_len, image_spans=images))


@settings(max_examples=examples(60))
@given(random_rows(max_seq_len=200), st.booleans(), st.integers(1, 3))
def test_attention_equals_sdpa_with_the_dense_mask(row: RandomRow, with_images: bool, batch: int) -> None:
    images = row.images if with_images else None
    torch.manual_seed(row.seq_len)
    query, key, value = torch.randn(3, batch, 2, row.seq_len, 16, dtype=torch.float64)
    # The mask of one row serves every batch size.
    mask = build_block_mask(row.ends, row.seq_len, block_size=32, image_spans=images)
    result = flex_attention(query, key, value, block_mask=mask)
    assert isinstance(result, torch.Tensor)
    dense = torch.from_numpy(dense_mask(row.ends, row.seq_len, image_spans=images))
    valid = row.ends[-1]
    expected = torch.nn.functional.scaled_dot_product_attention(
        query[:, :, :valid], key[:, :, :valid], value[:, :, :valid], attn_mask=dense[:valid, :valid]
    )
    torch.testing.assert_close(result[:, :, :valid], expected)
    assert not result[:, :, valid:].any()


def test_attention_of_a_batch_uses_the_mask_of_each_row() -> None:
    ends, images = [[0, 40, 100], [0, 70]], [[(10, 30)], [(0, 5), (60, 70)]]
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 1, 100, 8, dtype=torch.float64)
    mask = build_block_mask(ends, 100, block_size=32, image_spans=images)
    result = flex_attention(query, key, value, block_mask=mask)
    for row in range(2):
        single = build_block_mask(ends[row], 100, block_size=32, image_spans=images[row])
        part = slice(row, row + 1)
        torch.testing.assert_close(
            result[part], flex_attention(query[part], key[part], value[part], block_mask=single)
        )


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("c++") or shutil.which("g++")), reason="torch compiles with a C++ compiler"
)
def test_compiled_attention_is_right_and_compiled_once_per_length() -> None:
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
                result = attention(query, key, value, block_mask=mask)
            expected = flex_attention(query, key, value, block_mask=mask)
            torch.testing.assert_close(result, expected)
            assert counter.frame_count == compiled


def test_changing_one_document_does_not_change_the_others() -> None:
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


def test_cu_seqlens_may_be_a_tensor() -> None:
    ends = torch.tensor([0, 40, 90], dtype=torch.int32)
    check_same_tensors(build_block_mask(ends, 100), build_block_mask([0, 40, 90], 100))


def test_import_of_masks_does_not_import_torch() -> None:
    code = "import sys, mmpack.masks; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_error_without_torch_names_the_pip_command(tmp_path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport mmpack.masks as m\n"
    code += "print(m.build_block_index([0, 3], 4).first.tolist())\nm.build_block_mask([0, 3], 4)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.stdout.strip() == "[[0, 0, 0, 4]]"
    assert MissingDependencyError.__name__ in process.stderr
    assert "pip install 'mmpack[torch]'" in process.stderr
