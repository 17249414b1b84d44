"""Shared measurements of the benchmarks: interleaved CPU times, peak memory of a child process, the machine."""

from __future__ import annotations

import gc
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
#: Folder of real recordings, unless the environment variable MMPACK_REAL_DATA names another one.
REAL_DATA = Path(os.environ.get("MMPACK_REAL_DATA", ROOT.parent / "shared" / "data"))


def measure_interleaved(
    jobs: Mapping[str, Callable[[], None]], *, repetitions: int, clean_up: Callable[[], None] = lambda: None
) -> dict[str, list[float]]:
    """Measures the CPU seconds (user and system, all threads of this process) of each job in each repetition.

    The jobs run in turn, and each repetition starts with another job, so that changes of the machine's speed affect
    all jobs equally. A first round is not counted: it loads libraries and fills the page cache.

    Args:
        jobs: jobs by name.
        repetitions: number of counted rounds.
        clean_up: called after every job, not counted; removes the files that the job wrote.

    Returns:
        The times of each job by name.
    """
    names = list(jobs)
    times: dict[str, list[float]] = {name: [] for name in names}
    for repetition in range(-1, repetitions):
        first = repetition % len(names)
        for name in names[first:] + names[:first]:
            gc.collect()
            start_s = time.process_time()
            jobs[name]()
            taken_s = time.process_time() - start_s
            if repetition >= 0:
                times[name].append(taken_s)
            clean_up()
    return times


def median_ratio(times: Mapping[str, Sequence[float]], floor: str, candidate: str) -> float:
    """Returns the median of floor time / candidate time over the repetitions: 1 is as fast as the floor, less is slower.

    The two jobs of a repetition ran one after the other, so slow changes of the machine's speed cancel in the ratio.
    """
    return statistics.median(a / b for a, b in zip(times[floor], times[candidate], strict=True))


def measure_peak_bytes(arguments: Sequence[str]) -> int:
    """Returns the peak resident memory of `python ARGUMENTS`, whose last output is :func:`read_own_peak_bytes`."""
    done = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True, cwd=ROOT)
    return int(done.stdout.split()[-1])


def read_own_peak_bytes() -> int:
    """Returns the peak resident memory of this process since its exec, from /proc.

    getrusage is not used, because the kernel keeps the peak of the parent over an exec if it is larger.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM")


def describe_machine() -> dict[str, Any]:
    """Returns the processor, cores, kernel and the versions of the packages that affect the figures."""
    names = {
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    }
    packages = ("mmpack", "av", "simplejpeg", "numpy", "pyarrow")
    return {
        "cpu": ", ".join(sorted(names)) or platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }
