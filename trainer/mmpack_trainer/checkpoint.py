"""Checkpoints of a run: model and optimizer as distributed checkpoints, and beside them where the run is.

    out/checkpoints/step-00000500/
        *.distcp, .metadata    files of torch.distributed.checkpoint, readable on any number of ranks
        run.json               step, row state, loss, the settings of the model

A checkpoint is written under another name and renamed when it is whole and on disk.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from mmpack.errors import ConfigError, DataError, MmpackError, StorageError
from mmpack.serialisation import JSON_ERRORS, from_json
from mmpack.storage.local import sync_folder
from mmpack_trainer.checkpoint_files import AWAY, Planner, SafeReader
from mmpack_trainer.parallel import World

_RUN = "run.json"
_STEP = re.compile(r"step-(\d{8,})", re.ASCII)
_MAX_RUN_BYTES = 1 << 24
#: Where less is free, a disk is taken to be full.
_ROOM_BYTES = 1 << 26


class _Stored(msgspec.Struct, frozen=True):
    """`run.json`."""

    step: int
    rows: dict[str, Any]
    loss: float
    model: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """Where a run is.

    Attributes:
        step: steps done.
        rows: state of the row stream, equal on all ranks.
        loss: mean over the steps since the checkpoint before.
        settings: of the model.
    """

    step: int
    rows: dict[str, Any]
    loss: float
    settings: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: of the run.
        keep: how many of the last are kept, beside the one of the lowest loss.
        world: all processes; all of them call :meth:`save` and :meth:`load`.
    """

    def __init__(self, folder: Path, *, keep: int, world: World) -> None:
        self._folder = folder / "checkpoints"
        self._keep, self._world = keep, world

    def steps(self) -> list[int]:
        """Steps that there are whole checkpoints of, ascending."""
        found = [_STEP.fullmatch(path.parent.name) for path in self._folder.glob(f"step-*/{_RUN}")]
        return sorted(int(match[1]) for match in found if match)

    def last(self) -> int | None:
        """The last of them, as the first process sees it; called by all."""
        step = max(self.steps(), default=-1) if self._world.is_first else -1
        found = torch.tensor(step, device=self._world.device)
        dist.broadcast(found, 0)
        return int(found) if found >= 0 else None

    def save(self, model: nn.Module, optimizer: Optimizer, run: Run) -> None:
        """Writes a checkpoint, then removes those that are no longer kept. Raises StorageError."""
        final = self._path(run.step)
        partial = final.with_name(final.name + ".partial")
        if self._world.is_first:
            shutil.rmtree(partial, ignore_errors=True)
            with _refused(partial):
                partial.mkdir(parents=True)
        dist.barrier()
        weights, moments = get_state_dict(model, optimizer)
        with _refused(partial):
            save({"model": weights, "optimizer": moments}, checkpoint_id=partial)
        if self._world.is_first:
            table = {"step": run.step, "rows": run.rows, "loss": run.loss, "model": run.settings}
            with _refused(final):
                _write(partial / _RUN, json.dumps(table))
                _remove(final)
                partial.rename(final)
                sync_folder(final.parent)
            self._prune()
        dist.barrier()

    def load(self, model: nn.Module, optimizer: Optimizer, settings: dict[str, Any]) -> Run | None:
        """Puts the last checkpoint into model and optimizer, whatever layout wrote it; None if there is none.

        Raises:
            ConfigError: it is of another model.
            DataError: it is damaged.
        """
        last = self.last()
        if last is None:
            return None
        path, run = self._path(last), self._read(last)
        # Those of today: others that an earlier version wrote down decide nothing.
        if changed := sorted(key for key in settings if settings[key] != run.settings.get(key)):
            raise ConfigError(
                f"the checkpoint is of a model with another {', '.join(changed)}",
                where=str(path),
                hint="Give the run another `out`, or move its checkpoints away.",
            )
        weights, moments = get_state_dict(model, optimizer)
        # Of this run, which may have other ones than the checkpoint's.
        options = [
            {name: value for name, value in group.items() if name != "params"}
            for group in optimizer.param_groups
        ]
        reader = SafeReader(path)
        reader.read_metadata()  # of what it raises, torch would show a traceback on every process
        try:
            load({"model": weights, "optimizer": moments}, storage_reader=reader, planner=Planner())
        except CheckpointException as error:
            cause = _cause(error)
            raise DataError(
                f"cannot be read ({_told(cause)})",
                where=str(path),
                hint=AWAY,
            ) from None
        set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments)
        for group, own in zip(optimizer.param_groups, options, strict=True):
            group.update(own)
        return run

    def _read(self, step: int) -> Run:
        path = self._path(step) / _RUN
        try:
            with path.open("rb") as file:
                stored = from_json(file.read(_MAX_RUN_BYTES), _Stored)
        except (OSError, *JSON_ERRORS) as error:
            raise DataError(f"cannot be read ({error})", where=str(path), hint=AWAY) from None
        if stored.step != step:
            raise DataError(f"is of step {stored.step}", where=str(path), hint=AWAY)
        return Run(stored.step, stored.rows, stored.loss, stored.model)

    def _prune(self) -> None:
        steps = self.steps()
        best = min(steps, key=lambda step: self._read(step).loss)
        for step in steps[: -self._keep]:
            if step != best:
                _remove(self._path(step))

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step:08d}"


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Tells in one line why a checkpoint cannot be written; torch's exception for that is none that programs catch."""
    try:
        yield
    except (CheckpointException, OSError) as error:
        cause = _cause(error) if isinstance(error, CheckpointException) else error
        # torch tells of a full disk in words of its own.
        free = shutil.disk_usage(next(each for each in path.parents if each.is_dir())).free
        raise StorageError(
            f"cannot be written ({_told(cause)}; {free:,} bytes are free)",
            where=str(path),
            hint=f"{'Make room' if free < _ROOM_BYTES else 'Let it be written'}, or set `out`; the same command goes on "
            "from the last checkpoint.",
        ) from None


def _cause(error: CheckpointException) -> BaseException:
    """What went wrong on the first process that failed."""
    return error.failures[min(error.failures)][0]


def _told(cause: BaseException) -> str:
    return str(cause) if isinstance(cause, MmpackError) else f"{type(cause).__name__}: {cause}"


def _write(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def _remove(folder: Path) -> None:
    """Removes a checkpoint. What says that it is whole goes first: a kill halfway leaves none that looks so."""
    (folder / _RUN).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
