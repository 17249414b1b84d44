"""`mmpack show-mask`: a row and its attention mask, as a picture and in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmpack.cli import common
from mmpack.errors import ConfigError, IntegrityError
from mmpack.show.console import make_console, print_json
from mmpack.storage.store import storage_errors

if TYPE_CHECKING:
    from mmpack.show.mask.row_view import RowView


def show_mask(
    out: Annotated[
        str | None,
        typer.Argument(help="Folder or URL of finished shards; rows hold its samples in index order."),
    ] = None,
    lengths: Annotated[
        str | None,
        typer.Option(help="Instead of a build: lengths of the row's documents, as in '1000,700,12'."),
    ] = None,
    row: Annotated[int, typer.Option(min=0, help="Which row of the build, from 0.")] = 0,
    max_seq_len: Annotated[
        int | None,
        typer.Option(min=1, help="Places of a row; default 8192, or the sum of --lengths."),
    ] = None,
    block_size: Annotated[int, typer.Option(min=1, help="Places a side of a block.")] = 128,
    images: Annotated[
        bool,
        typer.Option("--images/--causal", help="Whether the places of one picture see each other both ways."),
    ] = True,
    picture: Annotated[
        Path | None, typer.Option("--picture", "-p", help="Where to write the PNG; default none.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object on stdout and nothing else.")
    ] = False,
) -> None:
    """Show which places of a row attend to which, and check the places where documents meet."""
    from mmpack.masks import build_block_index
    from mmpack.show.mask.row_view import check_mask

    common.require_png_suffix(picture, option="--picture")
    view = _load_row_view(out, lengths, row, max_seq_len, images)
    index = build_block_index(
        view.cu_seqlens, view.seq_len, block_size=block_size, image_spans=view.image_spans
    )
    checks = check_mask(view, index)
    if picture is not None:
        from mmpack.show.mask.mask_plot import plot_mask

        with storage_errors(picture, "writing"):
            plot_mask(view, picture, block_size=block_size)
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
                "checks": [{**check._asdict(), "right": check.passed} for check in checks],
            }
        )
    else:
        from mmpack.show.mask.mask_text import render_mask

        make_console().print(render_mask(view, block_size=block_size))
        if picture is not None:
            typer.echo(f"picture: {picture}")
    wrong = [check for check in checks if not check.passed]
    if wrong:
        raise IntegrityError(
            f"{len(wrong)} of {len(checks)} checked places are wrong",
            where=f"query {wrong[0].query}, key {wrong[0].key}",
            hint="This is a bug in mmpack: please report it.",
        )


def _load_row_view(
    out: str | None, lengths: str | None, row: int, max_seq_len: int | None, images: bool
) -> RowView:
    if (out is None) == (lengths is None):
        raise ConfigError("give a finished build or --lengths, one of the two", where="show-mask")
    if out is not None:
        from mmpack.shards import ShardSet
        from mmpack.show.mask.index_rows import index_row_view

        return index_row_view(ShardSet(out), row, max_seq_len or 8192, bidirectional_images=images)
    from mmpack.masks import cu_seqlens
    from mmpack.show.mask.row_view import make_row_view

    try:
        ends = cu_seqlens([int(length) for length in (lengths or "").split(",")])
    except ValueError:
        raise ConfigError(f"'{lengths}' is not a list as in '1000,700,12'", where="--lengths") from None
    return make_row_view(ends, max_seq_len or max(int(ends[-1]), 1))
