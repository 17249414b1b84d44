"""`mmpack-budget`: what a run asks for and what it costs, planned or as measured."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmpack.errors import ConfigError, DataError, IntegrityError, MissingDependencyError, StorageError
from mmpack.show.console import make_console
from mmpack_trainer.entry import run_app

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from mmpack_trainer.budget import Bill, Demand, Rig
    from mmpack_trainer.budget_frozen import Measured
    from mmpack_trainer.config.schema import TrainConfig
    from mmpack_trainer.parameters import Parameters

app = typer.Typer(
    help="FLOP, GPU hours, days and cost of a run.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Convention(StrEnum):
    """How FLOP are counted."""

    right = "right"
    naive = "naive"


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def budget_command(
    context: typer.Context,
    recipe: Annotated[Path, typer.Argument(help="The run's settings; --section.key=value overrules them.")],
    gpus: Annotated[int, typer.Option(min=1, help="How many the run is done on.")] = 256,
    gpu: Annotated[str, typer.Option(help="Which.")] = "H100",
    mfu: Annotated[
        float | None,
        typer.Option(min=0.01, max=1.0, help="Share of the bf16 peak; default 0.40, with experts 0.29."),
    ] = None,
    price: Annotated[float, typer.Option(min=0.0, help="Of a GPU hour.")] = 2.5,
    buffer: Annotated[float, typer.Option(min=1.0, help="Factor for restarts and maintenance.")] = 1.25,
    convention: Annotated[
        Convention, typer.Option(help="naive: also print an example that counts 2 · N, and its corrections.")
    ] = Convention.right,
    measured: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN_FOLDER", help="A run of this recipe: its rate makes the budget, kept there."
        ),
    ] = None,
    refreeze: Annotated[
        bool, typer.Option("--refreeze", help="Replace a budget.json that is there.")
    ] = False,
) -> None:
    """Work out what a run costs, and freeze it once its rate is measured."""
    from mmpack_trainer.budget import Rig
    from mmpack_trainer.budget_frozen import freeze, refuse_frozen
    from mmpack_trainer.budget_frozen import measured as measured_in
    from mmpack_trainer.config.load import load_config

    for name, value in (("--price", price), ("--buffer", buffer)):
        if not isfinite(value):
            raise ConfigError(f"{value} is no number to reckon with", where=name)
    config, rig = load_config(recipe, context.args), Rig(gpus, price, buffer)
    found = None
    if measured is not None:
        if not refreeze:
            refuse_frozen(measured)
        found = measured_in(measured)
    peak = _peak(config, gpu, needed=found is None)
    asked = _asked(config)
    screen = make_console()
    screen.print(_demand_table(asked, f"{recipe.name}: {config.steps:,} steps"))
    _show_bills(screen, asked, rig, gpu=gpu, peak=peak, mfu=mfu, found=found)
    if convention is Convention.naive:
        _print_naive_example(screen)
    if measured is not None and found is not None:
        date = datetime.now(UTC).isoformat(timespec="seconds")
        counts = {"parameters": asked.parameters.total, "active_parameters": asked.parameters.active}
        inputs = {"recipe": recipe.name, "gpu": gpu, **counts}
        path = freeze(measured, found, asked.demand, rig, date=date, inputs=inputs)
        screen.print(f"frozen in {path}", markup=False)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A recipe's demand, and what it was counted on."""

    parameters: Parameters
    demand: Demand
    basis: str


def _asked(config: TrainConfig) -> _Asked:
    """From the documents of the plan's first window; where its shards cannot be read, as if every row were one."""
    from mmpack.layout import Layout, LayoutConfig
    from mmpack.stream import load_plan_config, open_plan
    from mmpack_trainer.budget import demand_of
    from mmpack_trainer.config.ranges import check_ranges
    from mmpack_trainer.flops import Work, planned_work
    from mmpack_trainer.parameters import parameters_of

    check_ranges(config)
    plan_config = load_plan_config(config.data.plan)
    try:
        plan = open_plan(plan_config)
    except (DataError, IntegrityError, StorageError, MissingDependencyError) as error:
        seq_len = plan_config.max_seq_len
        work = Work.of([[0, seq_len]], seq_len=seq_len, patches=0)
        layout = Layout(LayoutConfig())
        basis = f"full rows of {seq_len:,}, ids of the default layout: {error.where} cannot be opened"
    else:
        steps = list(islice(plan.steps(), min(plan_config.window_steps, config.steps)))
        work = Work.sum(planned_work(plan, step) for step in steps)
        layout, basis = plan.layout, f"documents of the plan's first {len(steps)} steps"
    parameters = parameters_of(config.model, layout)
    places = plan_config.global_batch * plan_config.max_seq_len
    demand = demand_of(work, config.model, parameters, steps=config.steps, places=places)
    return _Asked(parameters, demand, basis)


