"""What is kept of a run, and what it refuses to go on from."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from mmpack import ShardSet
from mmpack.errors import ConfigError, DataError, StorageError
from mmpack.plan import PlanEndError
from mmpack.settings import parse_settings
from mmpack_trainer.audit_run import audit_run
from mmpack_trainer.config.schema import TrainConfig
from tests.small_disk import mount_small_disk
from tests.trainer.small_runs import ROOT, environment, settings, torchrun, write_plan

pytest.importorskip("torchtitan")

MODEL = {"dim": 32, "heads": 2, "kv_heads": 1, "hidden_dim": 32}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory, mixed_shards: ShardSet) -> Path:
    return write_plan(tmp_path_factory.mktemp("checkpoint"), mixed_shards)


def _trainer(plan: Path, out: Path, **tables: Any) -> Any:
    from mmpack_trainer.train import Trainer

    table = settings(plan, out, **({"model": MODEL, "micro_batch": 4} | tables))
    return Trainer(parse_settings(table, TrainConfig, where="run"))


def test_the_last_are_kept_and_the_best(plan: Path, tmp_path: Path) -> None:
    trainer = _trainer(plan, tmp_path, steps=1, checkpoint={"keep": 2})
    for done, loss in enumerate([3.0, 1.0, 2.0, 4.0, 5.0], 1):
        trainer.done = done
        trainer._losses = [loss, loss + 1]
        trainer.save()
    trainer.close()
    assert trainer.checkpoints.steps() == [2, 4, 5]


def test_a_checkpoint_that_was_not_finished_is_none(plan: Path, tmp_path: Path) -> None:
    trainer = _trainer(plan, tmp_path)
    trainer.step()
    trainer.save()
    os.rename(tmp_path / "checkpoints" / "step-00000001", tmp_path / "checkpoints" / "step-00000001.partial")
    trainer.resume()
    trainer.close()
    assert trainer.checkpoints.steps() == []
    assert trainer.done == 1


def test_another_model_is_refused(plan: Path, tmp_path: Path) -> None:
    trainer = _trainer(plan, tmp_path)
    trainer.save()
    trainer.close()
    other = _trainer(plan, tmp_path, model={**MODEL, "layers": 1})
    with pytest.raises(ConfigError, match="another layers"):
        other.resume()
    other.close()


def test_a_setting_that_is_none_any_more_is_no_hindrance(plan: Path, saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "out")
    record = tmp_path / "out" / "checkpoints" / "step-00000001" / "run.json"
    stored = json.loads(record.read_text())
    stored["model"]["attention"] = "auto"
    record.write_text(json.dumps(stored))
    trainer = _trainer(plan, tmp_path / "out")
    trainer.resume()
    trainer.close()
    assert trainer.done == 1


def test_all_processes_take_the_checkpoint_that_the_first_one_sees(tmp_path: Path) -> None:
    for rank, steps in enumerate(((2, 4), (2, 4, 6))):
        for step in steps:
            folder = tmp_path / str(rank) / "checkpoints" / f"step-{step:08d}"
            folder.mkdir(parents=True)
            (folder / "run.json").write_text("{}")
    command = torchrun(2, "-m", "tests.trainer.last_checkpoint_process", str(tmp_path))
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert [(tmp_path / str(rank) / "last").read_text() for rank in (0, 1)] == ["4", "4"]


@pytest.mark.parametrize(
    "record",
    [
        "[1]",
        '{"step": "0", "rows": {}, "loss": 1.0, "model": {}}',
        '{"step": 0, "rows": {}, "loss": 1.0, "model": []}',
        '{"step": 7, "rows": {}, "loss": 1.0, "model": {}}',
        '{"step": ' + "[" * 100_000,
    ],
)
def test_a_damaged_record_is_told(plan: Path, tmp_path: Path, record: str) -> None:
    trainer = _trainer(plan, tmp_path)
    trainer.save()
    (tmp_path / "checkpoints" / "step-00000000" / "run.json").write_text(record)
    with pytest.raises(DataError, match=r"run\.json"):
        trainer.resume()
    trainer.close()


def test_a_row_state_of_an_older_version_names_both_versions(plan: Path, tmp_path: Path) -> None:
    trainer = _trainer(plan, tmp_path)
    trainer.save()
    path = tmp_path / "checkpoints" / "step-00000000" / "run.json"
    record = json.loads(path.read_text())
    rows = record["rows"]
    record["rows"] = rows | {"version": 1, "parts": rows.pop("fingerprint_parts")}
    path.write_text(json.dumps(record))
    with pytest.raises(
        DataError, match="the state has version 1, but this version of mmpack reads version 2"
    ):
        trainer.resume()
    trainer.close()


def test_other_folders_are_no_checkpoints(plan: Path, tmp_path: Path) -> None:
    trainer = _trainer(plan, tmp_path)
    for name in ("step-6", "step-\u00b2", "step-0000000x", "step-00000004.partial"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "run.json").write_text("{}")
    assert trainer.checkpoints.steps() == []
    trainer.close()


def test_a_learned_temperature_is_part_of_the_model(plan: Path, saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "out")
    trainer = _trainer(plan, tmp_path / "out", loss={"learn_temperature": False})
    with pytest.raises(ConfigError, match="another learn_temperature"):
        trainer.resume()
    trainer.close()


def test_the_end_of_the_plan_is_told(mixed_shards: ShardSet, tmp_path: Path) -> None:
    path = write_plan(tmp_path, mixed_shards)
    path.write_text(path.read_text().replace("select = ", "max_epochs = 1\nselect = "))
    trainer = _trainer(path, tmp_path / "out", steps=1000, loss={"aux": 0.0, "z": 0.0})
    with pytest.raises(PlanEndError, match=r"the plan ends after \d+ steps"):
        trainer.fit()
    assert trainer.done > 1
    # What was learned until then is kept.
    assert trainer.checkpoints.steps() == [trainer.done]
    trainer.close()
    with pytest.raises(DataError, match="no row left to audit"):
        list(audit_run(trainer.config))


@pytest.fixture(scope="module")
def saved(plan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of one step."""
    out = tmp_path_factory.mktemp("saved")
    trainer = _trainer(plan, out)
    trainer.step()
    trainer.save()
    trainer.close()
    return out


