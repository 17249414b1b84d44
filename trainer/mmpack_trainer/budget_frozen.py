"""A budget that rests on what a run was measured to do, and is kept beside it."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmpack.errors import ConfigError, DataError
from mmpack.serialisation import pretty_json
from mmpack.storage.store import storage_errors
from mmpack_trainer.budget import Bill, Demand, Rig, bill_at
from mmpack_trainer.metrics import METRICS_NAME, read_metrics

BUDGET_NAME = "budget.json"

_LEAST_STEPS = 20
#: Compilation, caches and first reads: so many steps are left out, or this share of them where that is more.
_FIRST_STEPS = 10
_FIRST_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Measured:
    """A run's rate, over the steps behind its first ones."""

    steps: int
    """They."""
    gpus: int
    """It ran on."""
    tokens_per_s: float
    """Valid tokens over all GPUs; the median."""
    low: float
    """10th percentile."""
    high: float
    """90th."""
    fill: float
    """The median."""
    mfu: float | None
    """Useful one, the median; None where no peak is known."""

    def bill(self, demand: Demand, rig: Rig) -> Bill:
        """Of a run on another number of GPUs, whose rate is taken to grow as they do."""
        rate = self.tokens_per_s * rig.gpus / self.gpus
        return bill_at(rate, demand.steps * demand.places * self.fill, rig)


def measured(folder: Path) -> Measured:
    """The rate of the run that wrote into `folder`.

    Raises:
        DataError: fewer than 20 steps are left without the first ones, they were made on different numbers of GPUs, or the
            file is no run's.
        StorageError: it cannot be read.
    """
    path = folder / METRICS_NAME
    records = read_metrics(path)
    first = max(_FIRST_STEPS, round(_FIRST_SHARE * len(records)))
    kept = records[first:]
    if len(kept) < _LEAST_STEPS:
        raise DataError(
            f"{len(records)} steps are too few to freeze a budget on: {_LEAST_STEPS} are measured behind the first "
            f"{first}",
            where=str(path),
            hint="Train on, with log_every_steps = 1.",
        )
    rates, fills, devices = (_column(kept, name, path) for name in ("tokens_per_s", "fill", "devices"))
    if len(numbers := sorted({int(number) for number in devices})) > 1:
        raise DataError(
            f"the steps were made on {' and '.join(map(str, numbers))} GPUs",
            where=str(path),
            hint="Measure a run on one number of them.",
        )
    known = [record["useful_mfu"] for record in kept if record.get("useful_mfu") is not None]
    low, median, high = np.percentile(rates, (10, 50, 90)).tolist()
    return Measured(
        steps=len(kept),
        gpus=numbers[0],
        tokens_per_s=median,
        low=low,
        high=high,
        fill=float(np.median(fills)),
        mfu=float(np.median(known)) if known else None,
    )


def refuse_frozen(folder: Path) -> None:
    """Raises ConfigError if a budget lies in `folder` already."""
    path = folder / BUDGET_NAME
    if path.exists():
        raise ConfigError("is frozen already", where=str(path), hint="Add --refreeze to replace it.")


def freeze(
    folder: Path, found: Measured, demand: Demand, rig: Rig, *, date: str, inputs: dict[str, Any]
) -> Path:
    """Writes `budget.json`, in place of one that is there; its path.

    Args:
        date: as it is to stand there.
        inputs: further ones, to be kept beside those of `demand` and `rig`.

    Raises:
        StorageError: it cannot be written.
    """
    plain = found.bill(demand, rig)
    value = {
        "frozen": date,
        "inputs": {
            **inputs,
            **asdict(demand),
            "gpus": rig.gpus,
            "price_per_gpu_hour": rig.price,
            "buffer": rig.buffer,
        },
        "measured": asdict(found),
        "plain": asdict(plain),
        "with_buffer": asdict(plain.times(rig.buffer)),
    }
    path = folder / BUDGET_NAME
    aside = path.with_name(f".{BUDGET_NAME}.{os.getpid()}")
    with storage_errors(path, "writing"):
        try:
            aside.write_bytes(pretty_json(value))
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    return path


def _column(records: list[dict[str, Any]], name: str, path: Path) -> list[float]:
    values = [record.get(name) for record in records]
    found = [float(value) for value in values if isinstance(value, int | float) and 0 < value < float("inf")]
    if len(found) < len(values):
        raise DataError(f"a step without {name}", where=str(path), hint="Measure again.")
    return found
