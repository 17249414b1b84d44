"""One measurement of one loader, in a process of its own, for benchmarks/stream.py; prints one line of JSON."""

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

#: The payloads of the samples below this id are compared with the floor's.
CHECKED = 2


def prepare(loader: Loader, arguments: argparse.Namespace) -> dict[str, Any]:
    """Writes the loader's own format."""
    start_s = time.perf_counter()
    loader.prepare()
    return {"prepare_s": time.perf_counter() - start_s}


def speed(loader: Loader, arguments: argparse.Namespace) -> dict[str, Any]:
    """One epoch: the first sample, then the rest."""
    me, ids = os.getpid(), []
    checksums: dict[int, int] = {}
    start_s = time.perf_counter()
    loader.open(arguments.workers)
    samples = loader.epoch()
    ids.append(next(samples)[0])
    first_s, first_cpu_s, since_start_s = time.perf_counter(), cpu_s(me), time.time() - arguments.started
    for number, payload in samples:
        ids.append(number)
        if arguments.check and number < CHECKED and payload is not None:
            checksums[number] = zlib.crc32(
                payload if isinstance(payload, bytes) else np.asarray(payload).data
            )
    last_s = time.perf_counter()
    return {
        "first_s": first_s - start_s,
        "first_since_start_s": since_start_s,
        "samples": len(ids),
        "distinct": len(set(ids)),
        "wall_s": last_s - first_s,
        "cpu_s": cpu_s(me) - first_cpu_s,
        "checksums": checksums,
    }


def memory(loader: Loader, arguments: argparse.Namespace) -> dict[str, Any]:
    """Several epochs; the parent process reads the memory, and is told when each ended."""
    loader.open(arguments.workers)
    ends = [time.time()]
    for _ in range(arguments.epochs):
        for _ in loader.epoch():
            pass
        ends.append(time.time())
    return {"epoch_ends": ends}


def save(loader: Loader, arguments: argparse.Namespace) -> dict[str, Any]:
    """One epoch without a break: its ids, and the state at its half, left in a file."""
    loader.open(arguments.workers)
    ids: list[int] = []
    found: dict[str, Any] = {"ids": ids}
    for number, _ in loader.epoch():
        ids.append(number)
        if len(ids) == loader.count // 2:
            start_s = time.perf_counter()
            state = loader.state()
            found["save_s"] = time.perf_counter() - start_s
            stored = pickle.dumps(state)
            Path(arguments.state).write_bytes(stored)
            found["state_bytes"] = _size(state, stored)
    return found


def resume(loader: Loader, arguments: argparse.Namespace) -> dict[str, Any]:
    """Goes on from the file: how long until the first sample, and the ids of the second half."""
    # The benchmark's own file; some states are objects, which nothing else keeps.
    state = pickle.loads(Path(arguments.state).read_bytes())
    start_s = time.perf_counter()
    loader.open(arguments.workers)
    loader.resume(state)
    samples = loader.epoch()
    ids = [next(samples)[0]]
    first_s = time.perf_counter() - start_s
    ids += [number for number, _ in islice(samples, loader.count - loader.count // 2 - 1)]
    return {"first_s": first_s, "ids": ids}


def _size(state: Any, stored: bytes) -> int:
    """Bytes as they are, else as JSON, else pickled."""
    if isinstance(state, bytes):
        return len(state)
    try:
        return len(json.dumps(state))
    except TypeError:
        return len(stored)


JOBS: dict[str, Callable[[Loader, argparse.Namespace], dict[str, Any]]] = {
    "prepare": prepare,
    "speed": speed,
    "memory": memory,
    "save": save,
    "resume": resume,
}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="One measurement of one loader.")
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("loader", choices=LOADERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--state", default="")
    parser.add_argument("--check", action="store_true", help="checksums of some payloads")
    parser.add_argument("--started", type=float, default=time.time(), help="when the process was started")
    arguments = parser.parse_args()
    loader = LOADERS[arguments.loader](read_samples(arguments.folder))
    found = JOBS[arguments.job](loader, arguments)
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
    # Some loaders' threads and workers keep a process from ending.
    os._exit(0)


if __name__ == "__main__":
    main()
