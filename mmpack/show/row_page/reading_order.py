"""Renderers of spans in reading order: special tokens as chips, texts as text, images and audio between them."""

from __future__ import annotations

from mmpack.layout import Layout, Modality
from mmpack.rows.row import Row
from mmpack.show.mask.row_view import TokenSpan
from mmpack.show.row_page.markup import Markup, chip, format_count, tag
from mmpack.show.row_page.media import audio_element, image_element
from mmpack.show.row_page.row_content import DocumentView

_IMAGE_WIDTH = 330
_MODALITY_NAMES = {
    Modality.TEXT: ("text token", "text tokens"),
    Modality.VISION: ("patch", "patches"),
    Modality.AUDIO: ("code", "codes"),
    Modality.NUMERIC: ("value", "values"),
    Modality.ACTION: ("action", "actions"),
}


def decode_text(row: Row, layout: Layout, span: TokenSpan) -> str:
    """Decodes the token ids of a span to text."""
    return layout.tokenizer.decode(row.input_ids[span.start : span.stop])


def render_sample(row: Row, layout: Layout, document: DocumentView) -> Markup:
    """Renders a stand-alone sample in the order of its tokens."""
    return tag("div", *(_render_span(row, layout, span) for span in document.spans), class_="flow")


def _render_span(row: Row, layout: Layout, span: TokenSpan) -> Markup:
    if span.modality == Modality.TEXT:
        return tag("span", decode_text(row, layout, span), class_="text")
    if span.modality == Modality.AUDIO:
        return audio_element(row, layout, span)
    if span.image >= 0:
        return image_element(row, span.image, _IMAGE_WIDTH)
    return _render_chip(span)


def render_run(document: DocumentView) -> Markup:
    """Renders the order of the spans of a run: prefix, first slice, number of further slices, and suffix."""
    first, last = document.slices[0].spans, document.slices[-1].spans
    prefix = [span for span in document.spans if span.start < first[0].start]
    suffix = [span for span in document.spans if span.start >= last[-1].stop]
    num_more = len(document.slices) - 1
    between = [chip(f"… {format_count(num_more, 'more slice')} …", "more")] if num_more else []
    chips = [*map(_render_chip, (*prefix, *first)), *between, *map(_render_chip, suffix)]
    return tag("div", *chips, class_="flow order")


def _render_chip(span: TokenSpan) -> Markup:
    """Renders a span as a chip: a special token by its name, any other span by its number of tokens."""
    if span.modality == Modality.SPECIAL:
        repeated = f" × {span.num_positions:,}" if span.num_positions > 1 else ""
        return chip(span.name + repeated, title=f"position {span.start:,}")
    title = f"positions {span.start:,} to {span.stop - 1:,}"
    text = format_count(span.num_positions, *_MODALITY_NAMES[span.modality])
    return chip(text, f"m-{span.modality.name.lower()}", title)
