"""Tests of neural codecs with small random models that are saved and opened like real ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpack.errors import ConfigError, MissingDependencyError
from mmpack.layout import AudioLayout
from mmpack.rows.decode.codecs import CODECS, open_codec
from mmpack.rows.decode.codecs.pcm_frames import PcmFrameCodec

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

RATE_HZ = 24_000
PARAMETERS: dict[str, Any] = {
    "sample_rate_hz": RATE_HZ,
    "hop": 32,
    "codebooks": 2,
    "codebook_size": 32,
}


def save_codec(model_type: str, folder: Path) -> Path:
    """Saves a random model with 4 codebooks of 32 codes."""
    torch.manual_seed(0)
    small = {
        "num_filters": 4,
        "hidden_size": 16,
        "upsampling_ratios": [4, 4, 2],
        "codebook_size": 32,
    }
    if model_type == "encodec":
        kbps = RATE_HZ / 32 * 5 / 1000  # bandwidth of one codebook
        config = transformers.EncodecConfig(
            **small, codebook_dim=16, num_lstm_layers=1, target_bandwidths=[kbps, 4 * kbps]
        )
        model = transformers.EncodecModel(config)
    else:
        config = transformers.MimiConfig(
            **small,
            codebook_dim=8,
            vector_quantization_hidden_dimension=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=8,
            intermediate_size=32,
            num_quantizers=4,
            frame_rate=RATE_HZ / 64,
            upsample_groups=16,
        )
        model = transformers.MimiModel(config)
    with torch.no_grad():
        # Untrained codebooks have equal codes; random values make every code occur.
        for name, buffer in model.named_buffers():
            if name.endswith(("embed", "embed_sum")):
                buffer.normal_()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["encodec", "mimi"])
def saved_codec(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, save_codec(request.param, tmp_path_factory.mktemp(request.param))


def make_layout(model_type: str, **other: Any) -> AudioLayout:
    defaults = PARAMETERS | {"codec": model_type, "hop": 32 if model_type == "encodec" else 64}
    return AudioLayout(**(defaults | other))


def test_the_number_of_frames_is_that_of_the_layout(saved_codec: tuple[str, Path]) -> None:
    model_type, folder = saved_codec
    layout = make_layout(model_type)
    codec = open_codec(layout, str(folder))
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, 5000).astype(np.float32)
    for rate_hz in (16_000, RATE_HZ):
        for samples in (0, 1, 31, 32, 33, 63, 64, 65, 1000, 4999):
            codes = codec.encode(audio[:samples], rate_hz)
            assert codes.shape == (layout.num_frames(samples, rate_hz), 2)
            assert codes.dtype == np.int64
            assert ((codes >= 0) & (codes < 32)).all()


def test_codes_are_those_of_the_model(saved_codec: tuple[str, Path]) -> None:
    model_type, folder = saved_codec
    audio = np.random.default_rng(1).uniform(-0.5, 0.5, 64 * 20).astype(np.float32)
    codes = open_codec(make_layout(model_type), str(folder)).encode(audio, RATE_HZ)
    name = "EncodecModel" if model_type == "encodec" else "MimiModel"
    model = getattr(transformers, name).from_pretrained(folder).eval()
    with torch.no_grad():
        options = {"bandwidth": 15.0} if model_type == "encodec" else {}
        model_codes = model.encode(torch.from_numpy(audio)[None, None], **options).audio_codes
    expected = model_codes.reshape(-1, model_codes.shape[-1]).numpy().T[:, :2]
    assert np.array_equal(codes, expected)
    assert len(np.unique(codes)) > 1


def test_parameters_that_differ_from_the_layout_are_named(saved_codec: tuple[str, Path]) -> None:
    model_type, folder = saved_codec
    for key, value in (
        ("hop", 320),
        ("sample_rate_hz", 16_000),
        ("codebook_size", 1024),
        ("codebooks", 5),
    ):
        with pytest.raises(ConfigError, match=key):
            open_codec(make_layout(model_type, **{key: value}), str(folder))


def test_an_invalid_codec_folder_raises_an_error(saved_codec: tuple[str, Path], tmp_path: Path) -> None:
    model_type, folder = saved_codec
    config = json.loads((folder / "config.json").read_bytes())
    weights = (folder / "model.safetensors").read_bytes()

    def read_error(name: str, settings: bytes, tensors: bytes | None) -> str:
        invalid = tmp_path / name
        invalid.mkdir()
        (invalid / "config.json").write_bytes(settings)
        if tensors is not None:
            (invalid / "model.safetensors").write_bytes(tensors)
        with pytest.raises(ConfigError) as caught:
            open_codec(make_layout(model_type), str(invalid))
        return str(caught.value)

    valid = json.dumps(config).encode()
    assert "no model.safetensors" in read_error("bare", valid, None)
    assert "cannot be loaded" in read_error("cut", valid, weights[: len(weights) // 2])
    assert "is not a known codec" in read_error(
        "bert", json.dumps(config | {"model_type": "bert"}).encode(), weights
    )
    assert "is not a model config" in read_error("noise", b"{", weights)
    with pytest.raises(ConfigError, match="cannot be read"):
        open_codec(make_layout(model_type), str(tmp_path / "nowhere"))


def test_missing_weights_raise_an_error(saved_codec: tuple[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model_type, folder = saved_codec
    tensors = load_file(folder / "model.safetensors")
    dropped = min(name for name in tensors if name.startswith("encoder."))
    del tensors[dropped]
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="lack"):
        open_codec(make_layout(model_type), str(tmp_path))


def test_layout_and_folder_must_match(saved_codec: tuple[str, Path]) -> None:
    model_type, folder = saved_codec
    with pytest.raises(ConfigError, match="not built in"):
        open_codec(make_layout(model_type), "")
    with pytest.raises(ConfigError, match="needs no folder"):
        open_codec(AudioLayout(), str(folder))


def test_the_name_in_the_layout_selects_the_codec(
    saved_codec: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(open_codec(AudioLayout(), ""), PcmFrameCodec)
    model_type, folder = saved_codec
    audio = np.random.default_rng(2).uniform(-0.5, 0.5, 640).astype(np.float32)
    # A name of its own stands for a model of transformers too; its type is that of the folder.
    layouts = [make_layout(model_type), make_layout(model_type, codec="voice-codec")]
    named, unnamed = (open_codec(layout, str(folder)).encode(audio, RATE_HZ) for layout in layouts)
    assert np.array_equal(named, unnamed)
    monkeypatch.setitem(CODECS, "voice-codec", lambda layout, folder: PcmFrameCodec(layout))
    assert isinstance(open_codec(layouts[1], ""), PcmFrameCodec)


def test_missing_transformers_names_the_pip_command(
    saved_codec: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model_type, folder = saved_codec
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match="pip install transformers"):
        open_codec(make_layout(model_type), str(folder))
