"""Small but complete inputs of a build, and helpers that run builds and compare their outputs.

The inputs are drives, texts, images with captions, and speech.
"""

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

from tools.make_recording import CameraSettings, make_recording

MMPACK = str(Path(sysconfig.get_path("scripts")) / "mmpack")


def make_inputs(root: Path, *, drives: int = 2, seconds: float = 6.0) -> Path:
    """Writes drives, one stand-alone source of each kind and a build.toml; returns the path of the build.toml.

    The first drive contains planted faults.
    """
    for index in range(drives):
        make_recording(
            root / f"drive-{index}",
            CameraSettings(seconds=seconds, size=(48, 64)),
            seed=index,
            faults=index == 0,
        )
    random = np.random.default_rng(7)
    (root / "media").mkdir()
    texts = [
        {"text": f"The car number {index} turns left at the light. " * (1 + index % 5)} for index in range(40)
    ]
    (root / "texts.jsonl").write_text("".join(json.dumps(record) + "\n" for record in texts))
    captions = []
    for index in range(12):
        image = random.integers(0, 255, (40 + index, 64, 3), dtype=np.uint8)
        (root / "media" / f"{index}.jpg").write_bytes(simplejpeg.encode_jpeg(image, quality=80))
        captions.append({"text": f"noise number {index}", "path": f"media/{index}.jpg", "license": "none"})
    (root / "captions.jsonl").write_text("".join(json.dumps(record) + "\n" for record in captions))
    speech = []
    for index in range(5):
        samples = (random.standard_normal(4000 + 100 * index) * 2000).astype(np.int16)
        soundfile.write(root / "media" / f"{index}.wav", samples, 16000)
        speech.append({"text": f"clip {index}", "path": f"media/{index}.wav"})
    (root / "speech.jsonl").write_text("".join(json.dumps(record) + "\n" for record in speech))
    config = root / "build.toml"
    recordings = ", ".join(f'"drive-{index}"' for index in range(drives))
    config.write_text(
        f"""recordings = [{recordings}]
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


def build_command(config: Path, out: Path | str, *options: str) -> list[str]:
    """Returns the command line that builds `config`."""
    return [MMPACK, "build-shards", str(config), "--out", str(out), *options]


def run(
    arguments: list[str], *, timeout: float = 120, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    """Runs a command to its end and captures its output."""
    return subprocess.run(
        arguments, capture_output=True, text=True, timeout=timeout, check=False, env=os.environ | (env or {})
    )


def compute_digests(out: Path) -> dict[str, str]:
    """Computes the sha256 of every file of an output: shards, index, manifest, and the records of the build."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def list_descendants(pid: int) -> list[int]:
    """Lists the pids of all descendants of a process."""
    pids: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                pids += [int(child), *list_descendants(int(child))]
    except OSError:
        pass
    return pids


def kill_process(process: subprocess.Popen) -> None:
    """Kills the main process of a build and nothing else: its workers must end by themselves."""
    process.send_signal(signal.SIGKILL)
    process.wait()


def wait_until_gone(pids: list[int], *, within_s: float = 10.0) -> list[int]:
    """Waits until the processes `pids` have ended, at most `within_s` seconds, and returns those that still run.

    Zombies, which wait for their parent, count as ended.
    """
    deadline = time.monotonic() + within_s
    running = pids
    while running and time.monotonic() < deadline:
        running = [pid for pid in running if _is_running(pid)]
        time.sleep(0.02)
    return running


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
