"""A row as one HTML page that needs nothing but itself: for whoever wants to see what the model sees."""

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

# Stand-alone samples that are open when the page is; a row may hold hundreds.
_MAX_OPEN_DOCUMENTS = 12


def row_html(
    row: Row,
    layout: Layout,
    *,
    title: str,
    notes: Mapping[str, str],
    dataset_names: Sequence[str],
    images: bool = True,
) -> str:
    """A self-contained page that shows `row`: its documents, what each holds, and who sees whom.

    All of it is read back from the row's own arrays: pictures from its patches, texts and streams from its ids.

    Args:
        row: what is shown.
        layout: that its ids are of.
        title: of the page.
        notes: lines for the head of the page, by what they are about; a note about the key of one of the row's samples
            stands at that sample instead.
        dataset_names: of the plan's data sets, in its order.
        images: whether the places of one picture see each other both ways.

    Raises:
        DataError: spans that cannot be, or ids that are not of this layout.
    """
    found = list(read_documents(row, layout))
    body = join(
        [
            _render_header(row, found, title, notes, dataset_names),
            *_sections(row, layout, found, notes, dataset_names),
            _attention(row, images),
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
    row: Row, found: Sequence[DocumentView], title: str, notes: Mapping[str, str], names: Sequence[str]
) -> Markup:
    own = {key for document in found for key in document.keys}
    lines = [join([tag("dt", about), tag("dd", note)]) for about, note in notes.items() if about not in own]
    figures = (
        (f"{row.number:,}", "number of the row"),
        (f"{row.fill:.2%}", f"full: {row.tokens:,} of {row.seq_len:,} places"),
        (f"{len(found):,}", "documents, none of which sees another"),
        (f"{len(row.t_ns):,}", "time-slices"),
        (f"{len(row.image_spans):,}", "pictures"),
    )
    return tag(
        "header",
        tag("h1", title),
        tag(
            "div",
            *(tag("div", tag("b", figure), tag("span", what)) for figure, what in figures),
            class_="figures",
        ),
        _modalities(row),
        tag(
            "div",
            tag("span", "documents"),
            document_lane(row, found, names),
            tag("span", "places"),
            position_strip(row, 0, row.seq_len),
            class_="lanes",
        ),
        tag(
            "p",
            *(chip(names[int(number)], dataset_class(int(number))) for number in np.unique(row.datasets)),
            class_="datasets",
        ),
        tag("dl", *lines),
    )


def _modalities(row: Row) -> Markup:
    """How many places hold what, as the legend of the colours."""
    held = row.modality[row.document_ids >= 0]
    entries = [
        (f"m-{modality.name.lower()}", int((held == modality).sum()), modality.name.lower())
        for modality in (
            Modality.VISION,
            Modality.TEXT,
            Modality.AUDIO,
            Modality.NUMERIC,
            Modality.ACTION,
            Modality.SPECIAL,
        )
    ]
    entries.append(("pad", row.seq_len - len(held), "pads"))
    return tag(
        "ul",
        *(
            tag("li", tag("i", class_=f"swatch {kind}"), tag("b", f"{places:,}"), f" {name}")
            for kind, places, name in entries
            if places
        ),
        tag("li", tag("i", class_="swatch predicted"), "the next place is predicted"),
        class_="legend",
    )


def _sections(
    row: Row, layout: Layout, found: Sequence[DocumentView], notes: Mapping[str, str], names: Sequence[str]
) -> list[Markup]:
    partners: dict[int, str] = {}
    for media, text in row.pairs.tolist():
        partners[media] = f"pair: the media of document {text}"
        partners[text] = f"pair: the text of document {media}"
    opened = {one.number for one in found if one.slices}
    opened.update(islice((one.number for one in found if not one.slices), _MAX_OPEN_DOCUMENTS))
    return [
        tag(
            "details",
            _summary(row, one, partners.get(one.number), names),
            _content(row, layout, one, notes),
            class_=dataset_class(one.dataset),
            open="" if one.number in opened else None,
        )
        for one in found
    ]


def _summary(row: Row, document: DocumentView, pair: str | None, names: Sequence[str]) -> Markup:
    kind = format_count(len(document.slices), "slice") if document.slices else "stand-alone sample"
    chips = [chip(names[document.dataset], dataset_class(document.dataset)), chip(kind, "plain")]
    if pair:
        chips.append(chip(pair, "plain"))
    if not document.valid:
        chips.append(chip("unreadable: its places are out of attention and loss", "bad"))
    keys = document.keys
    named = keys[0] if len(keys) == 1 else f"{keys[0]} … {keys[-1]}" if keys else ""
    places = f"places {document.start:,} to {document.stop - 1:,} ({document.stop - document.start:,})"
    return tag(
        "summary",
        tag("b", f"Document {document.number}"),
        *chips,
        tag("span", places, class_="places"),
        tag("code", named, title="\n".join(keys)),
        position_strip(row, document.start, document.stop),
    )


def _content(row: Row, layout: Layout, document: DocumentView, notes: Mapping[str, str]) -> Markup:
    if document.slices:
        return join([render_timeline(row, layout, document, notes), render_run(document)])
    own = [tag("p", notes[key], class_="note") for key in document.keys if key in notes]
    return join([*own, render_sample(row, layout, document)])


def _attention(row: Row, images: bool) -> Markup:
    rule = "A place sees the earlier places of its own document"
    rule += ", and all places of its own picture." if images else "."
    return tag("section", tag("h2", "Who sees whom"), tag("p", rule), render_attention(row, images=images))
