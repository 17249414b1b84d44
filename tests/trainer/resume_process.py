"""One run of the trainer as a process of its own, alone or by torchrun, which tells what it does as it does it.

    python -m tests.trainer.resume_process CONFIG.json FOLDER [STEP]

FOLDER gets `steps.jsonl`, the loss of each step to the bit; `rows-RANK.jsonl`, the rows of each micro-batch; and at the end
`done.json`, digests of parameters and buffers. With STEP the process kills itself while it writes that step's checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint import FileSystemWriter

from mmpack.settings import parse_settings
from mmpack_trainer.batch import MicroBatch
from mmpack_trainer.config.schema import TrainConfig
from mmpack_trainer.titan import whole
from mmpack_trainer.train import Step, Trainer


def main(settings: Path, folder: Path, fatal: int | None) -> None:
    """Trains to the end, or to its own."""
    trainer = Trainer(parse_settings(json.loads(settings.read_text()), TrainConfig, where=str(settings)))
    if fatal is not None:
        _die_in_checkpoint(fatal)
    trainer.batches = _told(trainer.batches, folder / f"rows-{trainer.world.data_rank}.jsonl")  # type: ignore[assignment]

    def tell(step: Step) -> None:
        if trainer.world.is_first:
            _append(folder / "steps.jsonl", {"step": step.number, "loss": step.loss.hex()})

    trainer.fit(tell)
    digests = {
        name: hashlib.sha256(whole(value).detach().cpu().numpy().tobytes()).hexdigest()
        for name, value in trainer.model.state_dict().items()
    }
    if trainer.world.is_first:
        (folder / "done.json").write_text(json.dumps(digests))
    trainer.close()


def _told(make: Callable[[Any], MicroBatch], path: Path) -> Callable[[Any], MicroBatch]:
    def made(arrays: Any) -> MicroBatch:
        keys = [key for row in arrays["keys"] for document in row for key in document]
        _append(path, {"rows": arrays["numbers"].tolist(), "keys": keys})
        return make(arrays)

    return made


def _append(path: Path, record: dict[str, Any]) -> None:
    # One write of a short line: a kill leaves all of it or nothing.
    with path.open("ab", buffering=0) as file:
        file.write(json.dumps(record).encode() + b"\n")


def _die_in_checkpoint(step: int) -> None:
    """Ends this process by kill -9 once some of the step's checkpoint is on disk, and not yet all."""
    write: Any = FileSystemWriter.write_data

    def dying(writer: FileSystemWriter, *arguments: Any) -> Any:
        written = write(writer, *arguments)
        if f"step-{step:08d}" in str(writer.path):
            os.kill(os.getpid(), signal.SIGKILL)
        return written

    FileSystemWriter.write_data = dying


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
