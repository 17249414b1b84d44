"""The ends of a command: Ctrl-C, a closed pipe, usage errors, help and unexpected errors, each with its exit code."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from mmpack.show.console import ClosedOutputError, format_error, run_command_line
from tests.ingest.build_inputs import MMPACK, run
from tests.plan.small_plans import NAMES, make_small_index


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """Starts a command in a process group of its own, as a shell does."""
    return subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def interrupt(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Sends SIGINT to the process group, as a terminal does at Ctrl-C; returns exit code, stdout and stderr."""
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout, stderr


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("endings")
    make_small_index(folder / "build")
    datasets = "".join(
        f'[[datasets]]\nname = "{name}"\nshards = "build"\nselect = ["{name}"]\n' for name in NAMES
    )
    path = folder / "plan.toml"
    path.write_text(f"max_seq_len = 1024\nglobal_batch = 8\nwindow_steps = 4\n{datasets}")
    return path


def test_ctrl_c_prints_one_line_and_exits_with_130(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    os.mkfifo(plan)
    process = start([MMPACK, "mixture", str(plan)])
    with plan.open("w"):  # returns when the command has opened the file, and lets it wait for the content
        assert interrupt(process) == (130, "", "stopped\n")


@pytest.mark.parametrize("workers", ["0", "1"])
def test_ctrl_c_in_a_build_says_that_the_same_command_resumes(tmp_path: Path, workers: str) -> None:
    records = "".join(
        json.dumps({"text": f"The car number {index} turns left."}) + "\n" for index in range(20_000)
    )
    (tmp_path / "texts.jsonl").write_text(records)
    config = tmp_path / "build.toml"
    config.write_text('[[samples]]\nname = "texts"\nkind = "text"\npath = "texts.jsonl"\n')
    out = tmp_path / "out"
    command = [MMPACK, "build-shards", str(config), "--out", str(out), "-j", workers]
    process = start(command)
    deadline = time.monotonic() + 60
    while not list(out.glob("shards/*")) and not list(out.glob("_build/*/*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert interrupt(process) == (130, "", "stopped; the same command resumes\n")
    assert not (out / "manifest.json").exists()
    done = run(command)
    assert (done.returncode, done.stderr) == (0, "")
    assert "20000 samples" in done.stdout


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_closed_pipe_ends_the_command_quietly_with_0(plan: Path, options: list[str]) -> None:
    command = " ".join([MMPACK, "mixture", str(plan), *options])
    done = run(["bash", "-c", f"{command} | head -0; echo ${{PIPESTATUS[0]}}"])
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_a_closed_pipe_ends_the_help_quietly_with_0() -> None:
    done = run(["bash", "-c", f"{MMPACK} --help | head -0; echo ${{PIPESTATUS[0]}}"])
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("options", [["mixture"], ["mixture", "--json"], ["--help"], ["--version"]])
def test_a_full_output_is_an_error_in_one_line(plan: Path, options: list[str]) -> None:
    arguments = [MMPACK, *options, *([str(plan)] if "mixture" in options else [])]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            arguments, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.stderr == "error: writing to the output failed (No space left on device)\n"
    assert done.returncode == 1


def test_an_os_error_elsewhere_is_not_taken_for_a_failed_output(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="No space left"):
        run_in_this_process(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))


def test_a_closed_pipe_does_not_hide_an_error(tmp_path: Path) -> None:
    done = run(["bash", "-c", f"{MMPACK} sync {tmp_path}/none | head -0; echo ${{PIPESTATUS[0]}}"])
    assert done.stdout == "1\n"
    assert done.stderr == f"error: {tmp_path}/none: no such file or folder. Check the path.\n"


def test_a_usage_error_exits_with_2_and_names_the_option() -> None:
    done = run([MMPACK, "pack", "shards", "--nope"])
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: mmpack pack" in done.stderr
    assert "No such option: --nope" in done.stderr


@pytest.mark.parametrize("option", ["--help", "-h", "--version"])
def test_help_and_version_exit_with_0(option: str) -> None:
    done = run([MMPACK, option])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def run_in_this_process(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Runs a command that raises `error`."""
    app = typer.Typer()

    @app.command()
    def fail() -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["fail"])
    run_command_line(app)


def test_a_broken_pipe_to_another_process_is_not_taken_for_a_closed_output(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(BrokenPipeError):
        run_in_this_process(monkeypatch, BrokenPipeError("of a worker"))


def test_exit_codes_and_interrupts_of_a_command_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as caught:
        run_in_this_process(monkeypatch, typer.Exit(3))
    assert caught.value.code == 3
    with pytest.raises(KeyboardInterrupt):
        run_in_this_process(monkeypatch, KeyboardInterrupt())
    with pytest.raises(ClosedOutputError):
        run_in_this_process(monkeypatch, ClosedOutputError())


def test_an_error_without_a_message_is_named_by_its_class() -> None:
    assert format_error(AssertionError()) == "error: unexpected AssertionError"
    assert format_error(KeyError("a\nb")) == r"error: unexpected KeyError: 'a\nb'"
