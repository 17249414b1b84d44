"""The child process of benchmarks/stream.py: runs one measurement of one loader and prints one line of JSON."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import sys
import time
import zlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.support.process_tree import cpu_s
from benchmarks.support.stream_inputs import read_samples
from benchmarks.support.stream_peers import LOADERS, Loader

#: Payloads of samples with an id below this number are compared with those of the floor.
CHECKED = 2


def prepare(loader: Loader, arguments: argparse.Namespace) -> dict[str, Any]:
    """Writes the samples in the format of the loader."""
    start_s = time.perf_counter()
    loader.prepare()
    return {"prepare_s": time.perf_counter() - start_s}


def speed(loader: Loader, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures one epoch: the time to the first sample, then the rest."""
    pid, ids = os.getpid(), []
    checksums: dict[int, int] = {}
    start_s = time.perf_counter()
    loader.open(arguments.workers)
    samples = loader.epoch()
    ids.append(next(samples)[0])
    first_s, first_cpu_s, since_start_s = time.perf_counter(), cpu_s(pid), time.time() - arguments.started
    for id_, payload in samples:
        ids.append(id_)
        if arguments.check and id_ < CHECKED and payload is not None:
            checksums[id_] = zlib.crc32(payload if isinstance(payload, bytes) else np.asarray(payload).data)
    last_s = time.perf_counter()
    return {
        "first_s": first_s - start_s,
        "first_since_start_s": since_start_s,
        "samples": len(ids),
        "distinct": len(set(ids)),
        "wall_s": last_s - first_s,
        "cpu_s": cpu_s(pid) - first_cpu_s,
        "checksums": checksums,
    }


def memory(loader: Loader, arguments: argparse.Namespace) -> dict[str, Any]:
    """Reads several epochs and returns when each ended. The parent process measures the memory meanwhile."""
    loader.open(arguments.workers)
    ends = [time.time()]
    for _ in range(arguments.epochs):
        for _ in loader.epoch():
            pass
        ends.append(time.time())
    return {"epoch_ends": ends}


def save(loader: Loader, arguments: argparse.Namespace) -> dict[str, Any]:
    """Reads one epoch without interruption, and writes the state at its half to a file."""
    loader.open(arguments.workers)
    ids: list[int] = []
    result: dict[str, Any] = {"ids": ids}
    for id_, _ in loader.epoch():
        ids.append(id_)
        if len(ids) == loader.count // 2:
            start_s = time.perf_counter()
            state = loader.state()
            result["save_s"] = time.perf_counter() - start_s
            pickled = pickle.dumps(state)
            Path(arguments.state).write_bytes(pickled)
            result["state_bytes"] = _measure_state(state, pickled)
    return result


def resume(loader: Loader, arguments: argparse.Namespace) -> dict[str, Any]:
    """Resumes from the file; measures the time to the first sample, and returns the ids of the second half of the epoch."""
    # Unpickling is safe, because this benchmark wrote the file. Pickle is needed for states that are Python objects.
    state = pickle.loads(Path(arguments.state).read_bytes())
    start_s = time.perf_counter()
    loader.open(arguments.workers)
    loader.resume(state)
    samples = loader.epoch()
    ids = [next(samples)[0]]
    first_s = time.perf_counter() - start_s
    ids += [id_ for id_, _ in islice(samples, loader.count - loader.count // 2 - 1)]
    return {"first_s": first_s, "ids": ids}


def _measure_state(state: Any, pickled: bytes) -> int:
    """Returns the size of a state: of the bytes themselves, else as JSON, else pickled."""
    if isinstance(state, bytes):
        return len(state)
    try:
        return len(json.dumps(state))
    except TypeError:
        return len(pickled)


JOBS: dict[str, Callable[[Loader, argparse.Namespace], dict[str, Any]]] = {
    "prepare": prepare,
    "speed": speed,
    "memory": memory,
    "save": save,
    "resume": resume,
}


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description="Run one measurement of one loader.")
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("loader", choices=LOADERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--state", default="")
    parser.add_argument("--check", action="store_true", help="also return checksums of some payloads")
    parser.add_argument(
        "--started", type=float, default=time.time(), help="Unix time at which the process was started"
    )
    arguments = parser.parse_args()
    loader = LOADERS[arguments.loader](read_samples(arguments.folder))
    result = JOBS[arguments.job](loader, arguments)
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    # The threads and workers of some loaders would keep the process from ending.
    os._exit(0)


if __name__ == "__main__":
    main()
