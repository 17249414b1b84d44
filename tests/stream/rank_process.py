"""One rank of a run: reads rows, writes down what each was, saves its state at every step's end, and dies when told.

python -m tests.stream.rank_process PLAN RANK RANKS WORKERS FOLDER STATE|- DIE_AFTER_ROWS|-
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np

from mmpack.stream import Row, RowStream


def digest(row: Row) -> str:
    """Of every array's type, shape and bytes, and of the keys."""
    found = hashlib.sha256(repr(row.keys).encode())
    for name, array in row.arrays().items():
        found.update(f"{name} {array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array))
    return found.hexdigest()


def main() -> None:
    """Runs the rank."""
    plan, rank, ranks, workers, folder, state, die_after = sys.argv[1:]
    home = Path(folder)
    with RowStream.open(
        plan, rank=int(rank), ranks=int(ranks), reader={"workers": int(workers), "threads": 1}
    ) as stream:
        if state != "-":
            stream.load_state_dict(json.loads(Path(state).read_text()))
        share = stream.plan.config.global_batch // int(ranks)
        with (home / f"rows-{rank}").open("w") as told:
            for count, row in enumerate(stream, start=1):
                told.write(f"{row.number} {digest(row)}\n")
                told.flush()
                if count % share == 0:
                    saved = stream.state_dict()
                    aside = home / f"state-{rank}.tmp"
                    aside.write_text(json.dumps(saved, sort_keys=True))
                    os.replace(aside, home / f"state-{saved['row']}-{rank}")
                if str(count) == die_after:
                    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
