"""HTML page of a row: it shows the arrays of the row, is self-contained, and escapes all text."""

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

from mmpack.layout import SampleMetadata, SliceMetadata, StandAloneMetadata
from mmpack.masks import build_block_index
from mmpack.masks.blocks import FULL, PARTIAL
from mmpack.rows.row import IGNORE_INDEX, Row
from mmpack.show.row_page import row_html
from mmpack.show.row_page.row_content import numeric_values, read_documents
from tests.examples import examples
from tests.show.handmade_pages import MS, RowFactory, full_slice, make_layout

LAYOUT = make_layout()
NAMES = ("drive", "texts & more")
HOSTILE = "</span><script>alert(1)</script>\"'&amp; <b>"


class Page(HTMLParser):
    """A parsed page. The parser asserts that every opened tag is closed, in the correct order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open_tags: list[tuple[str, dict[str, str]]] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.within: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert not self.open_tags

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = (tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in ("img", "meta"):
            self.open_tags.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open_tags[-1][1].get("class", "") if self.open_tags else "", data))
            self.within.setdefault(self.open_tags[-1][0] if self.open_tags else "", []).append(data)

    def texts_of_class(self, *words: str) -> list[str]:
        return [text for kind, text in self.texts if set(words) <= set(kind.split())]

    def elements_of_class(self, tag: str, *words: str) -> list[dict[str, str]]:
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and set(words) <= set(attributes.get("class", "").split())
        ]

    @property
    def full_text(self) -> str:
        return "\n".join(text for _, text in self.texts)


def page(row: Row, *, title: str = "Row 7", notes: dict[str, str] | None = None, images: bool = True) -> Page:
    return Page(
        row_html(
            row, LAYOUT, title=title, notes=notes or {}, dataset_names=NAMES, bidirectional_images=images
        )
    )


@pytest.fixture(scope="module")
def row() -> Row:
    factory = RowFactory(LAYOUT, 512).add_run(
        [full_slice(["Hello, there"]), full_slice(), full_slice(["two", "three"])], t_ns=17 * MS
    )
    factory.add_stand_alone(StandAloneMetadata("A text\n  of two lines"), key="texts-1").add_stand_alone(
        StandAloneMetadata("A caption", images=((24, 32),)), key="c-3"
    )
    return factory.add_stand_alone(
        StandAloneMetadata("spoken words", audio=((16_000, 16_000),)), key="speech-3"
    ).build_row()


def decoded_images(shown: Page) -> Iterator[np.ndarray]:
    for image in shown.elements_of_class("img"):
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


def test_images_are_assembled_from_their_patches(row: Row) -> None:
    images = list(decoded_images(page(row)))
    colours = [(200, 30, 30), (30, 160, 40)] * 3 + [(40, 60, 200)]
    by_camera = [colours[0]] * 3 + [colours[1]] * 3 + [colours[6]]
    assert len(images) == len(row.image_spans) == 7
    for pixels, colour in zip(images, by_camera, strict=True):
        assert pixels.shape == (24, 32, 3)
        assert pixels[:6, :6].min() > 240
        for rows, cols in ((slice(0, 8), slice(10, 32)), (slice(10, 24), slice(0, 32))):
            assert np.abs(pixels[rows, cols].astype(int).mean(axis=(0, 1)) - colour).max() < 12


def test_large_images_are_downscaled() -> None:
    from mmpack.show.row_page.media import downscale

    pixels = np.arange(64 * 96 * 3, dtype=np.uint32).reshape(64, 96, 3).astype(np.uint8)
    small = downscale(pixels, 30)
    assert small.shape == (21, 32, 3)
    assert small[2, 5].tolist() == pixels[6:9, 15:18].reshape(9, 3).mean(axis=0).round().astype(int).tolist()


def test_a_timeline_has_a_column_per_slice_and_a_line_per_stream(row: Row) -> None:
    shown = page(row, notes={"drive-00000001": "residual 19 µs", "plan": "seed 17"})
    times = shown.elements_of_class("div", "cell", "time")
    assert [element["title"].splitlines()[:3] for element in times] == [
        [f"drive-0000000{k}", f"{(17 + 100 * k) * MS} ns on the clock of its recording", f"<|t_0.{k}s|>"]
        for k in range(3)
    ]
    bold = shown.within["b"]
    first = bold.index("time")
    names = ["left", "right", "audio", "imu", "wheel", "arm", "text"]
    assert bold[first : first + 11] == ["time", "+0.0 s", "+0.1 s", "+0.2 s", *names]
    assert shown.texts_of_class("note") == ["residual 19 µs"]
    assert [element["title"].count("residual") for element in times] == [0, 1, 0]
    assert (shown.within["dt"], shown.within["dd"]) == (["plan"], ["seed 17"])


def test_numeric_lines_show_the_values_of_the_row(row: Row) -> None:
    shown = page(row)
    assert len(shown.elements_of_class("path", "m-numeric")) == 3 + 2
    assert len(shown.elements_of_class("path", "m-action")) == 2
    (run, *_) = read_documents(row, LAYOUT)
    spans = {name: [span for span in run.spans if span.name == name] for name in ("imu", "wheel", "arm")}
    first = spans["imu"][0]
    assert numeric_values(row, LAYOUT, first) == pytest.approx(
        np.array([[first.start + r + c / 10 for c in range(3)] for r in range(2)])
    )
    assert numeric_values(row, LAYOUT, spans["wheel"][2]).tolist() == [[0.5, 1.5]]
    assert numeric_values(row, LAYOUT, spans["arm"][1]).shape == (3, 2)
    last = spans["imu"][-1].stop - 1
    assert f"{first.start:.3g} to {last + 0.2:.3g}" in shown.full_text


def test_a_missing_value_interrupts_its_line(row: Row) -> None:
    complete = page(row).elements_of_class("path", "m-numeric")
    mask = row.value_mask.copy()
    mask[2, 0] = False
    broken = page(replace(row, value_mask=mask)).elements_of_class("path", "m-numeric")
    # A line of six points has one part, which starts with a dash at its first point: two moves.
    assert [path["d"].count("M") for path in complete[:3]] == [2, 2, 2]
    assert [path["d"].count("M") for path in broken[:3]] == [4, 2, 2]
    without_values = page(replace(row, value_mask=np.zeros_like(mask))).elements_of_class("path", "m-numeric")
    assert len(without_values) == 2


def test_texts_and_special_tokens_are_in_reading_order(row: Row) -> None:
    shown = page(row)
    chips = [text for kind, text in shown.texts if "chip" in kind]
    order = chips[chips.index("<|bos|>") :]
    assert order[:10] == [
        *("<|bos|>", "<|video_start|>", "<|t_0.0s|>", "<|left|>", "12 patches", "<|right|>", "12 patches"),
        *("<|audio_start|>", "5 codes", "<|audio_end|>"),
    ]
    assert "… 2 more slices …" in order
    assert shown.texts_of_class("text") == ["A text\n  of two lines", "A caption", "spoken words"]
    text = shown.full_text
    assert text.index("Hello, there") < text.index("two") < text.index("three")


def test_audio_has_a_waveform_if_the_row_has_audio_samples(row: Row) -> None:
    assert page(row).elements_of_class("polygon") == []
    (speech,) = (
        span for span in list(read_documents(row, LAYOUT))[-1].spans if span.modality.name == "AUDIO"
    )
    frames = np.zeros((speech.num_positions, 320), np.float32)
    frames[3] = 0.5
    with_samples = replace(
        row, audio_frames=frames, audio_index=np.arange(speech.start, speech.stop, dtype=np.int32)
    )
    (wave,) = page(with_samples).elements_of_class("polygon")
    points = [tuple(map(float, point.split(","))) for point in wave["points"].split()]
    assert len(points) == 2 * speech.num_positions
    assert points[3] == (3.5, 0.0)
    assert points[4] == (4.5, 1.0)
    assert len(page(row).elements_of_class("svg", "codes")) == 4


def test_strips_count_the_positions_that_predict_the_next_token(row: Row) -> None:
    shown = page(row)
    strips = [text for _, text in shown.texts if "predict the next token" in text]
    positions = np.flatnonzero(row.labels != IGNORE_INDEX)
    counts = [len(positions)] + [
        int(((positions >= start) & (positions < stop)).sum())
        for start, stop in zip(row.cu_seqlens[:-1], row.cu_seqlens[1:], strict=True)
    ]
    assert [int(text.split(" of ")[0].replace(",", "")) for text in strips] == counts
    total_width = sum(float(element["width"]) for element in shown.elements_of_class("rect", "predicted"))
    assert total_width == 2 * len(positions)


@pytest.mark.parametrize("images", [True, False])
def test_the_attention_mask_matches_the_block_index(row: Row, images: bool) -> None:
    shown = page(row, images=images)
    spans = row.image_spans if images else None
    index = build_block_index(row.cu_seqlens, row.seq_len, block_size=128, image_spans=spans)
    for kind, name in ((FULL, "full"), (PARTIAL, "partial")):
        area = sum(
            float(element["width"]) * float(element["height"])
            for element in shown.elements_of_class("rect", name)
        )
        assert area == (index.kinds() == kind).sum() * 128**2
    assert len(shown.elements_of_class("rect", "document")) == 4
    assert len(shown.elements_of_class("circle", "right")) > 10
    assert shown.elements_of_class("circle", "wrong") == []
    assert re.search(r"\d+ mask entries checked: all correct", shown.full_text)
    assert ("later, inside one image" in shown.full_text) == images


def test_all_text_is_escaped() -> None:
    factory = (
        RowFactory(LAYOUT, 256)
        .add_run([full_slice([HOSTILE])], name=HOSTILE)
        .add_stand_alone(StandAloneMetadata(HOSTILE), key=HOSTILE)
    )
    shown = page(factory.build_row(), title=HOSTILE, notes={HOSTILE: HOSTILE, "plan": HOSTILE})
    assert {name for name, _ in shown.elements}.isdisjoint({"script"})
    assert shown.full_text.count(HOSTILE) >= 6
    assert "texts & more" in shown.full_text


def test_pairs_and_unreadable_samples_are_labelled() -> None:
    factory = RowFactory(LAYOUT, 256, pairs=[(0, 1)]).add_run([SliceMetadata(cameras=(("left", 24, 32),))])
    factory.add_stand_alone(StandAloneMetadata("its text"), key="t-1").add_stand_alone(
        StandAloneMetadata("five or more tokens of text"), key="t-2", is_valid=False
    )
    shown = page(factory.build_row())
    assert "pair: the media of document 1" in shown.full_text
    assert "pair: the text of document 0" in shown.full_text
    assert len(shown.texts_of_class("chip", "bad")) == 1
    assert len(shown.elements_of_class("rect", "unreadable")) == 1
    assert [text for text in shown.texts_of_class("chip") if text.startswith("<|pad|> × ")]
    assert "five" not in shown.full_text


def test_only_the_first_stand_alone_samples_are_open() -> None:
    factory = RowFactory(LAYOUT, 2048)
    for index in range(40):
        factory.add_stand_alone(StandAloneMetadata(f"text number {index}"), key=f"t-{index}")
    shown = page(factory.build_row())
    is_open = ["open" in element for element in shown.elements_of_class("details")]
    assert is_open == [True] * 12 + [False] * 28


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
    words.map(StandAloneMetadata),
    st.builds(
        lambda height, width, text: StandAloneMetadata(text, images=((height, width),)),
        st.integers(1, 60),
        st.integers(1, 60),
        words,
    ),
    st.builds(
        lambda samples, text: StandAloneMetadata(text, audio=((samples, 16_000),)),
        st.integers(1, 4000),
        words,
    ),
)


@settings(max_examples=examples(30))
@given(st.lists(st.tuples(samples, st.booleans()), max_size=5))
def test_any_row_renders_to_a_complete_page(
    contents: list[tuple[list[SliceMetadata] | SampleMetadata, bool]],
) -> None:
    factory = RowFactory(LAYOUT, 4096)
    for index, (content, is_valid) in enumerate(contents):
        if isinstance(content, list):
            factory.add_run(content, name=f"run{index}")
        else:
            factory.add_stand_alone(content, key=f"sample-{index}", is_valid=is_valid)
    row = factory.build_row()
    shown = page(row)
    assert len(shown.elements_of_class("details")) == len(contents)
    assert len(shown.elements_of_class("img")) == len(row.image_spans)
    assert "wrong" not in {word for kind, _ in shown.texts for word in kind.split()}
