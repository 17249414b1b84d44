"""Tests of the sample decoder: the tokens of a sample, and checks of everything that its members claim."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmpack import ShardSet
from mmpack.errors import ConfigError, DataError, IntegrityError, MmpackError
from mmpack.layout import NumericLayout
from mmpack.plan.plan_config import RowsConfig
from mmpack.plan.planned_rows import PlannedSample
from mmpack.rows.decode.numeric import Normaliser, bin_indices
from mmpack.rows.sample_decoder import DecodedAudio, SampleDecoder, TokenisedSample
from mmpack.samples.description import DESCRIPTION_VERSION
from mmpack.samples.npz import decode_npz, encode_npz
from tests.examples import examples
from tests.rows.handmade_rows import open_layout, plan_sample

KINDS = ("slice", "text", "image_text", "speech")


class DecoderBench:
    """A shard set, its layout and a sample decoder."""

    def __init__(self, shards: ShardSet) -> None:
        self.shards, self.layout = shards, open_layout(shards)
        self.decoder = SampleDecoder(self.layout, RowsConfig(audio_frames=True))
        self.normaliser = Normaliser(shards.manifest.numeric, self.layout.config.numeric)
        self.rows: list[dict[str, Any]] = shards.index.to_pylist()

    def sample(self, kind: str, nth: int = 0) -> tuple[PlannedSample, dict[str, bytes]]:
        number = [number for number, row in enumerate(self.rows) if row["kind"] == kind][nth]
        return plan_sample(self.rows[number], number), self.shards.read(self.rows[number])

    def tokenise(self, planned: PlannedSample, members: dict[str, bytes]) -> TokenisedSample:
        return self.decoder.tokenise(planned, members, self.normaliser)

    def read(
        self, planned: PlannedSample, members: dict[str, bytes]
    ) -> tuple[TokenisedSample, NDArray[np.uint8], DecodedAudio]:
        tokenised = self.tokenise(planned, members)
        side = self.layout.config.vision.token_side
        patches = np.zeros((tokenised.num_patches, side, side, 3), np.uint8)
        return tokenised, patches, self.decoder.decode(tokenised, patches)


@pytest.fixture(scope="module")
def bench(mixed_shards: ShardSet) -> DecoderBench:
    return DecoderBench(mixed_shards)


def read_description(members: dict[str, bytes]) -> dict[str, Any]:
    return json.loads(members["json"])


def change_json(members: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    return members | {"json": json.dumps(read_description(members) | changes).encode()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_sample_has_the_token_counts_of_the_index(bench: DecoderBench, kind: str) -> None:
    count = sum(row["kind"] == kind for row in bench.rows)
    for nth in range(count):
        planned, members = bench.sample(kind, nth)
        tokenised, patches, audio = bench.read(planned, members)
        row = bench.rows[planned.number]
        assert len(tokenised.ids) == row["tokens"]
        assert len(patches) == row["tokens_vision"]
        assert tokenised.t_ns == row["t_ns"]
        assert len(audio.frames) * bench.layout.config.audio.codebooks == row["tokens_audio"]
        ids = tokenised.ids.copy()
        for pending, audio_ids in zip(tokenised.audio, audio.ids, strict=True):
            ids[pending.positions] = audio_ids
        modality = np.bincount(bench.layout.vocabulary.modality(ids), minlength=6).tolist()
        columns = ("special", "text", "vision", "audio", "numeric", "action")
        assert modality == [row[f"tokens_{name}"] for name in columns]


def test_the_ids_of_a_text_decode_to_the_text(bench: DecoderBench) -> None:
    planned, members = bench.sample("text", 3)
    tokenised = bench.tokenise(planned, members)
    assert bench.layout.tokenizer.decode(tokenised.ids[1:-1]).encode() == members["txt"]
    first_and_last = [bench.layout.vocabulary.name(int(token)) for token in tokenised.ids[[0, -1]]]
    assert first_and_last == ["<|bos|>", "<|eos|>"]


def test_numeric_values_are_normalised_or_binned(bench: DecoderBench) -> None:
    planned, members = bench.sample("slice", 2)
    arrays = decode_npz(members["numeric.npz"], where="")
    tokenised = bench.tokenise(planned, members)
    names = [bench.layout.config.numeric[part.stream_index].name for part in tokenised.numeric]
    assert names == ["imu", "action"]
    for part, name in zip(tokenised.numeric, names, strict=True):
        statistics = bench.shards.manifest.numeric[name]
        deviation = np.where(np.array(statistics["std"]) > 0, statistics["std"], 1.0)
        expected = (arrays[name] - statistics["mean"]) / deviation
        assert len(part.values) > (8 if name == "imu" else 0)
        assert np.allclose(part.values, expected, rtol=1e-6)
        assert part.mask.all()
        assert part.is_action == (name == "action")
    bin_ids = tokenised.ids[np.isin(tokenised.ids, np.arange(*_id_range(bench, "bins:can")))]
    can = next(stream for stream in bench.layout.config.numeric if stream.name == "can")
    middles = can.decode(bin_ids.reshape(-1, 2) - _id_range(bench, "bins:can")[0])
    assert np.abs(middles - arrays["can"]).max() <= 40 / 32 / 2


def _id_range(bench: DecoderBench, name: str) -> tuple[int, int]:
    span = bench.layout.vocabulary.range(name)
    return span.start, span.stop


def test_continuous_values_that_are_not_finite_are_masked(bench: DecoderBench) -> None:
    planned, members = bench.sample("slice")
    arrays = decode_npz(members["numeric.npz"], where="")
    arrays["imu"][0, 1], arrays["imu"][1, 2], arrays["imu"][2, 3] = np.nan, np.inf, 1e300
    tokenised = bench.tokenise(planned, members | {"numeric.npz": encode_npz(arrays)})
    mask = tokenised.numeric[0].mask
    assert np.argwhere(~mask).tolist() == [[0, 1], [1, 2], [2, 3]]
    assert (tokenised.numeric[0].values[~mask] == 0).all()


def test_nan_has_no_bin_and_infinity_takes_the_outer_bin(bench: DecoderBench) -> None:
    planned, members = bench.sample("slice")
    arrays = decode_npz(members["numeric.npz"], where="")
    arrays["can"][0] = np.nan
    with pytest.raises(DataError, match="NaN"):
        bench.tokenise(planned, members | {"numeric.npz": encode_npz(arrays)})
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
    "statistics", [{}, {"mean": [0.0], "std": [1.0]}, {"mean": ["a", "b"], "std": 1}, {"mean": [0, 1e400], "std": [1, 1]}]
)  # fmt: skip
def test_damaged_statistics_raise_an_error(statistics: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError, match="mean and std"):
        Normaliser({"imu": statistics}, (NumericLayout(name="imu", width=2),))


def test_a_slice_without_statistics_raises_an_error(bench: DecoderBench) -> None:
    planned, members = bench.sample("slice")
    with pytest.raises(IntegrityError, match="no statistics"):
        bench.decoder.tokenise(planned, members, Normaliser({}, bench.layout.config.numeric))


@pytest.mark.parametrize("kind", KINDS)
def test_members_that_differ_from_the_index_raise_an_error(bench: DecoderBench, kind: str) -> None:
    planned, members = bench.sample(kind)
    other = "text" if kind == "slice" else "slice"
    for wrong_sample, wrong_members in (
        (replace(planned, tokens=planned.tokens + 1), members),
        (planned, change_json(members, kind=other)),
        (planned, change_json(members, version=DESCRIPTION_VERSION - 1)),
        (planned, change_json(members, more=1)),
        (planned, members | {"json": b"{"}),
        (planned, members | {"extra.jpg": b"\xff\xd8\xff"}),
    ):
        with pytest.raises(MmpackError):
            bench.tokenise(wrong_sample, wrong_members)


def test_a_missing_member_of_a_slice_raises_an_error(bench: DecoderBench) -> None:
    planned, members = bench.sample("slice")
    for name in members:
        with pytest.raises(MmpackError):
            bench.tokenise(planned, {key: data for key, data in members.items() if key != name})


def test_stand_alone_samples_need_no_json_member(bench: DecoderBench) -> None:
    for kind in ("text", "image_text", "speech"):
        planned, members = bench.sample(kind)
        without_json = {name: data for name, data in members.items() if name != "json"}
        one, other = bench.read(planned, members), bench.read(planned, without_json)
        assert np.array_equal(one[0].ids, other[0].ids)
        assert np.array_equal(one[1], other[1])
        assert [ids.tolist() for ids in one[2].ids] == [ids.tolist() for ids in other[2].ids]


def test_a_camera_that_is_not_in_the_layout_is_named(bench: DecoderBench) -> None:
    planned, members = bench.sample("slice")
    text = members["json"].replace(b"cam_front.jpg", b"cam_roof.jpg").replace(b'"cam_front"', b'"cam_roof"')
    renamed = {name.replace("cam_front.jpg", "cam_roof.jpg"): data for name, data in members.items()}
    with pytest.raises(ConfigError, match="no camera 'cam_roof'"):
        bench.tokenise(planned, renamed | {"json": text})


def test_tubelets_have_every_frame(tubelet_shards: ShardSet) -> None:
    bench = DecoderBench(tubelet_shards)
    max_frames = 0
    for nth in range(len(bench.rows)):
        planned, members = bench.sample("slice", nth)
        tokenised, patches, _ = bench.read(planned, members)
        assert [image.num_frames for image in tokenised.images] == [
            camera["frames"] for camera in bench.rows[planned.number]["cameras"]
        ]
        max_frames = max(max_frames, *(image.num_frames for image in tokenised.images))
        assert len(patches) == bench.rows[planned.number]["tokens_vision"]
        assert all(patch.any() for patch in patches)
    assert max_frames > 1


@given(st.data())
@settings(max_examples=examples(120))
def test_damaged_members_are_read_or_raise_a_mmpack_error(bench: DecoderBench, data: st.DataObject) -> None:
    planned, members = bench.sample(data.draw(st.sampled_from(KINDS)))
    name = data.draw(st.sampled_from(sorted(members)))
    content = members[name]
    at = data.draw(st.integers(0, max(0, len(content) - 1)))
    damage = data.draw(st.binary(min_size=1, max_size=12))
    is_cut = data.draw(st.booleans())
    damaged = content[:at] + damage + (b"" if is_cut else content[at + len(damage) :])
    try:
        tokenised, _, _ = bench.read(planned, members | {name: damaged})
    except MmpackError:
        return
    assert len(tokenised.ids) == planned.tokens
