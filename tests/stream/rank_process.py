"""One rank of a training run: records a digest of each row, saves its state after each step, and dies after some rows.

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
    """Returns a digest of the keys and of the name, dtype, shape and bytes of every array."""
    hasher = hashlib.sha256(repr(row.keys).encode())
    for name, array in row.arrays().items():
        hasher.update(f"{name} {array.dtype} {array.shape}".encode())
        hasher.update(np.ascontiguousarray(array))
    return hasher.hexdigest()


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
        with (home / f"rows-{rank}").open("w") as log:
            for count, row in enumerate(stream, start=1):
                log.write(f"{row.number} {digest(row)}\n")
                log.flush()
                if count % share == 0:
                    saved = stream.state_dict()
                    temporary = home / f"state-{rank}.tmp"
                    temporary.write_text(json.dumps(saved, sort_keys=True))
                    os.replace(temporary, home / f"state-{saved['row']}-{rank}")
                if str(count) == die_after:
                    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
