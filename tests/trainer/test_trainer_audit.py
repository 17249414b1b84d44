"""The leak audit: sound models pass it, and each planted leak is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpack import ShardSet

pytest.importorskip("torchtitan")

import torch
from msgspec.structs import replace as with_settings
from torch.nn import functional
from typer.testing import CliRunner

from mmpack_trainer.audit import AuditReport, audit
from mmpack_trainer.audit_cli import app
from mmpack_trainer.batch import MicroBatch
from mmpack_trainer.model.attention import DenseAttention, DocumentAttention
from mmpack_trainer.model.masks import Backend, Dense, DocumentSpan, DocumentSpans
from tests.trainer.small_models import MOE, make_arrays, make_model
from tests.trainer.small_runs import settings, write_plan

BACKENDS: list[Backend] = ["sdpa", "dense"]


@pytest.fixture(scope="module")
def arrays(mixed_shards: ShardSet) -> dict[str, Any]:
    """A batch of two rows with every kind of document."""
    return make_arrays(mixed_shards)


@pytest.fixture(scope="module")
def one_row(mixed_shards: ShardSet) -> dict[str, Any]:
    """A batch of the first of them: text, slice, captioned picture, speech. Planted leaks alter copies of it."""
    return make_arrays(mixed_shards, rows=1)


def altered(arrays: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The batch with other arrays."""
    return {**arrays, **changes}


def findings(report: AuditReport) -> str:
    """All sentences of a report that failed."""
    assert not report.is_tight
    return "\n".join(report.findings())


def causal(self: Any, q: Any, k: Any, v: Any, *, attention_masks: Any, scale: Any, enable_gqa: bool) -> Any:
    """Attention over the whole row, in place of a backend's forward pass."""
    turned = (each.transpose(1, 2) for each in (q, k, v))
    out = functional.scaled_dot_product_attention(*turned, is_causal=True, scale=scale, enable_gqa=enable_gqa)
    return out.transpose(1, 2)


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_dense_model_leaks_nothing_to_the_bit(
    mixed_shards: ShardSet, arrays: dict[str, Any], backend: Backend, both_ways: bool
) -> None:
    model, batches = make_model(mixed_shards, backend=backend, both_ways=both_ways)
    report = audit(model, batches, arrays)
    assert report.is_tight, "\n".join(report.findings())
    assert len(report.documents) == 10
    assert report.tolerance == 0
    assert report.effects is not None
    assert report.effects.largest == 0
    # Each was really changed, and each has a loss that its own places matter to.
    assert (np.diag(report.effects.outputs) > 1e-3).all()
    assert (np.diag(report.effects.gradients) > 0).all()


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_experts_without_drops_leak_nothing(
    mixed_shards: ShardSet, arrays: dict[str, Any], backend: Backend, both_ways: bool
) -> None:
    model, batches = make_model(
        mixed_shards, backend=backend, both_ways=both_ways, moe=with_settings(MOE, noise=0.1)
    )
    report = audit(model, batches, arrays)
    assert report.is_tight, "\n".join(report.findings())
    assert report.coupling is None
    assert report.effects is not None
    assert report.effects.largest <= 1e-5


