"""Small but complete inputs of a build: drives, texts, captioned pictures, speech; and how outputs are compared."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sysconfig
import time
from pathlib import Path

import numpy as np
import simplejpeg
import soundfile

from tools.make_recording import make_recording

MMPACK = str(Path(sysconfig.get_path("scripts")) / "mmpack")


def make_inputs(root: Path, *, drives: int = 2, seconds: float = 6.0) -> Path:
    """A build config with drives, and one stand-alone source of each kind; the path of the config."""
    for number in range(drives):
        make_recording(
            root / f"drive-{number}", seed=number, seconds=seconds, size=(48, 64), faults=number == 0
        )
    random = np.random.default_rng(7)
    (root / "media").mkdir()
    texts = [
        {"text": f"The car number {number} turns left at the light. " * (1 + number % 5)}
        for number in range(40)
    ]
    (root / "texts.jsonl").write_text("".join(json.dumps(record) + "\n" for record in texts))
    captions = []
    for number in range(12):
        picture = random.integers(0, 255, (40 + number, 64, 3), dtype=np.uint8)
        (root / "media" / f"{number}.jpg").write_bytes(simplejpeg.encode_jpeg(picture, quality=80))
        captions.append({"text": f"noise number {number}", "path": f"media/{number}.jpg", "license": "none"})
    (root / "captions.jsonl").write_text("".join(json.dumps(record) + "\n" for record in captions))
    speech = []
    for number in range(5):
        samples = (random.standard_normal(4000 + 100 * number) * 2000).astype(np.int16)
        soundfile.write(root / "media" / f"{number}.wav", samples, 16000)
        speech.append({"text": f"clip {number}", "path": f"media/{number}.wav"})
    (root / "speech.jsonl").write_text("".join(json.dumps(record) + "\n" for record in speech))
    config = root / "build.toml"
    listed = ", ".join(f'"drive-{number}"' for number in range(drives))
    config.write_text(
        f"""recordings = [{listed}]
max_quarantine = 0.2

[shards]
size = "40kB"

[[samples]]
name = "texts"
kind = "text"
path = "texts.jsonl"

[[samples]]
name = "captions"
kind = "image_text"
path = "captions.jsonl"

[[samples]]
name = "speech"
kind = "speech"
path = "speech.jsonl"
"""
    )
    return config


def command(config: Path, out: Path | str, *options: str) -> list[str]:
    """The build of `config` as a command line."""
    return [MMPACK, "build-shards", str(config), "--out", str(out), *options]


def run(
    arguments: list[str], *, timeout: float = 120, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    """Runs a command to its end, its output captured."""
    return subprocess.run(
        arguments, capture_output=True, text=True, timeout=timeout, check=False, env=os.environ | (env or {})
    )


def digests(out: Path) -> dict[str, str]:
    """sha256 of every file of an output: shards, index, manifest, and the records of the build."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def children(pid: int) -> list[int]:
    """Processes that `pid` started, and theirs."""
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *children(int(child))]
    except OSError:
        pass
    return found


def kill_process(process: subprocess.Popen) -> None:
    """kill -9 of a build and nothing else: its workers have to notice."""
    process.send_signal(signal.SIGKILL)
    process.wait()


def wait_gone(pids: list[int], *, within_s: float = 10.0) -> list[int]:
    """Those of `pids` that still run after a while; zombies that wait for their parent do not run."""
    until = time.monotonic() + within_s
    left = pids
    while left and time.monotonic() < until:
        left = [pid for pid in left if _runs(pid)]
        time.sleep(0.02)
    return left


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