class _Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch harmed",)


def _cut(folder: Path) -> None:
    os.truncate(next(folder.glob("*.distcp")), 1000)


def _pickled(folder: Path) -> None:
    (folder / ".metadata").write_bytes(pickle.dumps(_Harmful()))


def _garbled(folder: Path) -> None:
    (folder / ".metadata").write_bytes(b"no pickle")


def _unrecorded(folder: Path) -> None:
    (folder / ".metadata").unlink()


def _gone(folder: Path) -> None:
    next(folder.glob("*.distcp")).unlink()


def _strayed(folder: Path) -> None:
    found = pickle.loads((folder / ".metadata").read_bytes())
    for each in found.storage_data.values():
        each.relative_path = f"../step-00000001/{each.relative_path}"
    (folder / ".metadata").write_bytes(pickle.dumps(found))


def _polluted(folder: Path) -> None:
    # The class itself, and then what sets its attributes: GLOBAL, a state of slots, BUILD.
    stored = b"cpathlib\nPurePosixPath\n(N}S'name'\nS'../outside'\nstb."
    (folder / ".metadata").write_bytes(stored)


def _linked(folder: Path) -> None:
    part = next(folder.glob("*.distcp"))
    part.rename(folder.parent / "elsewhere")
    part.symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_cut, "cannot be read"),
        (_gone, "No such file"),
        (_garbled, "no records of a checkpoint"),
        (_unrecorded, r"\.metadata: cannot be read \(No such file"),
        (_pickled, r"it asks for (posix|os)\.system"),
        (_strayed, "outside of the checkpoint"),
        (_linked, "outside of the checkpoint"),
        (_polluted, "it sets attributes of <class"),
    ],
)
def test_a_damaged_or_harmful_checkpoint_is_told(
    plan: Path, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved, tmp_path / "out")
    damage(tmp_path / "out" / "checkpoints" / "step-00000001")
    trainer = _trainer(plan, tmp_path / "out")
    with pytest.raises(DataError, match=told) as raised:
        trainer.resume()
    trainer.close()
    assert "step-00000001" in str(raised.value)
    assert "Move the checkpoint away" in raised.value.hint
    assert PurePosixPath("a/b").name == "b"
    assert not (tmp_path / "harmed").exists()


def test_a_value_that_would_run_is_told(plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    trainer = _trainer(plan, tmp_path / "out")
    trainer.step()
    trainer.optimizer.param_groups[0]["lr"] = _Harmful()
    trainer.save()
    with pytest.raises(DataError, match="is no plain value"):
        trainer.resume()
    trainer.close()
    assert not (tmp_path / "harmed").exists()


def test_a_folder_that_cannot_be_written_is_told(plan: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    trainer = _trainer(plan, tmp_path)
    with pytest.raises(StorageError, match=r"cannot be written .*checkpoints.* Let it be written"):
        trainer.save()
    trainer.close()


def test_a_full_disk_is_told_and_the_last_checkpoint_stays(plan: Path, tmp_path: Path) -> None:
    with mount_small_disk("12m", tmp_path) as disk:
        trainer = _trainer(plan, disk)
        trainer.step()
        trainer.save()
        trainer.step()
        with pytest.raises(
            StorageError, match=r"step-00000002\.partial: cannot be written .* bytes are free\). Make room"
        ):
            trainer.save()
        assert trainer.checkpoints.steps() == [1]
        trainer.resume()
        assert trainer.done == 1
        trainer.close()


def test_a_new_run_does_not_mix_with_the_checkpoints_of_another(
    plan: Path, saved: Path, tmp_path: Path
) -> None:
    shutil.copytree(saved, tmp_path / "out")
    trainer = _trainer(plan, tmp_path / "out", checkpoint={"resume": False})
    with pytest.raises(ConfigError, match="checkpoints of another run, up to step 1"):
        trainer.fit()
    trainer.close()


def test_settings_of_the_optimizer_are_those_of_the_run(plan: Path, saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved, tmp_path / "out")
    trainer = _trainer(
        plan, tmp_path / "out", optimizer={"lr": 1e-3, "betas": [0.5, 0.6], "weight_decay": 0.7}
    )
    trainer.resume()
    assert trainer.done == 1
    groups = trainer.optimizer.param_groups
    assert [group["betas"] for group in groups] == [(0.5, 0.6)] * 2
    assert [group["weight_decay"] for group in groups] == [0.7, 0.0]
    trainer.close()