def test_the_coupling_through_dropped_tokens_is_reported_apart(
    mixed_shards: ShardSet, arrays: dict[str, Any]
) -> None:
    model, batches = make_model(mixed_shards, moe=with_settings(MOE, capacity_factor=0.8))
    report = audit(model, batches, arrays)
    assert report.is_tight, "\n".join(report.findings())
    assert report.effects is not None
    assert report.coupling is not None
    assert report.effects.dropped == 0
    assert report.coupling.dropped > 0
    assert report.coupling.largest > 1e-3
    # The model keeps its capacity.
    assert [layer.moe.capacity_factor for layer in model.layers.values()] == [0.8, 0.8]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_that_ignores_the_mask_is_found(
    mixed_shards: ShardSet, arrays: dict[str, Any], backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def causal(
        self: Any, q: Any, k: Any, v: Any, *, attention_masks: Any, scale: Any, enable_gqa: bool
    ) -> Any:
        turned = (each.transpose(1, 2) for each in (q, k, v))
        out = functional.scaled_dot_product_attention(
            *turned, is_causal=True, scale=scale, enable_gqa=enable_gqa
        )
        return out.transpose(1, 2)

    monkeypatch.setattr({"sdpa": DocumentAttention, "dense": DenseAttention}[backend], "forward", causal)
    model, batches = make_model(mixed_shards, backend=backend)
    report = audit(model, batches, arrays)
    # Causal over the row: each document reaches all behind it, and none before it or in the other row.
    first = [n for n, each in enumerate(report.documents) if each.row == 0]
    second = [n for n, each in enumerate(report.documents) if each.row == 1]
    expected = {(a, b) for row in (first, second) for a in row for b in row if a < b}
    assert set(report.leaks) == expected
    assert f"{report.documents[0]} reaches {report.documents[1]}" in findings(report)
    assert report.effects is not None
    assert (report.effects.gradients[0, 1:4] > 0).all()


@pytest.mark.parametrize(
    ("backend", "shift", "moe"),
    [("sdpa", -1, None), ("sdpa", 1, MOE), ("dense", -1, MOE), ("dense", 1, None)],
)
def test_spans_that_are_off_by_one_are_found(
    mixed_shards: ShardSet, one_row: dict[str, Any], backend: Backend, shift: int, moe: Any
) -> None:
    spans = [each.clone() for each in one_row["cu_seqlens"]]
    spans[0][2] += shift
    model, batches = make_model(mixed_shards, backend=backend, moe=moe)
    report = audit(model, batches, altered(one_row, cu_seqlens=spans))
    before, behind = report.documents[1:3]
    assert f"{before} reaches {behind}" in findings(report)


def test_an_off_by_one_span_is_found_in_one_place_alone(
    mixed_shards: ShardSet, one_row: dict[str, Any]
) -> None:
    spans = [each.clone() for each in one_row["cu_seqlens"]]
    spans[0][3] -= 1
    model, batches = make_model(mixed_shards)
    report = audit(model, batches, altered(one_row, cu_seqlens=spans))
    assert report.leaks == [(2, 3)]


@pytest.mark.parametrize("moe", [None, MOE])
def test_positions_that_are_not_reset_are_found(
    mixed_shards: ShardSet, one_row: dict[str, Any], moe: Any
) -> None:
    positions = one_row["position_ids"].clone()
    positions[0] = torch.arange(positions.shape[1])
    model, batches = make_model(mixed_shards, moe=moe)
    report = audit(model, batches, altered(one_row, position_ids=positions))
    start = report.documents[1].start
    assert f"{report.documents[1]}: position {start} at place {start}, not 0" in findings(report)
    assert {fault.document for fault in report.misplaced} == {1, 2, 3}


def test_a_model_that_does_not_read_positions_is_found(
    mixed_shards: ShardSet, one_row: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batches = make_model(mixed_shards)
    attention = model.layers["1"].attention
    forward = attention.forward
    monkeypatch.setattr(attention, "forward", lambda x, mask, positions: forward(x, mask, None))
    report = audit(model, batches, one_row)
    assert {(fault.kind, "layer 1" in fault.what) for fault in report.misplaced} == {("positions", True)}


def test_a_label_across_a_boundary_is_found(mixed_shards: ShardSet, one_row: dict[str, Any]) -> None:
    labels = one_row["labels"].clone()
    end = int(one_row["cu_seqlens"][0][2])
    labels[0, end - 1] = one_row["input_ids"][0, end]
    model, batches = make_model(mixed_shards)
    report = audit(model, batches, altered(one_row, labels=labels))
    (fault,) = report.misplaced
    assert (
        findings(report)
        == f"{report.documents[1]}: the label of place {end - 1} lies beyond the document's end"
    )
    assert fault.kind == "labels"


def test_a_label_that_is_not_shifted_is_found(mixed_shards: ShardSet, one_row: dict[str, Any]) -> None:
    labels = one_row["labels"].clone()
    labels[0, 3] = one_row["input_ids"][0, 3]
    model, batches = make_model(mixed_shards)
    report = audit(model, batches, altered(one_row, labels=labels))
    assert f"{report.documents[0]}: the label of place 3 is not the id that follows" in findings(report)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("both_ways", [False, True])
def test_a_picture_across_documents_is_found(
    mixed_shards: ShardSet, one_row: dict[str, Any], backend: Backend, both_ways: bool
) -> None:
    spans = [each.clone() for each in one_row["image_spans"]]
    end = int(one_row["cu_seqlens"][0][3])
    spans[0][-1, 1] = end + 2
    model, batches = make_model(mixed_shards, backend=backend, both_ways=both_ways)
    report = audit(model, batches, altered(one_row, image_spans=spans))
    assert f"{report.documents[2]}: a picture of row 0 lies in places" in findings(report)
    # Where pictures are attended to both ways no mask is made of it at all.
    assert (report.effects is None) == both_ways


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mask_with_a_picture_across_documents_is_found(
    mixed_shards: ShardSet, one_row: dict[str, Any], backend: Backend
) -> None:
    model, batches = make_model(mixed_shards, backend=backend, both_ways=True)
    end = int(one_row["cu_seqlens"][0][1])

    def leaking(read: Any) -> MicroBatch:
        """The last place of document 0 and the first of document 1 see each other."""
        batch = batches(read)
        mask = batch.inputs.mask
        if isinstance(mask, Dense):
            seen = mask.mask.clone()
            seen[0, 0, end - 2 : end + 2, end - 2 : end + 2] = True
            mask = replace(mask, mask=seen)
        else:
            assert isinstance(mask, DocumentSpans)
            one, two, *others = mask.rows[0]
            whole = torch.zeros(two.stop, two.stop, dtype=torch.bool)
            for part in (one, two):
                size = part.stop - part.start
                inner = torch.ones(size, size).tril().bool() if part.mask is None else part.mask
                whole[part.start : part.stop, part.start : part.stop] = inner
            whole[end - 2 : end + 2, end - 2 : end + 2] = True
            mask = DocumentSpans(((DocumentSpan(0, two.stop, whole), *others), *mask.rows[1:]))
        return replace(batch, inputs=replace(batch.inputs, mask=mask))

    report = audit(model, leaking, one_row)
    assert set(report.leaks) == {(0, 1), (1, 0)}


def test_pads_reach_no_document(mixed_shards: ShardSet, one_row: dict[str, Any]) -> None:
    model, batches = make_model(mixed_shards, backend="dense")

    def leaking(read: Any) -> MicroBatch:
        batch = batches(read)
        mask = batch.inputs.mask
        assert isinstance(mask, Dense)
        seen = mask.mask.clone()
        seen[0, 0, 5, -1] = True
        return replace(batch, inputs=replace(batch.inputs, mask=replace(mask, mask=seen)))

    report = audit(model, leaking, one_row)
    assert report.leaks == [(len(report.documents), 0)]
    assert f"pads reaches {report.documents[0]}" in findings(report)


def test_a_document_that_the_model_does_not_read_is_no_success(
    mixed_shards: ShardSet, one_row: dict[str, Any]
) -> None:
    model, batches = make_model(mixed_shards)
    with torch.no_grad():
        for parameter in model.tok_embeddings.parameters():
            parameter.zero_()
    report = audit(model, batches, one_row)
    assert report.leaks == []
    assert findings(report).count("the model does not read it") == len(report.documents)


@pytest.fixture(scope="module")
def recipe(mixed_shards: ShardSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's settings as a file."""
    folder = tmp_path_factory.mktemp("audited")
    table = settings(write_plan(folder, mixed_shards), folder / "out", loss={"aux": 0.0, "z": 0.0})
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, dict)]
    for name, inner in table.items():
        if isinstance(inner, dict):
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in inner.items())]
    path = folder / "run.toml"
    path.write_text("\n".join(lines))
    return path


