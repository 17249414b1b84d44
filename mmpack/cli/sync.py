"""The command `mmpack sync`: checks the synchronisation of recordings before a build."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmpack.cli import common
from mmpack.cli.common import JsonOption
from mmpack.errors import ConfigError, QuarantineError
from mmpack.serialisation import pretty_json
from mmpack.show.console import make_console, print_json
from mmpack.show.plots import write_plot
from mmpack.storage.store import storage_errors


def sync(
    recording: Annotated[
        list[str],
        typer.Argument(
            help="recording.toml or its folder, nuScenes root or list of file names, mp4, or mkv."
        ),
    ],
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="TOML file with a \\[sync] table.")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Source of the ticks: a stream, 'consensus', 'consensus:cam_*' or 'rate:10' (Hz)."),
    ] = None,
    tolerance: Annotated[
        str | None, typer.Option(help="Largest residual of nearest-matched streams, as in '1ms'.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write report.json, sync.parquet and sync.png to this folder."),
    ] = None,
    max_quarantine: Annotated[
        float | None,
        typer.Option(help="Largest share of quarantined slices, 0 to 1; a larger share exits with code 1."),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Base folder of the relative paths in a recording.toml.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check how well the streams of recordings agree in time."""
    from mmpack.recording.formats import open_recordings
    from mmpack.show.sync_table import render_sync_report
    from mmpack.sync import synchronise
    from mmpack.sync.sync_report import sync_report, to_table, write_parquet

    if max_quarantine is not None and not 0 <= max_quarantine <= 1:  # also rejects NaN
        raise ConfigError(
            f"{max_quarantine} is not a share between 0 and 1",
            where="--max-quarantine",
            hint="Write 5% as 0.05.",
        )
    settings = common.load_sync_config(config, reference, tolerance)
    recordings = [opened for path in recording for opened in open_recordings(path, root=root)]
    results = [synchronise(opened, settings) for opened in recordings]
    report = sync_report(results)
    if out is not None:
        with storage_errors(out, "writing"):
            out.mkdir(parents=True, exist_ok=True)
            (out / "report.json").write_bytes(pretty_json(report))
            write_parquet(results, out / "sync.parquet")
        write_plot("sync", out / "sync.png", to_table(results), report)
    if as_json:
        print_json(report)
    else:
        make_console().print(render_sync_report(report))
        if out is not None:
            typer.echo(f"report: {out / 'report.json'}  plot: {out / 'sync.png'}")
    share = report["quarantined"] / max(report["ticks"], 1)
    if max_quarantine is not None and share > max_quarantine:
        raise QuarantineError(
            f"{report['quarantined']} of {report['ticks']} slices ({share:.1%}) are quarantined, allowed {max_quarantine:.1%}",
            hint="Correct the recordings, or raise --max-quarantine.",
        )
