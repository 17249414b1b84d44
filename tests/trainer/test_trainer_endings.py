"""The ends of a command of the trainer: Ctrl-C, a closed pipe, usage errors and errors, each with its exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def start(body: str, **env: str) -> subprocess.Popen[str]:
    """Starts a command of the trainer with this body in a process of its own."""
    code = (
        "import sys, time, typer\n"
        "from mmpack_trainer.entry import run_app\n"
        "app = typer.Typer(add_completion=False)\n"
        "@app.command()\n"
        f"def command() -> None:\n    {body}\n"
        "run_app(app, stopped='stopped; the same command resumes')"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | env,
    )


@pytest.mark.parametrize(
    ("env", "stderr"),
    [
        ({}, "stopped; the same command resumes\n"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "rank 1: stopped; the same command resumes\n"),
    ],
)
def test_ctrl_c_prints_one_line_and_exits_with_130(env: dict[str, str], stderr: str) -> None:
    process = start("print('ready', flush=True); time.sleep(60)", **env)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert (*process.communicate(timeout=30), process.returncode) == ("", stderr, 130)


@pytest.mark.parametrize(("env", "code"), [({}, 0), ({"WORLD_SIZE": "2", "RANK": "0"}, 1)])
def test_a_closed_pipe_ends_the_command_quietly(env: dict[str, str], code: int) -> None:
    process = start("sys.stdin.read(); print('text', flush=True)", **env)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdin is not None
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == ""
    assert process.wait(30) == code


def test_an_error_without_a_message_is_named_by_its_class() -> None:
    process = start("raise AssertionError")
    stdout, stderr = process.communicate(timeout=30)
    assert (stdout, process.returncode) == ("", 70)
    assert stderr.startswith("error: unexpected AssertionError. ")


def test_the_trainer_does_not_import_the_commands_of_mmpack() -> None:
    files = sorted((ROOT / "trainer" / "mmpack_trainer").rglob("*.py"))
    assert files
    assert [path.name for path in files if "mmpack.cli" in path.read_text("utf-8")] == []
