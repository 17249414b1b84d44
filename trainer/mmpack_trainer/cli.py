"""The command `mmpack-train`: settings checked, told, and then trained with, alone or under torchrun."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmpack_trainer.entry import number, plain_console, run_app

if TYPE_CHECKING:
    from rich.console import Console

    from mmpack_trainer.config.check import Checked
    from mmpack_trainer.config.schema import TrainConfig
    from mmpack_trainer.hardware import Device

app = typer.Typer(
    name="mmpack-train",
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="The run's settings.")],
    check_only: Annotated[
        bool, typer.Option("--check", help="Stop once settings, plan and shards are checked.")
    ] = False,
) -> None:
    """Train a model on the rows of a plan. Run it again after a kill: it resumes.

    Settings are overruled by `--section.key=value`, as in `--optimizer.lr=3e-4`.
    """
    from mmpack_trainer.config.check import check
    from mmpack_trainer.config.load import load_config
    from mmpack_trainer.hardware import find_device

    settings = load_config(config, context.args)
    world, device = number("WORLD_SIZE", 1), find_device()
    checked = check(settings, world=world, device=device)
    console = plain_console() if number("RANK", 0) == 0 else None
    if console is not None:
        _tell(console, settings, checked, world, device)
    if check_only:
        return
    from mmpack_trainer.run import run

    done = run(settings, checked, world=world, device=device, console=console)
    if console is not None:
        _sum_up(console, settings, done)


def main() -> None:
    """Runs the command line, see :func:`mmpack_trainer.entry.run_app`."""
    run_app(app, stopped="stopped; the same command resumes")


def _tell(console: Console, config: TrainConfig, checked: Checked, world: int, device: Device) -> None:
    from mmpack.serialisation import to_builtins
    from mmpack_trainer.memory import in_bytes

    for name, value in _flat(to_builtins(config), ""):
        console.print(f"{name} = {value}", style="dim")
    count = checked.parameters
    known = f", {count.active:,} of them active" if count.active != count.total else ""
    console.print(f"device      {world} × {device.name}")
    console.print(f"vocabulary  {checked.plan.layout.vocabulary.size:,} ids")
    console.print(f"parameters  {count.total:,}{known}")
    console.print(f"batch       {checked.batch}")
    room = f", of {in_bytes(device.memory_bytes)}" if device.memory_bytes is not None else ""
    console.print(f"memory      {checked.memory}{room}")
    console.print(f"run         {config.steps:,} steps, {config.steps * checked.batch.tokens:,} tokens")
    for warning in checked.warnings:
        console.print(f"warning: {warning}", style="yellow")


def _flat(table: dict[str, Any], prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in table.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return found


def _sum_up(console: Console, config: TrainConfig, done: range) -> None:
    from mmpack_trainer.curve import curve
    from mmpack_trainer.metrics import METRICS_NAME, read_metrics

    if not done:
        console.print(
            f"nothing to do: {done.stop} of {config.steps} steps are done; raise `steps`, or give the run another `out`"
        )
        return
    losses = [record["loss"] for record in read_metrics(Path(config.out) / METRICS_NAME)]
    known = [float("nan") if loss is None else loss for loss in losses]
    console.print(f"loss {known[0]:.4f} to {known[-1]:.4f}  {curve(known)}")
    console.print(f"written to {config.out}")


if __name__ == "__main__":
    main()
