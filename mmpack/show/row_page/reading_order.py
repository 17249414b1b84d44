"""Pieces in reading order: special tokens as chips, texts as they read, pictures and sound between them."""

from __future__ import annotations

from mmpack.layout import Layout, Modality
from mmpack.rows.row import Row
from mmpack.show.row_page.markup import Markup, chip, format_count, tag
from mmpack.show.row_page.media import audio_element, image_element
from mmpack.show.row_page.row_content import DocumentView, TokenSpan

_PICTURE_WIDTH = 330
_MODALITY_NAMES = {
    Modality.TEXT: ("text token", "text tokens"),
    Modality.VISION: ("patch", "patches"),
    Modality.AUDIO: ("code", "codes"),
    Modality.NUMERIC: ("value", "values"),
    Modality.ACTION: ("action", "actions"),
}


def decode_text(row: Row, layout: Layout, span: TokenSpan) -> str:
    """The text whose ids a piece holds."""
    return layout.tokenizer.decode(row.input_ids[span.start : span.stop])


def render_sample(row: Row, layout: Layout, document: DocumentView) -> Markup:
    """A stand-alone sample as a model reads it."""
    return tag("div", *(_render_span(row, layout, piece) for piece in document.spans), class_="flow")


def _render_span(row: Row, layout: Layout, span: TokenSpan) -> Markup:
    if span.modality == Modality.TEXT:
        return tag("span", decode_text(row, layout, span), class_="text")
    if span.modality == Modality.AUDIO:
        return audio_element(row, layout, span)
    if span.image >= 0:
        return image_element(row, span.image, _PICTURE_WIDTH)
    return _chip(span)


def render_run(document: DocumentView) -> Markup:
    """The places of a run: what opens it, its first slice piece by piece, how many more there are, what closes it."""
    first, last = document.slices[0].spans, document.slices[-1].spans
    before = [piece for piece in document.spans if piece.start < first[0].start]
    after = [piece for piece in document.spans if piece.start >= last[-1].stop]
    more = len(document.slices) - 1
    between = [chip(f"… {format_count(more, 'more slice')} …", "more")] if more else []
    chips = [*map(_chip, (*before, *first)), *between, *map(_chip, after)]
    return tag("div", *chips, class_="flow order")


def _chip(span: TokenSpan) -> Markup:
    """A special token by its name, any other piece by how many places it has."""
    if span.modality == Modality.SPECIAL:
        repeated = f" × {span.num_positions:,}" if span.num_positions > 1 else ""
        return chip(span.name + repeated, title=f"place {span.start:,}")
    where = f"places {span.start:,} to {span.stop - 1:,}"
    what = format_count(span.num_positions, *_MODALITY_NAMES[span.modality])
    return chip(what, f"m-{span.modality.name.lower()}", where)