def _demand_table(asked: _Asked, title: str) -> Table:
    from rich.markup import escape
    from rich.table import Table

    count, demand = asked.parameters, asked.demand
    table = Table("what", "how much", "how it is counted", title=escape(title))
    table.add_row("parameters", f"{count.total:,}", f"{count.active:,} active on a token")
    table.add_row(
        "FLOP a token",
        f"{demand.products + demand.attention:.3g}",
        f"6 · N {demand.products:.3g} (N {count.products:,}, without the embedding, the head at every token), causal attention "
        f"{demand.attention:.3g}",
    )
    table.add_row("", "", escape(f"attention over {asked.basis}"))
    table.add_row(
        "tokens",
        f"{demand.tokens:.4g}",
        f"{demand.steps:,} steps × {demand.places:,} places, fill {demand.fill:.1%}",
    )
    table.add_row("FLOP", f"{demand.flops:.3g}", "of the whole run, without recomputation")
    return table


def _show_bills(
    console: Console,
    asked: _Asked,
    rig: Rig,
    *,
    gpu: str,
    peak: float | None,
    mfu: float | None,
    found: Measured | None,
) -> None:
    from rich.markup import escape
    from rich.table import Table

    from mmpack_trainer.budget import alerts, bill_at, planned_rate, utilisation_of

    usual = utilisation_of(asked.parameters)
    share = mfu if mfu is not None else usual.planned
    late = f"× {rig.buffer:g}"
    names = ("", "tokens/s", "MFU", "GPU hours", "days", "cost", f"days {late}", f"cost {late}")
    table = Table(*names, title=escape(f"{rig.gpus:,} × {gpu} at {rig.price:g} a GPU hour"))
    notes: list[str] = []
    if peak is not None:
        rate = planned_rate(asked.demand, rig, peak_flops=peak, mfu=share)
        _add(table, "planned", rate, share, bill_at(rate, asked.demand.tokens, rig), rig)
        notes += [f"MFU {share:.0%} of the bf16 peak: {usual.published}", *alerts(share, asked.parameters)]
    if found is not None:
        _add(table, "measured", found.tokens_per_s, found.mfu, found.bill(asked.demand, rig), rig)
        notes.append(
            f"measured: {found.tokens_per_s:,.0f} tokens/s on {found.gpus:,}, median of {found.steps:,} steps, 10th to "
            f"90th percentile {found.low:,.0f} to {found.high:,.0f}, fill {found.fill:.1%}"
        )
        if found.gpus != rig.gpus:
            notes.append(f"the rate is taken to grow with the GPUs, × {rig.gpus / found.gpus:g}")
        notes += [] if found.mfu is None else alerts(found.mfu, asked.parameters)
    console.print(table)
    for note in notes:
        console.print(note, markup=False)


def _add(table: Table, name: str, rate: float, mfu: float | None, bill: Bill, rig: Rig) -> None:
    late = bill.times(rig.buffer)
    table.add_row(
        name,
        f"{rate:,.0f}",
        "" if mfu is None else f"{mfu:.1%}",
        f"{bill.gpu_hours:,.1f}",
        f"{bill.days:,.3g}",
        f"{bill.cost:,.0f}",
        f"{late.days:,.3g}",
        f"{late.cost:,.0f}",
    )


def _peak(config: TrainConfig, gpu: str, *, needed: bool) -> float | None:
    """Of one GPU in bf16; None where none is known. Raises ConfigError if it is needed then."""
    from mmpack_trainer.hardware import KNOWN, Device, peak_flops

    is_float32 = config.compute.precision == "float32"
    peak = None if is_float32 else peak_flops(Device(gpu, (0, 0)))
    if peak is not None or not needed:
        return peak
    if is_float32:
        raise ConfigError(
            "no peak of float32 products is known to plan with",
            where="compute.precision",
            hint="Add --compute.precision=bfloat16, or --measured with a run.",
        )
    raise ConfigError(
        f"the peak of '{gpu}' is not known",
        where="--gpu",
        hint=f"Known: {', '.join(KNOWN)}. Or add --measured with a run.",
    )


def _print_naive_example(console: Console) -> None:
    from rich.table import Table

    from mmpack_trainer.budget_naive import CORRECTIONS, example_columns

    found = example_columns()
    table = Table(
        "",
        *(each.title for each in found),
        title="A naive estimate: 256 × H100, 2.5B active parameters, 10T tokens",
    )
    for name, attribute, form in (
        ("FLOP a token", "flops_per_token", ".3g"),
        ("tokens", "tokens", ".3g"),
        ("FLOP", "flops", ".3g"),
        ("FLOP/s in use", "flops_per_s", ".3g"),
        ("seconds", "seconds", ",.0f"),
        ("days", "days", ".3g"),
    ):
        table.add_row(name, *(format(getattr(each, attribute), form) for each in found))
    console.print(table)
    for correction in CORRECTIONS:
        console.print(f"correction: {correction}")


def main() -> None:
    """Runs the command line, see :func:`mmpack_trainer.entry.run_app`."""
    run_app(app)


if __name__ == "__main__":
    main()
