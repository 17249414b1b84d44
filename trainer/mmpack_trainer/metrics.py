"""What is known of each step: a JSONL file, TensorBoard where it is installed, and a line on the screen."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from mmpack.errors import DataError, StorageError
from mmpack.serialisation import JSON_ERRORS, from_json
from mmpack_trainer.flops import Rates

if TYPE_CHECKING:
    from rich.console import Console

METRICS_NAME = "metrics.jsonl"
#: A step's line has some hundred bytes; with a histogram of many experts, some thousand.
_MAX_LINE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMetrics:
    """One optimizer step, of all ranks together."""

    step: int
    """Steps done, this one included: the first is 1."""
    loss: float
    """What was minimised."""
    parts: Mapping[str, float]
    """Each part of it by name, before its factor."""
    grad_norm: float
    """Before clipping."""
    lr: float
    """The step was made with it."""
    rates: Rates
    devices: int
    """That it was made on."""
    wall_s: float
    data_wait_s: float
    """Of `wall_s`, the time in which the process that writes it down waited for rows."""
    extra: Mapping[str, float] = field(default_factory=dict)
    """Anything else to keep, as `{"experts/dropped": 0.0}`."""
    bars: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """A number for each of several things, as `{"experts/tokens/layer0": [12, 9]}`."""
    alarms: Sequence[str] = ()
    """That have come up since the last line, a sentence each."""

    def record(self) -> dict[str, Any]:
        """All of it, flat, as a line of the file holds it. None: not known here; alarms only where there are some."""
        return {
            "step": self.step,
            "loss": self.loss,
            **{f"loss/{name}": value for name, value in self.parts.items()},
            "grad_norm": self.grad_norm,
            "lr": self.lr,
            "tokens_per_s": self.rates.tokens_per_s,
            "fill": self.rates.fill,
            "useful_mfu": self.rates.useful_mfu,
            "slot_mfu": self.rates.slot_mfu,
            "hfu": self.rates.hfu,
            "devices": self.devices,
            "wall_s": self.wall_s,
            "data_wait_s": self.data_wait_s,
            **self.extra,
            **self.bars,
            **({"alarms": self.alarms} if self.alarms else {}),
        }


class MetricsLog:
    """Writes steps down. One process of a run has one.

    A run that goes on behind a checkpoint does the steps after it again: what the file holds of them, and a last line that a
    kill cut short, is removed before the first step is kept, and TensorBoard shows it no more. So no step is there twice,
    and a start that ends before its first step takes nothing from the file.

    Args:
        folder: of `metrics.jsonl` and of `tensorboard/`; made if it is not there.
        steps: of the whole run, for the screen.
        first_step: the step that comes next, 1 for a new run.
        console: where a line a step is shown; None: nowhere.

    Raises:
        StorageError: the folder or file cannot be written.
        DataError: the file is none that was written here.
    """

    def __init__(
        self, folder: Path, *, steps: int, first_step: int = 1, console: Console | None = None
    ) -> None:
        self._path = folder / METRICS_NAME
        self._steps = steps
        self._console = console
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Unbuffered: a line is with the system once it is logged, and survives kill -9.
            self._file = self._path.open("ab", buffering=0)
            self._end: int | None = _end_before(self._path, first_step)
            """Of what stays; None once what is behind it is removed."""
        except OSError as error:
            raise _refused(self._path, error) from None
        self._board = _tensorboard(folder / "tensorboard", first_step)

    def log(self, metrics: StepMetrics) -> None:
        """Keeps a step, and shows it. Raises StorageError."""
        record = metrics.record()
        try:
            if self._end is not None:
                self._file.truncate(self._end)
                self._end = None
            self._file.write(msgspec.json.encode(record) + b"\n")
        except OSError as error:
            raise _refused(self._path, error) from None
        if self._board is not None:
            _show(self._board, metrics)
        if self._console is not None:
            self._console.print(line_of(metrics, self._steps), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Ends it."""
        self._file.close()
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _show(board: Any, metrics: StepMetrics) -> None:
    """A step on TensorBoard: numbers, bars as histograms whose buckets they are, alarms as text."""
    for name, value in metrics.record().items():
        if isinstance(value, int | float) and name != "step":
            board.add_scalar(name, value, metrics.step)
    for name, heights in metrics.bars.items():
        board.add_histogram_raw(
            name,
            min=0,
            max=len(heights),
            num=sum(heights),
            sum=sum(place * height for place, height in enumerate(heights)),
            sum_squares=sum(place * place * height for place, height in enumerate(heights)),
            bucket_limits=list(range(1, len(heights) + 1)),
            bucket_counts=list(heights),
            global_step=metrics.step,
        )
    for alarm in metrics.alarms:
        board.add_text("alarms", alarm, metrics.step)


def line_of(metrics: StepMetrics, steps: int) -> str:
    """A step as a line to read."""
    rates = metrics.rates
    parts = ", ".join(f"{name} {value:.4f}" for name, value in metrics.parts.items())
    told = [
        f"step {metrics.step:>{len(str(steps))}}/{steps}",
        f"loss {metrics.loss:.4f}" + (f" ({parts})" if len(metrics.parts) > 1 else ""),
        f"gradient {metrics.grad_norm:.3f}",
        f"lr {metrics.lr:.2e}",
        f"{rates.tokens_per_s:,.0f} tokens/s",
        f"fill {rates.fill:.1%}",
    ]
    if rates.useful_mfu is not None and rates.slot_mfu is not None:
        told.append(f"MFU {rates.useful_mfu:.1%} (slots {rates.slot_mfu:.1%})")
    told.append(f"data {metrics.data_wait_s / metrics.wall_s:.1%}")
    return "  ".join(told)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, as :meth:`StepMetrics.record` gives them; null for what was not finite.

    Raises:
        StorageError: it cannot be read.
        DataError: a line is none that was written here.
    """
    return [record for _, record in _lines(path)]


def _end_before(path: Path, first_step: int) -> int:
    """Bytes of the file that lie before the line of `first_step`, or of a later one."""
    end = 0
    for stop, record in _lines(path):
        if record["step"] >= first_step:
            break
        end = stop
    return end


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(where it ends, record) of each whole line. A last one without its line break was cut short by a kill."""
    stop = 0
    try:
        with path.open("rb") as file:
            while line := file.readline(_MAX_LINE_BYTES):
                if not line.endswith(b"\n") and len(line) < _MAX_LINE_BYTES:
                    return
                stop += len(line)
                yield stop, _record(line, path)
    except OSError as error:
        raise StorageError(f"cannot be read ({error.strerror or error})", where=str(path)) from None


def _record(line: bytes, path: Path) -> dict[str, Any]:
    try:
        record = from_json(line, dict[str, Any])
    except JSON_ERRORS as error:
        raise DataError(f"no metrics of a run ({error})", where=str(path), hint="Move it away.") from None
    if not isinstance(record.get("step"), int) or "loss" not in record:
        raise DataError("a line without its step or loss", where=str(path), hint="Move the file away.")
    return record


def _refused(path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot be written ({error.strerror or error})", where=str(path))


def _tensorboard(folder: Path, first_step: int) -> Any:
    """torch's writer, or None where TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None or importlib.util.find_spec("torch") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    # Steps from `first_step` on that an earlier process wrote are not shown any more.
    return SummaryWriter(str(folder), purge_step=first_step)
