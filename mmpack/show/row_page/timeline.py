"""Renderer of a run as a timeline: one column per slice, one line per camera, audio, numeric stream and text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mmpack.layout import Layout, Modality
from mmpack.rows.row import Row
from mmpack.show.mask.row_view import TokenSpan
from mmpack.show.row_page.markup import Markup, tag
from mmpack.show.row_page.media import audio_element, format_value_range, image_element, sparkline
from mmpack.show.row_page.reading_order import decode_text
from mmpack.show.row_page.row_content import DocumentView, SliceView, numeric_values

_MAX_WIDTH = 1190
_MAX_COLUMN, _MIN_MEDIA_COLUMN, _MIN_COLUMN = 280, 104, 22
# A time label needs this many pixels.
_LABEL_WIDTH = 84


def render_timeline(row: Row, layout: Layout, document: DocumentView, notes: Mapping[str, str]) -> Markup:
    """Renders the slices of a document next to each other.

    Args:
        row: row that contains the document.
        layout: token layout of the row.
        document: document of a run.
        notes: note of a sample, by its key; it appears at the slice.
    """
    slices = document.slices
    has_media = any(
        span.modality in (Modality.VISION, Modality.AUDIO) for slice_ in slices for span in slice_.spans
    )
    width = (
        max(_MIN_MEDIA_COLUMN, min(_MAX_COLUMN, _MAX_WIDTH // len(slices)))
        if has_media
        else max(_MIN_COLUMN, min(_MAX_COLUMN, _MAX_WIDTH // len(slices)))
    )
    cells = [
        *_render_times(slices, width, notes),
        *_render_cameras(row, layout, slices, width),
        *_render_audio(row, layout, slices),
        *_render_numeric(row, layout, slices),
        *_render_texts(row, layout, slices, width),
    ]
    columns = f"grid-template-columns: var(--names) repeat({len(slices)}, {width}px)"
    return tag("div", tag("div", *cells, class_="timeline", style=columns), class_="scroll")


def _render_times(slices: Sequence[SliceView], width: int, notes: Mapping[str, str]) -> Iterator[Markup]:
    step = -(-_LABEL_WIDTH // width)
    yield _render_name(
        "time", "since the start of the document" + ("; tick on the recording clock" if step == 1 else "")
    )
    relative_ns = [slice_.t_ns - slices[0].t_ns for slice_ in slices]
    digits = 1 if all(ns % 10**8 == 0 for ns in relative_ns) else 3
    for index in range(0, len(slices), step):
        slice_ = slices[index]
        lines = [tag("b", f"+{relative_ns[index] / 1e9:.{digits}f} s")]
        if step == 1:
            lines.append(tag("span", f"{slice_.t_ns:,} ns".replace(",", "\u202f"), class_="absolute"))
            lines += [tag("span", notes[slice_.key], class_="note")] if slice_.key in notes else []
        column_span = min(step, len(slices) - index)
        details = (
            slice_.key,
            f"{slice_.t_ns} ns on the clock of its recording",
            slice_.spans[0].name,
            notes.get(slice_.key, ""),
        )
        title = "\n".join(filter(None, details))
        yield tag("div", *lines, class_="cell time", style=f"grid-column: span {column_span}", title=title)


def _render_cameras(row: Row, layout: Layout, slices: Sequence[SliceView], width: int) -> Iterator[Markup]:
    streams_by_slice = [_group_by_stream(slice_, Modality.VISION) for slice_ in slices]
    for camera in layout.config.cameras:
        if not any(camera in streams for streams in streams_by_slice):
            continue
        camera_spans = [span for streams in streams_by_slice for span in streams.get(camera, ())]
        yield _render_name(camera, _format_grids(row, camera_spans))
        for streams in streams_by_slice:
            # Images have twice the width, for screens with two pixels per point. A tubelet shows all of its frames.
            frames = [image_element(row, span.image, 2 * width) for span in streams.get(camera, ())]
            yield tag("div", *(frames or [tag("span", "absent", class_="missing")]), class_="cell camera")


def _format_grids(row: Row, spans: Sequence[TokenSpan]) -> str:
    grids = {tuple(row.image_grids[span.image].tolist()) for span in spans}
    return ", ".join(f"{rows} × {cols} patches" for rows, cols in sorted(grids))


def _render_audio(row: Row, layout: Layout, slices: Sequence[SliceView]) -> Iterator[Markup]:
    spans_by_slice = [[span for span in slice_.spans if span.modality == Modality.AUDIO] for slice_ in slices]
    for lane in range(max(map(len, spans_by_slice))):
        counts = {spans[lane].num_positions for spans in spans_by_slice if lane < len(spans)}
        yield _render_name("audio", f"{'–'.join(str(n) for n in sorted({min(counts), max(counts)}))} codes")
        for spans in spans_by_slice:
            yield tag(
                "div",
                *(audio_element(row, layout, span) for span in spans[lane : lane + 1]),
                class_="cell",
            )


def _render_numeric(row: Row, layout: Layout, slices: Sequence[SliceView]) -> Iterator[Markup]:
    for stream in layout.config.numeric:
        modality = Modality.ACTION if stream.role == "action" else Modality.NUMERIC
        spans_by_slice = [_group_by_stream(slice_, modality).get(stream.name, ()) for slice_ in slices]
        if not any(spans_by_slice):
            continue
        columns = [
            np.concatenate(
                [np.empty((0, stream.width)), *(numeric_values(row, layout, span) for span in spans)]
            )
            for spans in spans_by_slice
        ]
        rows = {len(column) for column in columns if len(column)}
        row_range = "–".join(str(count) for count in sorted({min(rows), max(rows)}))
        yield _render_name(
            stream.name, f"{stream.role}, {row_range} × {stream.width}", format_value_range(columns)
        )
        line = sparkline(columns, f"m-{modality.name.lower()}", title=stream.name)
        yield tag("div", line, class_="cell", style="grid-column: 2 / -1")


def _render_texts(row: Row, layout: Layout, slices: Sequence[SliceView], width: int) -> Iterator[Markup]:
    spans_by_slice = [[span for span in slice_.spans if span.modality == Modality.TEXT] for slice_ in slices]
    if not any(spans_by_slice):
        return
    yield _render_name("text")
    for spans in spans_by_slice:
        texts = [tag("p", decode_text(row, layout, span)) for span in spans]
        yield tag("div", *texts, class_="cell words" if width >= _MIN_MEDIA_COLUMN else "cell words narrow")


def _group_by_stream(slice_: SliceView, modality: Modality) -> dict[str, list[TokenSpan]]:
    """Groups the spans of one modality in a slice by the name of their stream."""
    spans_by_stream: dict[str, list[TokenSpan]] = {}
    for span in slice_.spans:
        if span.modality == modality:
            spans_by_stream.setdefault(span.name, []).append(span)
    return spans_by_stream


def _render_name(name: str, *details: str) -> Markup:
    return tag("div", tag("b", name), *(tag("span", detail) for detail in details), class_="name")
