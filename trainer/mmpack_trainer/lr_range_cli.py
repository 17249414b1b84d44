"""`mmpack-lr-range`: the learning-rate range test of a run."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmpack.errors import ConfigError
from mmpack.storage.store import storage_errors
from mmpack_trainer.entry import number, plain_console, run_app
from mmpack_trainer.lr_range import LEAST_STEPS, read_off

if TYPE_CHECKING:
    from rich.console import Console

    from mmpack_trainer.lr_range import Found
    from mmpack_trainer.train import Step

RECORD_NAME, PICTURE_NAME = "lr_range.jsonl", "lr_range.png"

app = typer.Typer(
    help="Learning-rate range test.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lr_range_command(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(help="The run's CONFIG.toml; --section.key=value overrules it.")],
    low: Annotated[float, typer.Option("--from", help="First learning rate.")] = 1e-6,
    high: Annotated[float, typer.Option("--to", help="Last learning rate.")] = 1.0,
    steps: Annotated[int, typer.Option(min=LEAST_STEPS, help="From the first to the last.")] = 100,
) -> None:
    """Train from the first weights on with a rising learning rate, and suggest a peak.

    Stops where the loss is over 4 times its lowest. Leaves lr_range.jsonl and lr_range.png in `out`, in place of those of an
    earlier test, and no checkpoint. Runs under torchrun as mmpack-train does.
    """
    from mmpack_trainer.config.check import check
    from mmpack_trainer.config.load import load_config
    from mmpack_trainer.hardware import find_device
    from mmpack_trainer.lr_range_run import sweep

    if not (isfinite(high) and 0 < low < high):
        raise ConfigError(
            f"{low:g} to {high:g} is no range of learning rates", where="--from", hint="Let 0 < from < to."
        )
    settings = load_config(config, context.args)
    checked = check(settings, world=number("WORLD_SIZE", 1), device=find_device())
    is_first = number("RANK", 0) == 0
    console, record = plain_console(), Path(settings.out) / RECORD_NAME
    if is_first:
        with storage_errors(record, "writing"):
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_bytes(b"")

    def log(step: Step) -> None:
        if is_first:
            _keep(step, record)
            if step.number % 10 == 0:
                console.print(f"step {step.number}/{steps}  lr {step.lr:.2e}  loss {step.loss:.4f}")

    rates, losses = sweep(settings, low, high, steps=steps, log=log)
    if is_first:
        found = read_off(rates, losses)
        _tell(console, found, losses, checked.parameters.total)
        _draw(rates, losses, found, record.with_name(PICTURE_NAME), checked.parameters.total)
        console.print(f"written to {record} and {PICTURE_NAME}")


def _keep(step: Step, path: Path) -> None:
    import msgspec

    line = {"step": step.number, "lr": step.lr, "loss": step.loss, "grad_norm": step.gradient_norm}
    with storage_errors(path, "writing"), path.open("ab") as file:
        file.write(msgspec.json.encode(line) + b"\n")


def _draw(rates: list[float], losses: list[float], found: Found, path: Path, parameters: int) -> None:
    from mmpack_trainer.config.advice import usual_peaks
    from mmpack_trainer.lr_range_picture import draw_range

    usual = usual_peaks(parameters)
    with storage_errors(path, "writing"):
        draw_range(rates, losses, found, path, usual=None if usual is None else usual[1:])


def _tell(console: Console, found: Found, losses: list[float], parameters: int) -> None:
    from mmpack_trainer.curve import curve

    console.print(f"loss        {losses[0]:.4f} to {losses[-1]:.4f}  {curve(losses)}")
    falls = "never falls" if found.steepest is None else f"falls fastest at {found.steepest:.1e}"
    ends = "does not diverge" if found.diverged is None else f"diverges at {found.diverged:.1e}"
    console.print(f"learning    {falls}, is lowest at {found.lowest:.1e}, {ends}")
    if found.peaks:
        peaks = " to ".join(f"{each:.1e}" for each in found.peaks)
        console.print(f"suggestion  {peaks}: where it falls fastest, and a tenth of where it diverges")
    else:
        console.print("suggestion  none: go on to a higher rate with --to")
    console.print(f"usual       {compared(found.peaks, parameters)}")
    console.print(
        "advice only: of a transformer the test sees the first steps from random weights, without a warmup. Try a peak in "
        "a short run before a long one."
    )


def compared(peaks: tuple[float, ...], parameters: int) -> str:
    """The suggestion beside what is usual for the model's size."""
    from mmpack_trainer.config.advice import usual_peaks

    usual = usual_peaks(parameters)
    if usual is None:
        return f"not known for {parameters:,} parameters"
    name, low, high = usual
    told = f"{low:g} to {high:g} for {name} parameters"
    if not peaks:
        return told
    if peaks[0] > high:
        return f"{told}; the suggestion is above, and what is usual the safer choice"
    return f"{told}; the suggestion is below" if peaks[-1] < low else f"{told}; the suggestion agrees"


def main() -> None:
    """Runs the command line, see :func:`mmpack_trainer.entry.run_app`."""
    run_app(app)


if __name__ == "__main__":
    main()
