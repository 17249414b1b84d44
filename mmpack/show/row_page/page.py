"""Renderer of a row as one self-contained HTML page that shows the input of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import islice

import numpy as np

from mmpack.layout import Layout, Modality
from mmpack.rows.row import Row
from mmpack.show.row_page.attention_svg import render_attention
from mmpack.show.row_page.markup import Markup, chip, format_count, join, tag
from mmpack.show.row_page.position_strip import dataset_class, document_lane, position_strip
from mmpack.show.row_page.reading_order import render_run, render_sample
from mmpack.show.row_page.row_content import DocumentView, read_documents
from mmpack.show.row_page.timeline import render_timeline

# Number of stand-alone samples that are open at first; a row may contain hundreds.
_MAX_OPEN_DOCUMENTS = 12


def row_html(
    row: Row,
    layout: Layout,
    *,
    title: str,
    notes: Mapping[str, str],
    dataset_names: Sequence[str],
    bidirectional_images: bool = True,
) -> str:
    """Renders a self-contained page of `row`: its documents with their content, and its attention mask.

    The content is decoded from the arrays of the row: images from the patches, texts and streams from the token ids.

    Args:
        row: row to render.
        layout: token layout of the row.
        title: title of the page.
        notes: lines for the head of the page, by subject. A note whose subject is the key of a sample of the row appears
            at that sample instead.
        dataset_names: names of the data sets of the plan, in the order of the plan.
        bidirectional_images: True if the positions of one image attend to each other in both directions.

    Raises:
        DataError: the spans are invalid, or the ids do not belong to this layout.
    """
    documents = list(read_documents(row, layout))
    body = join(
        [
            _render_header(row, documents, title, notes, dataset_names),
            *_render_documents(row, layout, documents, notes, dataset_names),
            _render_attention_section(row, bidirectional_images),
        ]
    )
    style = files("mmpack.show.row_page").joinpath("page.css").read_text("utf-8")
    head = join(
        [
            Markup(
                '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
            ),
            tag("title", title),
            tag("style", Markup(style)),
        ]
    )
    page = tag("html", tag("head", head), tag("body", tag("main", body)), lang="en")
    return f"<!doctype html>\n{page}\n"


def _render_header(
    row: Row, documents: Sequence[DocumentView], title: str, notes: Mapping[str, str], names: Sequence[str]
) -> Markup:
    sample_keys = {key for document in documents for key in document.keys}
    lines = [
        join([tag("dt", subject), tag("dd", note)])
        for subject, note in notes.items()
        if subject not in sample_keys
    ]
    figures = (
        (f"{row.number:,}", "row number"),
        (f"{row.fill:.2%}", f"fill: {row.tokens:,} of {row.seq_len:,} positions"),
        (f"{len(documents):,}", "documents, each attends only to itself"),
        (f"{len(row.t_ns):,}", "slices"),
        (f"{len(row.image_spans):,}", "images"),
    )
    return tag(
        "header",
        tag("h1", title),
        tag(
            "div",
            *(tag("div", tag("b", figure), tag("span", label)) for figure, label in figures),
            class_="figures",
        ),
        _render_legend(row),
        tag(
            "div",
            tag("span", "documents"),
            document_lane(row, documents, names),
            tag("span", "positions"),
            position_strip(row, 0, row.seq_len),
            class_="lanes",
        ),
        tag(
            "p",
            *(chip(names[int(dataset)], dataset_class(int(dataset))) for dataset in np.unique(row.datasets)),
            class_="datasets",
        ),
        tag("dl", *lines),
    )


def _render_legend(row: Row) -> Markup:
    """Returns the legend of the colours, with the number of positions of each modality."""
    modalities = row.modality[row.document_ids >= 0]
    entries = [
        (f"m-{modality.name.lower()}", int((modalities == modality).sum()), modality.name.lower())
        for modality in (
            Modality.VISION,
            Modality.TEXT,
            Modality.AUDIO,
            Modality.NUMERIC,
            Modality.ACTION,
            Modality.SPECIAL,
        )
    ]
    entries.append(("pad", row.seq_len - len(modalities), "padding"))
    return tag(
        "ul",
        *(
            tag("li", tag("i", class_=f"swatch {kind}"), tag("b", f"{positions:,}"), f" {name}")
            for kind, positions, name in entries
            if positions
        ),
        tag("li", tag("i", class_="swatch predicted"), "predicts the next token"),
        class_="legend",
    )


def _render_documents(
    row: Row,
    layout: Layout,
    documents: Sequence[DocumentView],
    notes: Mapping[str, str],
    names: Sequence[str],
) -> list[Markup]:
    pair_labels: dict[int, str] = {}
    for media, text in row.pairs.tolist():
        pair_labels[media] = f"pair: the media of document {text}"
        pair_labels[text] = f"pair: the text of document {media}"
    open_documents = {document.number for document in documents if document.slices}
    stand_alone = (document.number for document in documents if not document.slices)
    open_documents.update(islice(stand_alone, _MAX_OPEN_DOCUMENTS))
    return [
        tag(
            "details",
            _render_summary(row, document, pair_labels.get(document.number), names),
            _render_content(row, layout, document, notes),
            class_=dataset_class(document.dataset),
            open="" if document.number in open_documents else None,
        )
        for document in documents
    ]


def _render_summary(row: Row, document: DocumentView, pair_label: str | None, names: Sequence[str]) -> Markup:
    kind = format_count(len(document.slices), "slice") if document.slices else "stand-alone sample"
    chips = [chip(names[document.dataset], dataset_class(document.dataset)), chip(kind, "plain")]
    if pair_label:
        chips.append(chip(pair_label, "plain"))
    if not document.is_valid:
        chips.append(chip("unreadable: its positions are excluded from attention and loss", "bad"))
    keys = document.keys
    key_range = keys[0] if len(keys) == 1 else f"{keys[0]} … {keys[-1]}" if keys else ""
    positions = f"positions {document.start:,} to {document.stop - 1:,} ({document.stop - document.start:,})"
    return tag(
        "summary",
        tag("b", f"Document {document.number}"),
        *chips,
        tag("span", positions, class_="positions"),
        tag("code", key_range, title="\n".join(keys)),
        position_strip(row, document.start, document.stop),
    )


def _render_content(row: Row, layout: Layout, document: DocumentView, notes: Mapping[str, str]) -> Markup:
    if document.slices:
        return join([render_timeline(row, layout, document, notes), render_run(document)])
    sample_notes = [tag("p", notes[key], class_="note") for key in document.keys if key in notes]
    return join([*sample_notes, render_sample(row, layout, document)])


def _render_attention_section(row: Row, bidirectional_images: bool) -> Markup:
    rule = "A position attends to itself and to the earlier positions of its document"
    rule += ", and to all positions of its image." if bidirectional_images else "."
    mask = render_attention(row, bidirectional_images=bidirectional_images)
    return tag("section", tag("h2", "Attention mask"), tag("p", rule), mask)
