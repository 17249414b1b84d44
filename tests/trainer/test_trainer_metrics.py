"""Metrics of a run: each step once, whatever kills it, in a file, in TensorBoard and on the screen."""

from __future__ import annotations

import io
import math
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mmpack.errors import DataError, StorageError
from mmpack_trainer.curve import curve
from mmpack_trainer.flops import Rates
from mmpack_trainer.metrics import METRICS_NAME, MetricsLog, StepMetrics, line_of, read_metrics

CPU = Rates(tokens_per_s=1234.5, fill=0.75, useful_mfu=None, slot_mfu=None, hfu=None)
GPU = Rates(tokens_per_s=98_765.4, fill=0.98, useful_mfu=0.41, slot_mfu=0.52, hfu=0.41)


def metrics(step: int, *, loss: float = 2.0, rates: Rates = CPU, **more: Any) -> StepMetrics:
    return StepMetrics(
        step=step,
        loss=loss,
        parts={"ce": loss - 0.5, "action": 0.5},
        grad_norm=1.25,
        lr=3e-4,
        rates=rates,
        devices=8,
        wall_s=2.0,
        data_wait_s=0.05,
        extra={"moe/dropped": 0.0},
        **more,
    )


def write(folder: Path, numbers: Sequence[int], *, loss: float = 2.0) -> None:
    with MetricsLog(folder, steps=100, first_step=numbers[0]) as log:
        for step in numbers:
            log.log(metrics(step, loss=loss))


def steps_of(folder: Path) -> list[int]:
    return [record["step"] for record in read_metrics(folder / METRICS_NAME)]


def test_a_line_holds_all_that_is_known_of_its_step(tmp_path: Path) -> None:
    write(tmp_path / "new" / "run", [1])
    assert read_metrics(tmp_path / "new" / "run" / METRICS_NAME) == [
        {
            "step": 1,
            "loss": 2.0,
            "loss/ce": 1.5,
            "loss/action": 0.5,
            "grad_norm": 1.25,
            "lr": 3e-4,
            "tokens_per_s": 1234.5,
            "fill": 0.75,
            "useful_mfu": None,
            "slot_mfu": None,
            "hfu": None,
            "devices": 8,
            "wall_s": 2.0,
            "data_wait_s": 0.05,
            "moe/dropped": 0.0,
        }
    ]


def test_steps_after_the_checkpoint_are_written_again_and_are_there_once(tmp_path: Path) -> None:
    write(tmp_path, range(1, 15))
    write(tmp_path, range(11, 21), loss=1.0)
    assert steps_of(tmp_path) == list(range(1, 21))
    losses = [record["loss"] for record in read_metrics(tmp_path / METRICS_NAME)]
    assert losses == [2.0] * 10 + [1.0] * 10


def test_a_new_run_in_the_same_folder_starts_afresh(tmp_path: Path) -> None:
    write(tmp_path, range(1, 5))
    write(tmp_path, range(1, 3), loss=1.0)
    assert steps_of(tmp_path) == [1, 2]


def test_a_start_that_ends_before_its_first_step_takes_nothing(tmp_path: Path) -> None:
    write(tmp_path, range(1, 5))
    with MetricsLog(tmp_path, steps=100):
        assert steps_of(tmp_path) == [1, 2, 3, 4]
    assert steps_of(tmp_path) == [1, 2, 3, 4]


def test_a_line_that_a_kill_cut_short_is_removed(tmp_path: Path) -> None:
    write(tmp_path, range(1, 4))
    path = tmp_path / METRICS_NAME
    for cut in (1, 20, 100):
        whole = path.read_bytes()
        path.write_bytes(whole[:-cut])
        assert steps_of(tmp_path) == [1, 2]
        write(tmp_path, [3])
        assert path.read_bytes() == whole


def test_logged_steps_survive_kill_9(tmp_path: Path) -> None:
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from tests.trainer.test_trainer_metrics import MetricsLog, metrics
log = MetricsLog(Path({str(tmp_path)!r}), steps=9)
for step in (1, 2, 3):
    log.log(metrics(step))
print("logged", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "logged\n"
        os.kill(process.pid, signal.SIGKILL)
    assert steps_of(tmp_path) == [1, 2, 3]


def test_a_loss_that_is_no_number_leaves_a_line_that_is_json(tmp_path: Path) -> None:
    write(tmp_path, [1], loss=math.nan)
    assert read_metrics(tmp_path / METRICS_NAME)[0]["loss"] is None


@pytest.mark.parametrize(
    "content", [b"not json\n", b"[1]\n", b'{"loss": 1}\n', b'{"step": 1}\n', b'{"step": "1", "loss": 1}\n']
)
def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / METRICS_NAME
    path.write_bytes(content)
    with pytest.raises(DataError, match=str(path)):
        MetricsLog(tmp_path, steps=1)
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        MetricsLog(tmp_path / "file" / "run", steps=1)


def test_the_screen_shows_utilisation_of_a_gpu_and_none_of_a_cpu(tmp_path: Path) -> None:
    out = io.StringIO()
    with MetricsLog(tmp_path, steps=100, console=Console(file=out, width=60)) as log:
        log.log(metrics(7, rates=GPU))
    assert out.getvalue() == (
        "step   7/100  loss 2.0000 (ce 1.5000, action 0.5000)  gradient 1.250  lr 3.00e-04  98,765 tokens/s  fill 98.0%  "
        "MFU 41.0% (slots 52.0%)  data 2.5%\n"
    )
    assert "MFU" not in line_of(metrics(7), 100)


def test_tensorboard_has_each_step_once(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    write(tmp_path, range(1, 15))
    write(tmp_path, range(11, 21), loss=1.0)
    seen = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    found = {event.step: event.value for event in seen.Scalars("loss")}
    assert list(found) == list(range(1, 21))
    assert found[12] == 1.0
    assert "useful_mfu" not in seen.Tags()["scalars"]


def test_a_curve_goes_from_its_highest_bar_to_its_lowest() -> None:
    assert curve([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]) == "█▇▆▅▄▃▂▁"
    assert curve([float(100 - number) for number in range(100)], width=10)[0::9] == "█▁"
    assert curve([3.0, math.nan, 1.0]) == "█·▁"
    assert curve([2.0, 2.0]) == "▁▁"
    assert curve([math.nan]) == "·"
    assert curve([]) == ""
