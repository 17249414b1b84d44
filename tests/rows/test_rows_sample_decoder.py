"""One sample: what its places hold, and that nothing it says is believed unchecked."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpack import ShardSet
from mmpack.errors import ConfigError, DataError, IntegrityError, MmpackError
from mmpack.layout import NumericLayout
from mmpack.plan.plan_config import RowsConfig
from mmpack.plan.planned import PlannedSample
from mmpack.rows.decode.numeric import Normaliser, bin_indices
from mmpack.rows.sample_decoder import SampleDecoder, TokenisedSample
from mmpack.samples.npz import decode_npz, encode_npz
from tests.rows.handmade_rows import open_layout, plan_sample

KINDS = ("slice", "text", "image_text", "speech")


class Bench:
    """A build, its layout, and a reader."""

    def __init__(self, shards: ShardSet) -> None:
        self.shards, self.layout = shards, open_layout(shards)
        self.reader = SampleDecoder(self.layout, RowsConfig(audio_frames=True))
        self.normaliser = Normaliser(shards.manifest.numeric, self.layout.config.numeric)
        self.rows: list[dict[str, Any]] = shards.index.to_pylist()

    def sample(self, kind: str, at: int = 0) -> tuple[PlannedSample, dict[str, bytes]]:
        number = [number for number, row in enumerate(self.rows) if row["kind"] == kind][at]
        return plan_sample(self.rows[number], number), self.shards.read(self.rows[number])

    def outline(self, planned: PlannedSample, members: dict[str, bytes]) -> TokenisedSample:
        return self.reader.tokenise(planned, members, self.normaliser)

    def read(self, planned: PlannedSample, members: dict[str, bytes]) -> tuple[TokenisedSample, Any, Any]:
        outline = self.outline(planned, members)
        side = self.layout.config.vision.token_side
        patches = np.zeros((outline.num_patches, side, side, 3), np.uint8)
        return outline, patches, self.reader.decode(outline, patches)


@pytest.fixture(scope="module")
def bench(mixed_shards: ShardSet) -> Bench:
    return Bench(mixed_shards)


def described(members: dict[str, bytes]) -> dict[str, Any]:
    return json.loads(members["json"])


def with_json(members: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    return members | {"json": json.dumps(described(members) | changes).encode()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_sample_takes_the_places_of_the_index(bench: Bench, kind: str) -> None:
    count = sum(row["kind"] == kind for row in bench.rows)
    for at in range(count):
        planned, members = bench.sample(kind, at)
        outline, patches, frames = bench.read(planned, members)
        row = bench.rows[planned.number]
        assert len(outline.ids) == row["tokens"]
        assert len(patches) == row["tokens_vision"]
        assert outline.t_ns == row["t_ns"]
        assert len(frames) * bench.layout.config.audio.codebooks == row["tokens_audio"]
        modality = np.bincount(bench.layout.vocabulary.modality(outline.ids), minlength=6).tolist()
        expected = ("special", "text", "vision", "audio", "numeric", "action")
        assert modality == [row[f"tokens_{name}"] for name in expected]


def test_a_text_is_its_own_ids(bench: Bench) -> None:
    planned, members = bench.sample("text", 3)
    outline = bench.outline(planned, members)
    assert bench.layout.tokenizer.decode(outline.ids[1:-1]).encode() == members["txt"]
    wraps = [bench.layout.vocabulary.name(int(token)) for token in outline.ids[[0, -1]]]
    assert wraps == ["<|bos|>", "<|eos|>"]


def test_numbers_are_normalised_and_binned(bench: Bench) -> None:
    planned, members = bench.sample("slice", 2)
    arrays = decode_npz(members["numeric.npz"], where="")
    outline = bench.outline(planned, members)
    names = [bench.layout.config.numeric[each.stream_index].name for each in outline.numeric]
    assert names == ["imu", "action"]
    for each, name in zip(outline.numeric, names, strict=True):
        facts = bench.shards.manifest.numeric[name]
        deviation = np.where(np.array(facts["std"]) > 0, facts["std"], 1.0)
        expected = (arrays[name] - facts["mean"]) / deviation
        assert len(each.values) > (8 if name == "imu" else 0)
        assert np.allclose(each.values, expected, rtol=1e-6)
        assert each.mask.all()
        assert each.is_action == (name == "action")
    bin_ids = outline.ids[np.isin(outline.ids, np.arange(*_range(bench, "bins:can")))]
    can = next(stream for stream in bench.layout.config.numeric if stream.name == "can")
    middles = can.decode(bin_ids.reshape(-1, 2) - _range(bench, "bins:can")[0])
    assert np.abs(middles - arrays["can"]).max() <= 40 / 32 / 2


def _range(bench: Bench, name: str) -> tuple[int, int]:
    span = bench.layout.vocabulary.range(name)
    return span.start, span.stop


def test_values_that_are_not_finite_are_masked_where_they_are_vectors(bench: Bench) -> None:
    planned, members = bench.sample("slice")
    arrays = decode_npz(members["numeric.npz"], where="")
    arrays["imu"][0, 1], arrays["imu"][1, 2], arrays["imu"][2, 3] = np.nan, np.inf, 1e300
    outline = bench.outline(planned, members | {"numeric.npz": encode_npz(arrays)})
    mask = outline.numeric[0].mask
    assert np.argwhere(~mask).tolist() == [[0, 1], [1, 2], [2, 3]]
    assert (outline.numeric[0].values[~mask] == 0).all()


def test_nan_in_bins_makes_a_sample_unreadable_and_infinity_takes_the_outer_bin(bench: Bench) -> None:
    planned, members = bench.sample("slice")
    arrays = decode_npz(members["numeric.npz"], where="")
    arrays["can"][0] = np.nan
    with pytest.raises(DataError, match="NaN"):
        bench.outline(planned, members | {"numeric.npz": encode_npz(arrays)})
    stream = NumericLayout(name="can", width=2, mode="discrete", bins=8, low=0.0, high=1.0)
    assert bin_indices(stream, np.array([[-np.inf, np.inf]])).tolist() == [0, 7]


def test_a_std_of_0_counts_as_1() -> None:
    stream = NumericLayout(name="imu", width=2)
    values, mask = Normaliser({"imu": {"mean": [1.0, 2.0], "std": [0.0, 4.0]}}, (stream,))(
        stream, np.array([[3.0, 10.0]])
    )
    assert values.tolist() == [[2.0, 2.0]]
    assert mask.all()


@pytest.mark.parametrize(
    "facts", [{}, {"mean": [0.0], "std": [1.0]}, {"mean": ["a", "b"], "std": 1}, {"mean": [0, 1e400], "std": [1, 1]}]
)  # fmt: skip
def test_damaged_statistics_are_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError, match="mean and std"):
        Normaliser({"imu": facts}, (NumericLayout(name="imu", width=2),))


def test_a_slice_without_statistics_is_refused(bench: Bench) -> None:
    planned, members = bench.sample("slice")
    with pytest.raises(IntegrityError, match="no statistics"):
        bench.reader.tokenise(planned, members, Normaliser({}, bench.layout.config.numeric))


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_fit_the_index_is_refused(bench: Bench, kind: str) -> None:
    planned, members = bench.sample(kind)
    other = "text" if kind == "slice" else "slice"
    for wrong, found in (
        (replace(planned, tokens=planned.tokens + 1), members),
        (planned, with_json(members, kind=other)),
        (planned, with_json(members, version=2)),
        (planned, with_json(members, more=1)),
        (planned, members | {"json": b"{"}),
        (planned, members | {"extra.jpg": b"\xff\xd8\xff"}),
    ):
        with pytest.raises(MmpackError):
            bench.outline(wrong, found)


def test_a_slice_needs_all_its_members(bench: Bench) -> None:
    planned, members = bench.sample("slice")
    for name in members:
        with pytest.raises(MmpackError):
            bench.outline(planned, {key: data for key, data in members.items() if key != name})


def test_stand_alone_samples_of_other_writers_need_no_description(bench: Bench) -> None:
    for kind in ("text", "image_text", "speech"):
        planned, members = bench.sample(kind)
        bare = {name: data for name, data in members.items() if name != "json"}
        one, other = bench.read(planned, members), bench.read(planned, bare)
        assert np.array_equal(one[0].ids, other[0].ids)
        assert np.array_equal(one[1], other[1])


def test_a_camera_that_the_layout_lacks_is_named(bench: Bench) -> None:
    planned, members = bench.sample("slice")
    text = members["json"].replace(b"cam_front.jpg", b"cam_roof.jpg").replace(b'"cam_front"', b'"cam_roof"')
    moved = {name.replace("cam_front.jpg", "cam_roof.jpg"): data for name, data in members.items()}
    with pytest.raises(ConfigError, match="no camera 'cam_roof'"):
        bench.outline(planned, moved | {"json": text})


def test_tubelets_hold_every_frame(tubelet_shards: ShardSet) -> None:
    bench = Bench(tubelet_shards)
    longest = 0
    for at in range(len(bench.rows)):
        planned, members = bench.sample("slice", at)
        outline, patches, _ = bench.read(planned, members)
        assert [shown.num_frames for shown in outline.images] == [
            camera["frames"] for camera in bench.rows[planned.number]["cameras"]
        ]
        longest = max(longest, *(shown.num_frames for shown in outline.images))
        assert len(patches) == bench.rows[planned.number]["tokens_vision"]
        assert all(patch.any() for patch in patches)
    assert longest > 1


@given(st.data())
@settings(max_examples=120)
def test_whatever_the_members_they_are_read_or_refused(bench: Bench, data: st.DataObject) -> None:
    planned, members = bench.sample(data.draw(st.sampled_from(KINDS)))
    name = data.draw(st.sampled_from(sorted(members)))
    content = members[name]
    at = data.draw(st.integers(0, max(0, len(content) - 1)))
    damage = data.draw(st.binary(min_size=1, max_size=12))
    cut = data.draw(st.booleans())
    damaged = content[:at] + damage + (b"" if cut else content[at + len(damage) :])
    try:
        outline, _, _ = bench.read(planned, members | {name: damaged})
    except MmpackError:
        return
    assert len(outline.ids) == planned.tokens
