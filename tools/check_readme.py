"""Runs every command and program of a Markdown file, to find those that do not work any more.

Blocks marked ```sh run line by line and blocks marked ```python run as programs, all in the root of the repository, with
the commands of the Python environment on the path. `make demo`, `make test` and a few other commands are not run, because
they run as separate steps.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

_BLOCK = re.compile(r"^```(sh|python|toml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_EXCLUDED = re.compile(r"^make (demo|test|lint|test-slow|bench|venv)\b|^git clone |^cd |^pip install ")


def main(path: Path) -> int:
    """Runs the programs of `path` and returns the number of failed ones."""
    scripts = sysconfig.get_path("scripts")
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    failed = 0
    for language, program in find_programs(path.read_text(encoding="utf-8")):
        first_line = program.splitlines()[0]
        print(f"--- {language}: {first_line}", flush=True)
        arguments = ["bash", "-euc", program] if language == "sh" else [sys.executable, "-c", program]
        if subprocess.run(arguments, env=environment, check=False, stdin=subprocess.DEVNULL).returncode:
            print(f"FAILED: {first_line}", flush=True)
            failed += 1
    return failed


def find_programs(text: str) -> Iterator[tuple[str, str]]:
    """Yields (language, program) for all blocks to run; each line of a sh block is one program, with continued lines joined."""
    for language, body in _BLOCK.findall(text):
        if language == "python":
            yield language, body
        elif language == "sh":
            for line in body.replace("\\\n", " ").splitlines():
                command = line.split(" # ")[0].strip()
                if command and not command.startswith("#") and not _EXCLUDED.match(command):
                    yield language, command


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
