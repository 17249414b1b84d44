"""The example of a plain PyTorch loop: it trains on a build's rows, and on nothing of the trainer's."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.ingest.build_inputs import build_command, make_inputs, run

EXAMPLE = Path(__file__).parents[2] / "examples" / "plain_pytorch.py"


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    root = tmp_path_factory.mktemp("plain")
    done = run(build_command(make_inputs(root, drives=1, seconds=6.0), root / "shards", "--workers", "0"))
    assert done.returncode == 0, done.stderr
    path = root / "plan.toml"
    path.write_text(
        'max_seq_len = 256\nglobal_batch = 2\nwindow_steps = 4\n[[datasets]]\nname = "all"\nshards = "shards"\n'
    )
    return path


@pytest.fixture(scope="module")
def example() -> ModuleType:
    pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("plain_pytorch", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_loss_falls_and_is_printed(plan: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLE, plan, "--steps", "12"], capture_output=True, text=True, check=True
    )
    losses = [float(line.split()[-1]) for line in done.stdout.splitlines()]
    assert len(losses) == 12
    assert np.mean(losses[-3:]) < 0.8 * losses[0]


def test_documents_do_not_see_each_other(plan: Path, example: ModuleType) -> None:
    import torch

    from mmpack.stream import RowStream
    from mmpack.stream.torch import row_tensors

    torch.manual_seed(0)
    with RowStream.open(plan) as stream:
        row = next(row_tensors(row) for row in stream if len(row.cu_seqlens) > 3 and row.fill < 1)
        model = example.Decoder(stream.plan.layout.vocabulary.size, 3 * 32 * 32)
    places = row["cu_seqlens"].tolist()
    labels = row["labels"].clone()
    for start, stop in itertools.pairwise(places):
        row["labels"] = torch.full_like(labels, -100)
        row["labels"][start:stop] = labels[start:stop]
        if not (row["labels"] >= 0).any():
            continue
        loss = model(row)
        alone = row | {name: row[name][start:stop] for name in ("input_ids", "labels", "position_ids")}
        inside = (row["patch_index"] >= start) & (row["patch_index"] < stop)
        alone["patches"] = row["patches"][inside]
        alone["patch_index"] = row["patch_index"][inside] - start
        alone["cu_seqlens"] = torch.tensor([0, stop - start])
        assert model(alone).item() == pytest.approx(loss.item(), rel=1e-5)


def test_the_example_imports_nothing_of_the_trainer() -> None:
    names = {
        name.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(ast.parse(EXAMPLE.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert not any(name and name.startswith(("mmpack_trainer", "torchtitan")) for name in names)
    assert "mmpack.stream" in names
