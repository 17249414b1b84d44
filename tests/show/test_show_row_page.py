"""The page of a row: it says what the row's arrays say, needs nothing but itself, and lets no text become a tag."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpack.layout import ImageTextMetadata, SampleMetadata, SliceMetadata, SpeechMetadata, TextMetadata
from mmpack.masks import build_block_index
from mmpack.masks.blocks import FULL, PARTIAL
from mmpack.rows.row import IGNORE_INDEX, Row
from mmpack.show.row_page import row_html
from mmpack.show.row_page.row_content import numeric_values, read_documents
from tests.show.handmade_pages import MS, RowFactory, full_slice, layout

LAYOUT = layout()
NAMES = ("drive", "texts & more")
HOSTILE = "</span><script>alert(1)</script>\"'&amp; <b>"


class Page(HTMLParser):
    """A page as its elements: every tag that is opened has to be closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[tuple[str, dict[str, str]]] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.within: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = (tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in ("img", "meta"):
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1][1].get("class", "") if self.open else "", data))
            self.within.setdefault(self.open[-1][0] if self.open else "", []).append(data)

    def of_class(self, *words: str) -> list[str]:
        return [text for kind, text in self.texts if set(words) <= set(kind.split())]

    def shapes(self, tag: str, *words: str) -> list[dict[str, str]]:
        return [
            one
            for name, one in self.elements
            if name == tag and set(words) <= set(one.get("class", "").split())
        ]

    @property
    def everything(self) -> str:
        return "\n".join(text for _, text in self.texts)


def page(row: Row, *, title: str = "Row 7", notes: dict[str, str] | None = None, images: bool = True) -> Page:
    return Page(row_html(row, LAYOUT, title=title, notes=notes or {}, dataset_names=NAMES, images=images))


@pytest.fixture(scope="module")
def row() -> Row:
    made = RowFactory(LAYOUT, 512).run(
        [full_slice(["Hello, there"]), full_slice(), full_slice(["two", "three"])], t_ns=17 * MS
    )
    made.alone(TextMetadata("A text\n  of two lines"), key="texts-1").alone(
        ImageTextMetadata(24, 32, "A caption"), key="c-3"
    )
    return made.alone(SpeechMetadata(16_000, 16_000, "spoken words"), key="speech-3").row()


def pictures(shown: Page) -> Iterator[np.ndarray]:
    for image in shown.shapes("img"):
        head, _, data = image["src"].partition(",")
        assert head == "data:image/jpeg;base64"
        yield simplejpeg.decode_jpeg(base64.b64decode(data))


def test_the_page_needs_nothing_but_itself(row: Row) -> None:
    shown = page(row)
    assert {name for name, _ in shown.elements}.isdisjoint({"script", "link", "iframe", "object", "form"})
    addresses = [
        one[key] for _, one in shown.elements for key in ("src", "href", "srcset", "xlink:href") if key in one
    ]
    assert addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in addresses)
    (style,) = (text for text in shown.texts if "color-scheme" in text[1])
    assert re.findall(r"@import|url\(", style[1]) == []
    assert "prefers-color-scheme: dark" in style[1]


def test_pictures_are_the_patches_put_together_again(row: Row) -> None:
    found = list(pictures(page(row)))
    colours = [(200, 30, 30), (30, 160, 40)] * 3 + [(40, 60, 200)]
    by_camera = [colours[0]] * 3 + [colours[1]] * 3 + [colours[6]]
    assert len(found) == len(row.image_spans) == 7
    for pixels, colour in zip(found, by_camera, strict=True):
        assert pixels.shape == (24, 32, 3)
        assert pixels[:6, :6].min() > 240
        for rows, cols in ((slice(0, 8), slice(10, 32)), (slice(10, 24), slice(0, 32))):
            assert np.abs(pixels[rows, cols].astype(int).mean(axis=(0, 1)) - colour).max() < 12


def test_large_pictures_are_shown_smaller() -> None:
    from mmpack.show.row_page.media import _reduced

    pixels = np.arange(64 * 96 * 3, dtype=np.uint32).reshape(64, 96, 3).astype(np.uint8)
    found = _reduced(pixels, 30)
    assert found.shape == (21, 32, 3)
    assert found[2, 5].tolist() == pixels[6:9, 15:18].reshape(9, 3).mean(axis=0).round().astype(int).tolist()


