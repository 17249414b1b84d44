"""Pieces in reading order: special tokens as chips, texts as they read, pictures and sound between them."""

from __future__ import annotations

from mmpack.layout import Layout, Modality
from mmpack.rows.row import Row
from mmpack.show.row_page.markup import Markup, chip, count, tag
from mmpack.show.row_page.media import picture, sound
from mmpack.show.row_page.row_content import Document, Piece

_PICTURE_WIDTH = 330
_PLACES = {
    Modality.TEXT: ("text token", "text tokens"),
    Modality.VISION: ("patch", "patches"),
    Modality.AUDIO: ("code", "codes"),
    Modality.NUMERIC: ("value", "values"),
    Modality.ACTION: ("action", "actions"),
}


def text_of(row: Row, layout: Layout, piece: Piece) -> str:
    """The text whose ids a piece holds."""
    return layout.tokenizer.decode(row.input_ids[piece.start : piece.stop])


def alone(row: Row, layout: Layout, document: Document) -> Markup:
    """A stand-alone sample as a model reads it."""
    return tag("div", *(_shown(row, layout, piece) for piece in document.pieces), class_="flow")


def _shown(row: Row, layout: Layout, piece: Piece) -> Markup:
    if piece.modality == Modality.TEXT:
        return tag("span", text_of(row, layout, piece), class_="text")
    if piece.modality == Modality.AUDIO:
        return sound(row, layout, piece)
    if piece.image >= 0:
        return picture(row, piece.image, _PICTURE_WIDTH)
    return _chip(piece)


def reading_order(document: Document) -> Markup:
    """The places of a run: what opens it, its first slice piece by piece, how many more there are, what closes it."""
    first, last = document.slices[0].pieces, document.slices[-1].pieces
    before = [piece for piece in document.pieces if piece.start < first[0].start]
    after = [piece for piece in document.pieces if piece.start >= last[-1].stop]
    more = len(document.slices) - 1
    between = [chip(f"… {count(more, 'more slice')} …", "more")] if more else []
    chips = [*map(_chip, (*before, *first)), *between, *map(_chip, after)]
    return tag("div", *chips, class_="flow order")


def _chip(piece: Piece) -> Markup:
    """A special token by its name, any other piece by how many places it has."""
    if piece.modality == Modality.SPECIAL:
        repeated = f" × {piece.places:,}" if piece.places > 1 else ""
        return chip(piece.name + repeated, title=f"place {piece.start:,}")
    where = f"places {piece.start:,} to {piece.stop - 1:,}"
    what = count(piece.places, *_PLACES[piece.modality])
    return chip(what, f"m-{piece.modality.name.lower()}", where)
