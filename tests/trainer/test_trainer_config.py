"""Settings of a run: what the file and the command line give, and every fault told in one line before anything starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mmpack.errors import ConfigError, DataError, MmpackError
from mmpack.layout import LayoutConfig
from mmpack.serialisation import to_builtins
from mmpack_trainer.config.check import Checked, check
from mmpack_trainer.config.load import load_config
from mmpack_trainer.hardware import Device
from tests.trainer.recipes import (
    MOE,
    RECIPE,
    config_with,
    flat,
    make_run,
    make_shards,
    write_plan,
    write_recipe,
)

CPU = Device("cpu")
H100 = Device("NVIDIA H100 80GB HBM3", (9, 0), 80 << 30)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"))


def checked(run: Path, *overrides: str, world: int = 1, device: Device = CPU) -> Checked:
    return check(config_with(run, *overrides), world=world, device=device)


def refusal(run: Path, *overrides: str, world: int = 1, device: Device = CPU) -> str:
    with pytest.raises(MmpackError) as caught:
        checked(run, *overrides, world=world, device=device)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_paths_start_at_the_file_and_those_of_the_command_line_where_it_was_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = config_with(run, "--data.plan=other/plan.toml")
    assert config.out == str(run / "run")
    assert config.data.plan == str(tmp_path / "other" / "plan.toml")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert config_with(run, "--out=~/train").out == str(tmp_path / "home" / "train")
    assert "no such user's folder" in refusal(run, "--out=~nobody-of-that-name/train")


def test_overrides_are_toml_values_and_bare_words_are_text(run: Path) -> None:
    before = flat(to_builtins(config_with(run)))
    after = flat(
        to_builtins(
            config_with(
                run,
                "--schedule.kind=wsd",
                "--optimizer.betas=[0.8, 0.9]",
                "--compute.compile=true",
                '--target_tokens="2M"',
                "--steps=7",
                "--steps=8",
            )
        )
    )
    assert {key: value for key, value in after.items() if before[key] != value} == {
        "schedule.kind": "wsd",
        "optimizer.betas": (0.8, 0.9),
        "compute.compile": True,
        "target_tokens": "2M",
        "steps": 8,
    }


def test_a_value_with_a_line_break_sets_no_further_key(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"Expected 'int', got 'str'"):
        config_with(run, "--steps=7\nseed = 3")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--model.layrs=3", r"unknown key 'model.layrs'. Did you mean 'layers'\?"),
        ("--shedule.kind=wsd", r"unknown key 'shedule'. Did you mean 'schedule'\?"),
        ("--model.moe.expert=4", r"unknown key 'model.moe.expert'. Did you mean 'experts'\?"),
        (
            "--schedule.kind=cosin",
            r"'cosin' is not a valid value of 'schedule.kind'. Did you mean 'cosine'\?",
        ),
        ("--model.dim=64.5", r"\[model.dim\]: Expected 'int', got 'float'"),
        ("--optimizer.lr=fast", r"\[optimizer.lr\]: Expected 'float', got 'str'"),
        ("--steps.more=1", r"--steps.more: 'steps' is a value, not a table"),
        ("--steps", r"--steps: is no setting. Write --section.key=value"),
        ("steps=3", r"steps=3: is no setting"),
        ("--.steps=3", r"is no setting"),
    ],
)
def test_wrong_overrides_are_refused_with_what_was_meant(run: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_with(run, override)


def test_unknown_keys_and_missing_ones_of_the_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'warmup'"):
        load_config(
            write_recipe(tmp_path, RECIPE + "\nwarmup = 3\n".replace("\nwarmup", "\n[warmup]\nsteps"))
        )
    with pytest.raises(ConfigError, match=r"missing required field 'steps'"):
        load_config(write_recipe(tmp_path, RECIPE.replace("steps = 100\nmicro", "micro")))
    with pytest.raises(ConfigError, match=r"no such file"):
        load_config(tmp_path / "none.toml")


def test_the_recipe_of_these_tests_is_sound(run: Path) -> None:
    found = checked(run)
    assert (
        str(found.batch)
        == "2 rows × 128 places × 8 accumulated × 1 data-parallel ranks = 2,048 tokens a step"
    )
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("overrides", "world", "message"),
    [
        (
            ["--parallel.tensor=3"],
            3,
            "parallel.tensor: 3 does not divide model.heads = 8. Divisors: 1, 2, 4, 8.",
        ),
        (["--parallel.tensor=8"], 8, "parallel.tensor: 8 does not divide model.kv_heads = 4"),
        (["--parallel.tensor=4", "--model.hidden_dim=126"], 4, "does not divide model.hidden_dim = 126"),
        (
            ["--parallel.tensor=4", *MOE, "--model.moe.hidden_dim=90"],
            4,
            "does not divide model.moe.hidden_dim = 90",
        ),
        (["--parallel.expert=4", *MOE], 4, "parallel.expert: 4 does not divide model.moe.experts = 6"),
        (["--parallel.expert=3", *MOE], 4, "parallel.expert: 3 does not divide the 4 processes of a replica"),
        (["--parallel.expert=2"], 2, "parallel.expert: 2, and the model has no experts"),
        (["--parallel.tensor=2"], 3, "parallel: tensor 2 × replicate 1 = 2 does not divide 3 processes"),
        (
            ["--parallel.tensor=2", "--parallel.replicate=4"],
            4,
            "= 8 does not divide 4 processes. Start a multiple of 8",
        ),
    ],
)
def test_degrees_that_cannot_be_are_refused(
    run: Path, overrides: list[str], world: int, message: str
) -> None:
    assert message in refusal(run, *overrides, world=world)


def test_rows_that_ranks_cannot_share_are_refused_with_what_to_change(run: Path) -> None:
    assert refusal(run, world=3) == (
        "global_batch: 16 rows a step are no multiple of 3 data-parallel ranks × micro_batch 2. "
        "Set the plan's global_batch to 12 or 18, or use 2 data-parallel ranks."
    )
    assert refusal(run, "--micro_batch=6", world=2).endswith(
        "Set the plan's global_batch to 12 or 24, or micro_batch to 4."
    )
    assert checked(run, "--parallel.tensor=4", world=8).batch.ranks == 2


def test_places_that_tensor_parallel_peers_cannot_share_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, max_seq_len=126)
    assert "4 does not divide the plan's max_seq_len = 126. Set max_seq_len to 124" in refusal(
        run, "--parallel.tensor=4", world=4
    )


def test_a_vocabulary_smaller_than_the_layouts_is_refused(run: Path) -> None:
    size = checked(run).plan.layout.vocabulary.size
    assert checked(run, f"--model.vocabulary={size}").plan.layout.vocabulary.size == size
    message = refusal(run, f"--model.vocabulary={size - 1}")
    assert message.startswith(f"model.vocabulary: {size - 1} ids are fewer than the {size} of the layout")


def test_shards_of_two_layouts_are_refused_in_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    make_shards(run / "others", layout=LayoutConfig(cameras=("cam_rear",)))
    with (run / "plan.toml").open("a") as file:
        file.write('[[datasets]]\nname = "others"\nshards = "others"\n')
    assert "was built with another layout than" in refusal(run)


def test_a_plan_or_build_that_is_not_there_is_refused(run: Path, tmp_path: Path) -> None:
    assert "no such file" in refusal(run, "--data.plan=none.toml")
    write_plan(tmp_path)
    assert "shards" in refusal(run, f"--data.plan={tmp_path / 'plan.toml'}")


def test_what_the_hardware_lacks_is_refused(run: Path) -> None:
    assert "need a GPU" in refusal(run, "--optimizer.bf16_states=true")
    assert "no backward pass on a CPU" in refusal(run, "--model.attention=flex")
    checked(run, "--optimizer.bf16_states=true", "--model.attention=flex", device=H100)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--schedule.warmup_steps=100", "schedule.warmup_steps: 100 steps of warmup leave none of 100"),
        ("--schedule.warmup_steps=-1", "schedule.warmup_steps: -1 is not 0 or more"),
        ("--schedule.final=1.5", "schedule.final: 1.5 is not within 0 and 1"),
        ("--schedule.decay_share=0", "schedule.decay_share"),
        ("--steps=0", "steps: 0 is not 1 or more"),
        ("--micro_batch=-2", "micro_batch: -2 is not 1 or more"),
        ("--seed=-1", "seed: -1"),
        ("--data.workers=-1", "data.workers: -1 is not within 0 and 1024"),
        ("--optimizer.lr=0", "optimizer.lr: 0 is not above 0"),
        ("--optimizer.lr=nan", "optimizer.lr: nan is not above 0"),
        ("--optimizer.lr=inf", "optimizer.lr: inf is not above 0"),
        ("--optimizer.weight_decay=-0.1", "optimizer.weight_decay: -0.1 is not 0 or more"),
        ("--optimizer.betas=[0.9, 1.0]", "optimizer.betas: 1 is not within"),
        ("--loss.temperature=0", "loss.temperature: 0 is not above 0"),
        ("--loss.action=-1", "loss.action: -1.0 is not 0 or more"),
        ("--loss.contrastive=0.1", "loss.contrastive: the model has no contrastive head"),
        ("--loss.aux=0.01", "loss.aux: the model has no experts"),
        ("--model.kv_heads=3", "model.kv_heads: 3 do not divide 8 heads. Set it to 2 or 4."),
        ("--model.dim=60", "model.heads: 8 do not divide a width of 60. Set it to 6 or 10"),
        ("--model.head_dim=7", "model.head_dim: heads of width 7 cannot be rotated"),
        ("--model.layers=0", "model.layers: 0 is not 1 or more"),
        ("--parallel.tensor=0", "parallel.tensor: 0 is not 1 or more"),
        ("--checkpoint.keep=0", "checkpoint.keep: 0 is not 1 or more"),
        ("--target_tokens=many", "target_tokens: 'many' is not a number of tokens"),
    ],
)
def test_values_out_of_range_are_refused_by_name(run: Path, override: str, message: str) -> None:
    assert message in refusal(run, override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--model.moe.top_k=7", "model.moe.top_k: 7 is not within 1 and 6"),
        ("--model.moe.dense_layers=2", "model.moe.dense_layers: 2 is not within 0 and 1"),
        ("--model.moe.capacity_factor=0", "model.moe.capacity_factor: 0 is not above 0"),
        ("--model.moe.noise=-1", "model.moe.noise: -1.0 is not 0 or more"),
    ],
)
def test_experts_out_of_range_are_refused_by_name(run: Path, override: str, message: str) -> None:
    assert message in refusal(run, *MOE, override)


def test_a_batch_far_from_the_target_is_refused_with_the_accumulation_that_meets_it(run: Path) -> None:
    assert refusal(run, "--target_tokens=8k", world=2) == (
        "target_tokens: 8k tokens are asked for, and the plan's global_batch makes 2 rows × 128 places × 4 accumulated "
        "× 2 data-parallel ranks = 2,048 tokens a step. Set the plan's global_batch to 64: 2 rows × 128 places × 16 "
        "accumulated × 2 data-parallel ranks = 8,192 tokens a step."
    )
    assert checked(run, "--target_tokens=2k").batch.tokens == 2048


def test_warmup_outside_1_to_5_percent_is_warned_of(run: Path) -> None:
    assert checked(run, "--schedule.warmup_steps=6").warnings == (
        "warmup is 6.00% of 100 steps; 1 to 5 % is usual, 1 to 5 steps",
    )
    assert checked(run, "--schedule.warmup_steps=0").warnings != ()
    for steps, warmup in ((1, 0), (2, 0), (2, 1), (19, 0), (19, 1), (40, 2)):
        assert checked(run, f"--steps={steps}", f"--schedule.warmup_steps={warmup}").warnings == ()
    assert refusal(run, "--steps=1", "--schedule.warmup_steps=1").endswith("steps is usual: 0 to 0.")
    assert checked(run, "--schedule.warmup_steps=30", "--schedule.kind=one-cycle").warnings == ()


def test_peaks_outside_what_the_size_usually_takes_are_warned_of(run: Path) -> None:
    one = [
        "--model.dim=2048",
        "--model.layers=16",
        "--model.heads=32",
        "--model.kv_heads=8",
        "--model.hidden_dim=8192",
    ]
    assert checked(run, *one, "--optimizer.lr=6e-4").warnings == ()
    assert checked(run, *one, "--optimizer.lr=7e-4").warnings == (
        "a peak learning rate of 0.0007 is outside 0.0003 to 0.0006, usual for 1B parameters",
    )
    ten = ["--model.moe.experts=16", "--model.moe.hidden_dim=5632", *one]
    assert checked(run, *ten, "--optimizer.lr=2e-4").warnings == ()
    assert "0.0001 to 0.0002, usual for 10B" in checked(run, *ten, "--optimizer.lr=3e-4").warnings[0]


def test_a_peak_of_fine_tuning_at_a_large_batch_is_warned_of(tmp_path: Path) -> None:
    large = make_run(tmp_path, max_seq_len=4096, global_batch=1024)
    assert checked(large, "--optimizer.lr=6e-5").warnings == ()
    assert checked(large, "--optimizer.lr=5e-5").warnings == (
        "a peak learning rate of 5e-05 is one of fine-tuning: at 4,194,304 tokens a step training hardly moves",
    )


def test_a_gate_that_learns_nothing_is_warned_of(run: Path) -> None:
    one = (*MOE, "--model.moe.top_k=1")
    for no_mend in ("--model.moe.bias_rate=0", "--model.moe.bias_rate=0.001", "--loss.z=0.01"):
        assert "the gate learns nothing" in checked(run, *one, no_mend).warnings[0]
    for mend in ("--loss.aux=0.01", "--model.moe.top_k=2"):
        assert checked(run, *one, mend).warnings == ()


def test_a_plan_without_a_whole_step_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, global_batch=1000)
    text = (run / "plan.toml").read_text()
    (run / "plan.toml").write_text(text + "max_epochs = 1\n")
    with pytest.raises(DataError, match="do not fill one step of 1000 rows"):
        checked(run)


def test_losses_without_data_and_plans_that_end_are_warned_of(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    text = (run / "plan.toml").read_text()
    (run / "plan.toml").write_text(text + "max_epochs = 1\n")
    told = checked(run, "--loss.action=0.1", "--loss.contrastive=0.1", "--model.contrastive_dim=16").warnings
    assert len(told) == 3
    assert told[0] == "the plan has rows for about 9 steps of the run's 100; it ends there"
    assert "no continuous actions" in told[1]
    assert "no data set of the plan is contrastive" in told[2]


def test_checking_imports_no_torchtitan_and_starts_no_process_group(run: Path) -> None:
    code = (
        "import sys; from mmpack_trainer.config.check import check; from mmpack_trainer.config.load import load_config;"
        "from mmpack_trainer.hardware import Device;"
        f"check(load_config({str(run / 'run.toml')!r}), world=1, device=Device('cpu'));"
        "print({'torch', 'torchtitan'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
