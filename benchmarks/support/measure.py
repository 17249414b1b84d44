"""What benchmarks share: CPU time of jobs in turn, peak memory of a child process, facts of the machine."""

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

ROOT = Path(__file__).resolve().parent.parent
#: Real recordings are looked for here unless the environment names another folder.
REAL_DATA = Path(os.environ.get("MMPACK_REAL_DATA", ROOT.parent / "shared" / "data"))


def measure_interleaved(
    jobs: Mapping[str, Callable[[], None]], *, repetitions: int, between: Callable[[], None] = lambda: None
) -> dict[str, list[float]]:
    """CPU seconds (user and system, all threads of this process) of each job in each repetition.

    The jobs run in turn, each repetition starting with another one, so that a change of the machine's pace
    meets all alike. One round before the first is not counted: it loads libraries and fills the page cache.

    Args:
        jobs: by name.
        repetitions: counted rounds.
        between: run after every job, not counted; removes what the job wrote.
    """
    names = list(jobs)
    found: dict[str, list[float]] = {name: [] for name in names}
    for repetition in range(-1, repetitions):
        turn = repetition % len(names)
        for name in names[turn:] + names[:turn]:
            gc.collect()
            start_s = time.process_time()
            jobs[name]()
            taken_s = time.process_time() - start_s
            if repetition >= 0:
                found[name].append(taken_s)
            between()
    return found


def median_ratio(times: Mapping[str, Sequence[float]], floor: str, ours: str) -> float:
    """Median of floor time / our time over the repetitions: 1 is as fast as the floor, less is slower.

    Each repetition's pair ran side by side, so its quotient is free of slow changes of the machine's pace.
    """
    return statistics.median(a / b for a, b in zip(times[floor], times[ours], strict=True))


def peak_bytes(arguments: Sequence[str]) -> int:
    """Peak resident memory of `python ARGUMENTS`, which prints it last as :func:`own_peak_bytes`."""
    done = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True, cwd=ROOT)
    return int(done.stdout.split()[-1])


def own_peak_bytes() -> int:
    """Peak resident memory of this process since its exec.

    From /proc: getrusage gives the parent's size where that is larger: the kernel keeps it over an exec.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM")


def machine() -> dict[str, Any]:
    """Processor, cores, kernel and versions of what the numbers depend on."""
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
