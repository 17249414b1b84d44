"""The command `mmpack build-shards`: builds shards, index and manifest from recordings and stand-alone samples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmpack.cli import common
from mmpack.cli.common import JsonOption
from mmpack.errors import ConfigError
from mmpack.show.console import print_json

if TYPE_CHECKING:
    from mmpack.ingest import BuildConfig, BuildOutcome


def build_shards(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIG.toml|RECORDING...", help="One build config, or one or more recordings."
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "--out", "-o", help="Folder or object store URL (s3://, gs://, az://) of the shard set."
        ),
    ],
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            "-j",
            help="Number of worker processes; default: one per core. 0 builds in this process.",
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(help="Where the inputs are built: auto, in_process or workers. auto follows --workers."),
    ] = "auto",
    rank: Annotated[int, typer.Option(help="Index of this process among the ranks, from 0.")] = 0,
    ranks: Annotated[
        int, typer.Option(help="Number of processes that share the work, on one or several machines.")
    ] = 1,
    reference: Annotated[str | None, typer.Option(help="Replace sync.reference of the config.")] = None,
    tolerance: Annotated[
        str | None, typer.Option(help="Replace the tolerance of nearest-matched streams, as in '1ms'.")
    ] = None,
    max_quarantine: Annotated[
        float | None, typer.Option(help="Largest share of the slices of a recording that may be quarantined.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Remove an existing build from the target first.")] = False,
    root: Annotated[
        Path | None, typer.Option(help="Base folder of the relative paths in a recording.toml.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Build WebDataset shards with a Parquet index. Run the same command again to resume an interrupted build."""
    from mmpack.cli.progress import BuildProgress
    from mmpack.ingest import EngineConfig
    from mmpack.ingest import build_shards as build

    config = _load_build_config(inputs, reference, tolerance, max_quarantine)
    try:
        with BuildProgress() as progress:
            outcome = build(
                config,
                out,
                engine=EngineConfig(engine, workers, rank, ranks),
                overwrite=overwrite,
                root=root,
                reporter=progress,
            )
    except KeyboardInterrupt:
        # With --overwrite, the same command would delete the tasks that are done and begin again.
        resume = "the same command without --overwrite resumes" if overwrite else "the same command resumes"
        raise KeyboardInterrupt(resume) from None
    if as_json:
        print_json(_summarise(outcome, out))
    else:
        _print_summary(outcome, out, ranks)
    if outcome.failures:
        for failure in outcome.failures[1:]:
            typer.echo(f"error: {failure.error}", err=True)
        first = outcome.failures[0].error
        raise type(first)(first.message, where=first.where or outcome.failures[0].task, hint=first.hint)


def _load_build_config(
    inputs: list[str], reference: str | None, tolerance: str | None, max_quarantine: float | None
) -> BuildConfig:
    """Returns the build config of a TOML file or of a list of recordings, with the options applied.

    Raises:
        ConfigError: the config or an option is invalid, or a build config is given together with other inputs.
    """
    import msgspec

    from mmpack.ingest import BuildConfig
    from mmpack.settings import parse_settings, read_toml

    if len(inputs) == 1 and inputs[0].endswith(".toml"):
        path = Path(inputs[0])
        table = read_toml(path)
        # A recording.toml is an input of a build, not a build config.
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
                "a build config cannot be combined with other inputs",
                where=tables[0],
                hint="Give only the build config, and list all recordings in it.",
            )
        config = BuildConfig(recordings=tuple(inputs))
    if max_quarantine is not None:
        config = msgspec.structs.replace(config, max_quarantine=max_quarantine)
    sync = common.override_sync_config(config.sync, reference, tolerance)
    config = msgspec.structs.replace(config, sync=sync)
    return config.validate(where=inputs[0] if len(inputs) == 1 else "")


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


def _print_summary(outcome: BuildOutcome, out: str, ranks: int) -> None:
    manifest = outcome.manifest
    if manifest is not None:
        size = sum(shard.size_bytes for shard in manifest.shards)
        typer.echo(
            f"{manifest.samples} samples, {manifest.tokens} tokens, {len(manifest.shards)} shards, {size / 1e6:.1f} MB in {out}; "
            f"{manifest.quarantined} slices quarantined"
        )
    elif not outcome.failures and ranks > 1:
        typer.echo(
            "all tasks of this rank are done; the last rank that finishes writes the index and the manifest"
        )
    elif len(outcome.plan.tasks) > 1:
        done = len(outcome.plan.tasks) - len(outcome.failures)
        typer.echo(
            f"{done} of {len(outcome.plan.tasks)} inputs built; fix the failed inputs and run the same command again",
            err=True,
        )
