"""Runs every command and program of a Markdown file, so that none of them goes stale.

Blocks marked ```sh run line by line, blocks marked ```python as programs, all in the repository's root with
the environment's commands on the path. `make demo` and `make test` are left to whoever calls this: they run
as steps of their own.
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
_ELSEWHERE = re.compile(r"^make (demo|test|lint|test-slow|bench|venv)\b|^git clone |^cd |^pip install ")


def main(path: Path) -> int:
    """Runs the blocks of `path`; the number of those that failed."""
    scripts = sysconfig.get_path("scripts")
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    failed = 0
    for language, command in blocks(path.read_text(encoding="utf-8")):
        first = command.splitlines()[0]
        print(f"--- {language}: {first}", flush=True)
        arguments = ["bash", "-euc", command] if language == "sh" else [sys.executable, "-c", command]
        if subprocess.run(arguments, env=environment, check=False, stdin=subprocess.DEVNULL).returncode:
            print(f"FAILED: {first}", flush=True)
            failed += 1
    return failed


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """(language, program) of each block to run; a sh block gives one program a line, continued lines joined."""
    for language, body in _BLOCK.findall(text):
        if language == "python":
            yield language, body
        elif language == "sh":
            for line in body.replace("\\\n", " ").splitlines():
                command = line.split(" # ")[0].strip()
                if command and not command.startswith("#") and not _ELSEWHERE.match(command):
                    yield language, command


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
