"""A run of slices as a timeline: a column for each slice, a line for each camera, sound, stream and text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mmpack.layout import Layout, Modality
from mmpack.rows.row import Row
from mmpack.show.row_page.markup import Markup, tag
from mmpack.show.row_page.media import audio_element, image_element, sparkline, value_range
from mmpack.show.row_page.reading_order import decode_text
from mmpack.show.row_page.row_content import DocumentView, SliceView, TokenSpan, numeric_values

_MAX_WIDTH = 1190
_MAX_COLUMN, _MIN_COLUMN, _EMPTY_COLUMN = 280, 104, 22
# A label of the time needs this many pixels.
_LABEL = 84


def render_timeline(row: Row, layout: Layout, document: DocumentView, notes: Mapping[str, str]) -> Markup:
    """The slices of a document side by side.

    Args:
        row: what is shown.
        layout: of its ids.
        document: a run of slices.
        notes: what is known of a sample, by its key; shown with its slice.
    """
    slices = document.slices
    has_media = any(
        piece.modality in (Modality.VISION, Modality.AUDIO) for each in slices for piece in each.spans
    )
    width = (
        max(_MIN_COLUMN, min(_MAX_COLUMN, _MAX_WIDTH // len(slices)))
        if has_media
        else max(_EMPTY_COLUMN, min(_MAX_COLUMN, _MAX_WIDTH // len(slices)))
    )
    cells = [
        *_times(slices, width, notes),
        *_cameras(row, layout, slices, width),
        *_audio_lane(row, layout, slices),
        *_numeric_lane(row, layout, slices),
        *_texts(row, layout, slices, width),
    ]
    columns = f"grid-template-columns: var(--names) repeat({len(slices)}, {width}px)"
    return tag("div", tag("div", *cells, class_="timeline", style=columns), class_="scroll")


def _times(slices: Sequence[SliceView], width: int, notes: Mapping[str, str]) -> Iterator[Markup]:
    step = -(-_LABEL // width)
    yield _name("time", "since the document's start" + ("; on its clock" if step == 1 else ""))
    relative_ns = [one.t_ns - slices[0].t_ns for one in slices]
    digits = 1 if all(ns % 10**8 == 0 for ns in relative_ns) else 3
    for number in range(0, len(slices), step):
        one = slices[number]
        lines = [tag("b", f"+{relative_ns[number] / 1e9:.{digits}f} s")]
        if step == 1:
            lines.append(tag("span", f"{one.t_ns:,} ns".replace(",", "\u202f"), class_="absolute"))
            lines += [tag("span", notes[one.key], class_="note")] if one.key in notes else []
        span = min(step, len(slices) - number)
        about = (
            one.key,
            f"{one.t_ns} ns on its recording's clock",
            one.spans[0].name,
            notes.get(one.key, ""),
        )
        title = "\n".join(filter(None, about))
        yield tag("div", *lines, class_="cell time", style=f"grid-column: span {span}", title=title)


def _cameras(row: Row, layout: Layout, slices: Sequence[SliceView], width: int) -> Iterator[Markup]:
    held = [_by_stream(each, Modality.VISION) for each in slices]
    for camera in layout.config.cameras:
        if not any(camera in streams for streams in held):
            continue
        yield _name(camera, _grids(row, [piece for streams in held for piece in streams.get(camera, ())]))
        for streams in held:
            # Twice the width, for screens of two pixels a point. A tubelet shows all of its frames.
            frames = [image_element(row, piece.image, 2 * width) for piece in streams.get(camera, ())]
            yield tag("div", *(frames or [tag("span", "absent", class_="missing")]), class_="cell camera")


def _grids(row: Row, spans: Sequence[TokenSpan]) -> str:
    grids = {tuple(row.image_grids[piece.image].tolist()) for piece in spans}
    return ", ".join(f"{rows} × {cols} patches" for rows, cols in sorted(grids))


def _audio_lane(row: Row, layout: Layout, slices: Sequence[SliceView]) -> Iterator[Markup]:
    held = [[piece for piece in each.spans if piece.modality == Modality.AUDIO] for each in slices]
    for lane in range(max(map(len, held))):
        counts = {pieces[lane].num_positions for pieces in held if lane < len(pieces)}
        yield _name("sound", f"{'–'.join(str(n) for n in sorted({min(counts), max(counts)}))} codes")
        for pieces in held:
            yield tag(
                "div",
                *(audio_element(row, layout, piece) for piece in pieces[lane : lane + 1]),
                class_="cell",
            )


def _numeric_lane(row: Row, layout: Layout, slices: Sequence[SliceView]) -> Iterator[Markup]:
    for stream in layout.config.numeric:
        modality = Modality.ACTION if stream.role == "action" else Modality.NUMERIC
        held = [_by_stream(each, modality).get(stream.name, ()) for each in slices]
        if not any(held):
            continue
        columns = [
            np.concatenate(
                [np.empty((0, stream.width)), *(numeric_values(row, layout, piece) for piece in pieces)]
            )
            for pieces in held
        ]
        rows = {len(column) for column in columns if len(column)}
        each = "–".join(str(number) for number in sorted({min(rows), max(rows)}))
        yield _name(stream.name, f"{stream.role}, {each} × {stream.width}", value_range(columns))
        line = sparkline(columns, f"m-{modality.name.lower()}", title=stream.name)
        yield tag("div", line, class_="cell", style="grid-column: 2 / -1")


def _texts(row: Row, layout: Layout, slices: Sequence[SliceView], width: int) -> Iterator[Markup]:
    held = [[piece for piece in each.spans if piece.modality == Modality.TEXT] for each in slices]
    if not any(held):
        return
    yield _name("text")
    for pieces in held:
        words = [tag("p", decode_text(row, layout, piece)) for piece in pieces]
        yield tag("div", *words, class_="cell words" if width >= _MIN_COLUMN else "cell words narrow")


def _by_stream(one: SliceView, modality: Modality) -> dict[str, list[TokenSpan]]:
    found: dict[str, list[TokenSpan]] = {}
    for piece in one.spans:
        if piece.modality == modality:
            found.setdefault(piece.name, []).append(piece)
    return found


def _name(name: str, *about: str) -> Markup:
    return tag("div", tag("b", name), *(tag("span", words) for words in about), class_="name")