def test_a_timeline_has_a_column_a_slice_and_a_line_a_stream(row: Row) -> None:
    shown = page(row, notes={"drive-00000001": "off by 19 µs", "plan": "seed 17"})
    times = shown.shapes("div", "cell", "time")
    assert [one["title"].splitlines()[:3] for one in times] == [
        [f"drive-0000000{k}", f"{(17 + 100 * k) * MS} ns on its recording's clock", f"<|t_0.{k}s|>"]
        for k in range(3)
    ]
    bold = shown.within["b"]
    at = bold.index("time")
    names = ["left", "right", "sound", "imu", "wheel", "arm", "text"]
    assert bold[at : at + 11] == ["time", "+0.0 s", "+0.1 s", "+0.2 s", *names]
    assert shown.of_class("note") == ["off by 19 µs"]
    assert [one["title"].count("off by") for one in times] == [0, 1, 0]
    assert (shown.within["dt"], shown.within["dd"]) == (["plan"], ["seed 17"])


def test_numbers_are_drawn_as_the_row_has_them(row: Row) -> None:
    shown = page(row)
    assert len(shown.shapes("path", "m-numeric")) == 3 + 2
    assert len(shown.shapes("path", "m-action")) == 2
    (run, *_) = read_documents(row, LAYOUT)
    pieces = {name: [p for p in run.spans if p.name == name] for name in ("imu", "wheel", "arm")}
    first = pieces["imu"][0]
    assert numeric_values(row, LAYOUT, first) == pytest.approx(
        np.array([[first.start + r + c / 10 for c in range(3)] for r in range(2)])
    )
    assert numeric_values(row, LAYOUT, pieces["wheel"][2]).tolist() == [[0.5, 1.5]]
    assert numeric_values(row, LAYOUT, pieces["arm"][1]).shape == (3, 2)
    last = pieces["imu"][-1].stop - 1
    assert f"{first.start:.3g} to {last + 0.2:.3g}" in shown.everything


def test_a_number_that_is_not_there_breaks_its_line(row: Row) -> None:
    whole = page(row).shapes("path", "m-numeric")
    mask = row.value_mask.copy()
    mask[2, 0] = False
    broken = page(replace(row, value_mask=mask)).shapes("path", "m-numeric")
    # A line of six points is one stroke with a dash at its first point.
    assert [path["d"].count("M") for path in whole[:3]] == [2, 2, 2]
    assert [path["d"].count("M") for path in broken[:3]] == [4, 2, 2]
    nothing = page(replace(row, value_mask=np.zeros_like(mask))).shapes("path", "m-numeric")
    assert len(nothing) == 2


def test_texts_and_special_tokens_stand_in_reading_order(row: Row) -> None:
    shown = page(row)
    chips = [text for kind, text in shown.texts if "chip" in kind]
    order = chips[chips.index("<|bos|>") :]
    assert order[:10] == [
        *("<|bos|>", "<|video_start|>", "<|t_0.0s|>", "<|left|>", "12 patches", "<|right|>", "12 patches"),
        *("<|audio_start|>", "5 codes", "<|audio_end|>"),
    ]
    assert "… 2 more slices …" in order
    assert shown.of_class("text") == ["A text\n  of two lines", "A caption", "spoken words"]
    words = shown.everything
    assert words.index("Hello, there") < words.index("two") < words.index("three")


def test_sound_is_shown_by_its_samples_where_the_row_has_them(row: Row) -> None:
    assert page(row).shapes("polygon") == []
    (speech,) = (p for p in list(read_documents(row, LAYOUT))[-1].spans if p.modality.name == "AUDIO")
    frames = np.zeros((speech.num_positions, 320), np.float32)
    frames[3] = 0.5
    given = replace(
        row, audio_frames=frames, audio_index=np.arange(speech.start, speech.stop, dtype=np.int32)
    )
    (wave,) = page(given).shapes("polygon")
    points = [tuple(map(float, point.split(","))) for point in wave["points"].split()]
    assert len(points) == 2 * speech.num_positions
    assert points[3] == (3.5, 0.0)
    assert points[4] == (4.5, 1.0)
    assert len(page(row).shapes("svg", "codes")) == 4


def test_the_strip_says_where_the_next_place_is_predicted(row: Row) -> None:
    shown = page(row)
    strips = [text for _, text in shown.texts if "predict the next one" in text]
    places = np.flatnonzero(row.labels != IGNORE_INDEX)
    counts = [len(places)] + [
        int(((places >= start) & (places < stop)).sum())
        for start, stop in zip(row.cu_seqlens[:-1], row.cu_seqlens[1:], strict=True)
    ]
    assert [int(text.split(" of ")[0].replace(",", "")) for text in strips] == counts
    drawn = sum(float(one["width"]) for one in shown.shapes("rect", "predicted"))
    assert drawn == 2 * len(places)