def test_the_command_audits_rows_of_the_plan(recipe: Path) -> None:
    done = CliRunner().invoke(app, [str(recipe), "--rows", "1", "--model.layers=1"])
    assert done.exit_code == 0, done.output
    assert "nothing leaks" in done.stdout
    assert "row 0 document 1" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_a_run_for_gpus_can_be_audited_on_a_cpu(recipe: Path) -> None:
    needs = ("--model.attention=flex", "--optimizer.bf16_states=true", "--compute.precision=bfloat16")
    done = CliRunner().invoke(app, [str(recipe), "--rows", "1", "--model.layers=1", *needs])
    assert done.exit_code == 0, done.output


def test_the_command_fails_on_a_leak_and_names_it(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DocumentAttention, "forward", causal)
    done = CliRunner().invoke(app, [str(recipe), "--rows", "1", "--model.layers=1"])
    assert done.exit_code == 1
    assert "LEAK row 0 document 0" in done.stdout
    assert "LEAKS" in done.stdout
    told = CliRunner().invoke(app, [str(recipe), "--rows", "1", "--model.layers=1", "--json"])
    assert told.exit_code == 1
    found = json.loads(told.stdout)
    assert not found["tight"]
    assert any("reaches row 0 document 1" in each for each in found["rows"][0]["findings"])
