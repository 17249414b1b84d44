"""The last checkpoint of a folder of each process's own, as a shared one may look while it lags; by torchrun.

    python -m tests.trainer.last_checkpoint_process FOLDER

FOLDER/RANK/last gets the step.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch.distributed as dist

from mmpack_trainer.checkpoint import Checkpoints
from mmpack_trainer.config.schema import ParallelConfig
from mmpack_trainer.parallel import start

world = start(ParallelConfig())
folder = Path(sys.argv[1]) / str(dist.get_rank())
(folder / "last").write_text(str(Checkpoints(folder, keep=1, world=world).last()))
dist.destroy_process_group()