@pytest.mark.parametrize("images", [True, False])
def test_the_attention_is_that_of_the_blocks_and_is_checked(row: Row, images: bool) -> None:
    shown = page(row, images=images)
    spans = row.image_spans if images else None
    index = build_block_index(row.cu_seqlens, row.seq_len, block_size=128, image_spans=spans)
    for kind, name in ((FULL, "full"), (PARTIAL, "partial")):
        area = sum(float(one["width"]) * float(one["height"]) for one in shown.shapes("rect", name))
        assert area == (index.kinds() == kind).sum() * 128**2
    assert len(shown.shapes("rect", "document")) == 4
    assert len(shown.shapes("circle", "right")) > 10
    assert shown.shapes("circle", "wrong") == []
    assert re.search(r"\d+ places checked: all right", shown.everything)
    assert ("later, inside one image" in shown.everything) == images


def test_no_text_becomes_a_tag() -> None:
    made = (
        RowFactory(LAYOUT, 256)
        .run([full_slice([HOSTILE])], name=HOSTILE)
        .alone(TextMetadata(HOSTILE), key=HOSTILE)
    )
    shown = page(made.row(), title=HOSTILE, notes={HOSTILE: HOSTILE, "plan": HOSTILE})
    assert {name for name, _ in shown.elements}.isdisjoint({"script"})
    assert shown.everything.count(HOSTILE) >= 6
    assert "texts & more" in shown.everything


def test_pairs_and_unreadable_samples_are_said_to_be_that() -> None:
    made = RowFactory(LAYOUT, 256, pairs=[(0, 1)]).run([SliceMetadata(cameras=(("left", 24, 32),))])
    made.alone(TextMetadata("its text"), key="t-1").alone(
        TextMetadata("five or more tokens of text"), key="t-2", valid=False
    )
    shown = page(made.row())
    assert "pair: the media of document 1" in shown.everything
    assert "pair: the text of document 0" in shown.everything
    assert len(shown.of_class("chip", "bad")) == 1
    assert len(shown.shapes("rect", "unreadable")) == 1
    assert [text for text in shown.of_class("chip") if text.startswith("<|pad|> × ")]
    assert "five" not in shown.everything


def test_a_row_of_many_texts_opens_the_first_of_them() -> None:
    made = RowFactory(LAYOUT, 2048)
    for number in range(40):
        made.alone(TextMetadata(f"text number {number}"), key=f"t-{number}")
    shown = page(made.row())
    opened = ["open" in one for one in shown.shapes("details")]
    assert opened == [True] * 12 + [False] * 28


words = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12)
slices = st.builds(
    SliceMetadata,
    cameras=st.sampled_from(
        [(), (("left", 24, 32),), (("right", 40, 8, 2),), (("left", 9, 90), ("right", 24, 32))]
    ),
    audio=st.sampled_from([(), (("mic", 700, 16_000),), (("a", 320, 16_000), ("b", 900, 16_000))]),
    numeric=st.sampled_from(
        [(), (("imu", 2),), (("arm", 1), ("wheel", 2)), (("imu", 1), ("wheel", 1), ("arm", 4))]
    ),
    text=st.lists(words, max_size=2).map(tuple),
)
samples = st.one_of(
    st.lists(slices, min_size=1, max_size=4),
    words.map(TextMetadata),
    st.builds(ImageTextMetadata, st.integers(1, 60), st.integers(1, 60), words),
    st.builds(SpeechMetadata, st.integers(1, 4000), st.just(16_000), words),
)


@settings(max_examples=30)
@given(st.lists(st.tuples(samples, st.booleans()), max_size=5))
def test_any_row_becomes_a_whole_page(
    contents: list[tuple[list[SliceMetadata] | SampleMetadata, bool]],
) -> None:
    made = RowFactory(LAYOUT, 4096)
    for number, (content, valid) in enumerate(contents):
        if isinstance(content, list):
            made.run(content, name=f"run{number}")
        else:
            made.alone(content, key=f"sample-{number}", valid=valid)
    row = made.row()
    shown = page(row)
    assert len(shown.shapes("details")) == len(contents)
    assert len(shown.shapes("img")) == len(row.image_spans)
    assert "wrong" not in {word for kind, _ in shown.texts for word in kind.split()}
