"""The leak audit of a run: its model, with its last checkpoint's weights or its first ones, on rows of its plan."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from msgspec.structs import replace

from mmpack.errors import DataError
from mmpack_trainer.audit import AuditReport, audit
from mmpack_trainer.config.check import check
from mmpack_trainer.config.schema import ComputeConfig, ParallelConfig, TrainConfig
from mmpack_trainer.hardware import find_device
from mmpack_trainer.train import Trainer


def audit_run(config: TrainConfig, *, rows: int = 1, fresh: bool = False) -> Iterator[AuditReport]:
    """A report for each of the next rows, in this process alone and in float32, whatever the run is spread over.

    On a CPU it is without what needs a GPU: FlexAttention and moments in bf16.

    Args:
        config: of the run.
        rows: how many, behind those of the checkpoint.
        fresh: start from first weights and the first row, even if there is a checkpoint.

    Raises:
        DataError: there is no row left.
        ConfigError, DataError, IntegrityError, StorageError: as training would.
    """
    alone = replace(
        config, micro_batch=1, parallel=ParallelConfig(), compute=ComputeConfig(precision="float32")
    )
    device = find_device()
    if not device.is_gpu:
        alone = replace(
            alone,
            model=replace(config.model, attention="auto"),
            optimizer=replace(config.optimizer, bf16_states=False),
        )
    check(alone, world=1, device=device)
    trainer = Trainer(alone)
    try:
        if not fresh:
            trainer.resume()
        is_empty = True
        for arrays, labels in islice(trainer.loader, rows):
            is_empty = False
            yield audit(trainer.model, trainer.batches, {**arrays, "labels": labels})
        if is_empty:
            raise DataError(
                "there is no row left to audit",
                where=config.data.plan,
                hint="--fresh audits the first ones.",
            )
    finally:
        trainer.close()
