"""The command `mmpack show-mask`: plots a row and its attention mask, and prints them in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmpack.cli.common import JsonOption
from mmpack.errors import ConfigError, IntegrityError
from mmpack.show.console import make_console, print_json
from mmpack.show.plots import require_png_suffix, write_plot

if TYPE_CHECKING:
    from mmpack.show.mask.row_view import RowView


def show_mask(
    out: Annotated[
        str | None,
        typer.Argument(help="Folder or URL of a shard set. Its samples fill rows in the order of the index."),
    ] = None,
    lengths: Annotated[
        str | None,
        typer.Option(
            help="Lengths of the documents of one row, as in '1000,700,12', instead of a shard set."
        ),
    ] = None,
    row: Annotated[int, typer.Option(min=0, help="Number of the row, from 0.")] = 0,
    max_seq_len: Annotated[
        int | None,
        typer.Option(min=1, help="Number of positions of a row; default: 8192, or the sum of --lengths."),
    ] = None,
    block_size: Annotated[int, typer.Option(min=1, help="Number of positions per side of a block.")] = 128,
    bidirectional_images: Annotated[
        bool,
        typer.Option(
            "--bidirectional-images/--causal",
            help="Let the positions of one image attend to each other in both directions, or attend causally.",
        ),
    ] = True,
    plot: Annotated[
        Path | None, typer.Option("--plot", "-p", help="Write a PNG of the mask to this file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show which positions of a row attend to which, and check the mask where documents meet."""
    from mmpack.masks import build_block_index
    from mmpack.show.mask.row_view import check_mask

    require_png_suffix(plot)
    view = _load_row_view(out, lengths, row, max_seq_len, bidirectional_images)
    index = build_block_index(
        view.cu_seqlens, view.seq_len, block_size=block_size, image_spans=view.image_spans
    )
    checks = check_mask(view, index)
    if plot is not None:
        write_plot("mask", plot, view, index, checks)
    if as_json:
        kinds = index.kinds()
        print_json(
            {
                "seq_len": view.seq_len,
                "cu_seqlens": view.cu_seqlens.tolist(),
                "image_spans": view.image_spans.tolist(),
                "fill": view.fill,
                "block_size": block_size,
                "blocks": {
                    name: int((kinds == kind).sum()) for kind, name in enumerate(("empty", "partial", "full"))
                },
                "checks": [{**check._asdict(), "passed": check.passed} for check in checks],
            }
        )
    else:
        from mmpack.show.mask.mask_text import render_mask

        make_console().print(render_mask(view, block_size=block_size))
        if plot is not None:
            typer.echo(f"plot: {plot}")
    failed = [check for check in checks if not check.passed]
    if failed:
        raise IntegrityError(
            f"{len(failed)} of {len(checks)} checked pairs of positions are wrong in the mask",
            where=f"query {failed[0].query}, key {failed[0].key}",
            hint="Report this bug in mmpack.",
        )


def _load_row_view(
    out: str | None, lengths: str | None, row: int, max_seq_len: int | None, bidirectional_images: bool
) -> RowView:
    """Returns the view of a row of a shard set, or of a row with the given document lengths.

    Raises:
        ConfigError: not exactly one of `out` and `lengths` is set, or `lengths` is not a list of integers from 1.
    """
    if (out is None) == (lengths is None):
        raise ConfigError(
            "exactly one of a shard set and --lengths is required",
            where="show-mask",
            hint="Give one of the two.",
        )
    if out is not None:
        from mmpack.shards import ShardSet
        from mmpack.show.mask.index_rows import index_row_view

        return index_row_view(
            ShardSet(out), row, max_seq_len or 8192, bidirectional_images=bidirectional_images
        )
    from mmpack.masks import cu_seqlens
    from mmpack.show.mask.row_view import make_row_view

    try:
        values = [int(length) for length in (lengths or "").split(",")]
    except ValueError:
        raise ConfigError(
            f"'{lengths}' is not a list of lengths",
            where="--lengths",
            hint="Write lengths as in '1000,700,12'.",
        ) from None
    for index, value in enumerate(values):
        if value < 1:
            raise ConfigError(
                f"document {index} has {value} positions",
                where="--lengths",
                hint="Every length is at least 1.",
            )
    ends = cu_seqlens(values)
    return make_row_view(ends, max_seq_len or max(int(ends[-1]), 1))
