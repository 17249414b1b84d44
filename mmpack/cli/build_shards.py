"""`mmpack build-shards`: recordings and stand-alone samples to shards, index and manifest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmpack.cli import common
from mmpack.errors import ConfigError
from mmpack.show.console import print_json

if TYPE_CHECKING:
    from mmpack.ingest import BuildConfig, BuildOutcome


def build_shards(
    inputs: Annotated[
        list[str], typer.Argument(metavar="CONFIG.toml|RECORDING...", help="A build config, or recordings.")
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", help="Folder or object store URL (s3://, gs://, az://).")
    ],
    workers: Annotated[
        int,
        typer.Option(
            "--workers", "-j", help="Worker processes; default one per core. 0: none, in this process."
        ),
    ] = -1,
    rank: Annotated[int, typer.Option(help="This run's number among --num-ranks.")] = 0,
    num_ranks: Annotated[int, typer.Option(help="Runs that share the work, on one machine or many.")] = 1,
    reference: Annotated[str | None, typer.Option(help="Overrides sync.reference.")] = None,
    tolerance: Annotated[str | None, typer.Option(help="Overrides the tolerance, as in '1ms'.")] = None,
    max_quarantine: Annotated[
        float | None, typer.Option(help="Largest share of a recording's slices that may be set aside.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Remove what the target holds first.")] = False,
    root: Annotated[Path | None, typer.Option(help="Where a recording.toml's relative paths start.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout and nothing else.")
    ] = False,
) -> None:
    """Build WebDataset shards with a Parquet index. Run it again after a kill: it resumes."""
    from mmpack.cli.progress import BuildProgress
    from mmpack.ingest import build_shards as build

    config = _load_build_config(inputs, reference, tolerance, max_quarantine)
    with BuildProgress() as progress:
        outcome = build(
            config,
            out,
            workers=(os.cpu_count() or 1) if workers < 0 else workers,
            rank=rank,
            num_ranks=num_ranks,
            overwrite=overwrite,
            root=root,
            on_progress=progress.on_progress,
            on_warning=progress.on_warning,
        )
    if as_json:
        print_json(_summarise(outcome, out))
    else:
        _print_summary(outcome, out, num_ranks)
    if outcome.failures:
        for failure in outcome.failures[1:]:
            typer.echo(f"error: {failure.error}", err=True)
        first = outcome.failures[0].error
        raise type(first)(first.message, where=first.where or outcome.failures[0].task, hint=first.hint)


def _load_build_config(
    inputs: list[str], reference: str | None, tolerance: str | None, max_quarantine: float | None
) -> BuildConfig:
    import msgspec

    from mmpack.ingest import BuildConfig
    from mmpack.settings import parse_settings, read_toml

    if len(inputs) == 1 and inputs[0].endswith(".toml"):
        path = Path(inputs[0])
        table = read_toml(path)
        # A recording.toml is a recording: its tables are not those of a build.
        is_recording = "streams" in table and "recordings" not in table
        config = (
            BuildConfig(recordings=(inputs[0],))
            if is_recording
            else parse_settings(table, BuildConfig, where=str(path))
        )
        config = config if is_recording else config.resolve_paths(path.parent)
    else:
        tables = [
            name for name in inputs if name.endswith(".toml") and "streams" not in read_toml(Path(name))
        ]
        if tables:
            raise ConfigError(
                "a build config stands alone", where=tables[0], hint="Name its recordings inside it."
            )
        config = BuildConfig(recordings=tuple(inputs))
    if max_quarantine is not None:
        config = msgspec.structs.replace(config, max_quarantine=max_quarantine)
    sync = common.override_sync_config(config.sync, reference, tolerance)
    return msgspec.structs.replace(config, sync=sync).validate()


def _summarise(outcome: BuildOutcome, out: str) -> dict[str, object]:
    manifest = outcome.manifest
    return {
        "out": out,
        "finished": manifest is not None,
        "tasks": len(outcome.plan.tasks),
        "tasks_resumed": outcome.resumed,
        "samples": manifest.samples if manifest else None,
        "slices": manifest.slices if manifest else None,
        "quarantined": manifest.quarantined if manifest else None,
        "tokens": manifest.tokens if manifest else None,
        "tokens_by_modality": manifest.tokens_by_modality if manifest else None,
        "shards": len(manifest.shards) if manifest else None,
        "size_bytes": sum(shard.size_bytes for shard in manifest.shards) if manifest else None,
        "failures": [{"task": failure.task, "error": str(failure.error)} for failure in outcome.failures],
    }


def _print_summary(outcome: BuildOutcome, out: str, num_ranks: int) -> None:
    manifest = outcome.manifest
    if manifest is not None:
        size = sum(shard.size_bytes for shard in manifest.shards)
        typer.echo(
            f"{manifest.samples} samples, {manifest.tokens} tokens, {len(manifest.shards)} shards, {size / 1e6:.1f} MB in {out}; "
            f"{manifest.quarantined} slices set aside"
        )
    elif not outcome.failures and num_ranks > 1:
        typer.echo("this rank's tasks are done; the last rank to finish writes the index and the manifest")
    elif len(outcome.plan.tasks) > 1:
        done = len(outcome.plan.tasks) - len(outcome.failures)
        typer.echo(
            f"{done} of {len(outcome.plan.tasks)} inputs built; mend the rest and run the same command again",
            err=True,
        )
