"""Codecs of transformers: small random models, saved and opened as real ones are."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpack.errors import ConfigError, MissingDependencyError
from mmpack.layout import AudioLayout
from mmpack.rows.decode.codecs import open_codec

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

RATE_HZ = 24_000
NUMBERS: dict[str, Any] = {
    "sample_rate_hz": RATE_HZ,
    "hop": 32,
    "codebooks": 2,
    "codebook_size": 32,
}


def save(kind: str, folder: Path) -> Path:
    """A random model of 4 codebooks of 32 codes."""
    torch.manual_seed(0)
    small = {
        "num_filters": 4,
        "hidden_size": 16,
        "upsampling_ratios": [4, 4, 2],
        "codebook_size": 32,
    }
    if kind == "encodec":
        kbps = RATE_HZ / 32 * 5 / 1000  # of one codebook
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
        # Untrained codebooks are alike; spread out, every code is used.
        for name, buffer in model.named_buffers():
            if name.endswith(("embed", "embed_sum")):
                buffer.normal_()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["encodec", "mimi"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, save(request.param, tmp_path_factory.mktemp(request.param))


def layout_of(kind: str, **other: Any) -> AudioLayout:
    return AudioLayout(codec=kind, **(NUMBERS | {"hop": 32 if kind == "encodec" else 64} | other))


def test_frames_are_as_many_as_the_layout_counts(saved: tuple[str, Path]) -> None:
    kind, folder = saved
    layout = layout_of(kind)
    codec = open_codec(layout, str(folder))
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 5000).astype(np.float32)
    for rate_hz in (16_000, RATE_HZ):
        for samples in (0, 1, 31, 32, 33, 63, 64, 65, 1000, 4999):
            codes = codec.encode(sound[:samples], rate_hz)
            assert codes.shape == (layout.num_frames(samples, rate_hz), 2)
            assert codes.dtype == np.int64
            assert ((codes >= 0) & (codes < 32)).all()


def test_codes_are_the_models_own(saved: tuple[str, Path]) -> None:
    kind, folder = saved
    sound = np.random.default_rng(1).uniform(-0.5, 0.5, 64 * 20).astype(np.float32)
    found = open_codec(layout_of(kind), str(folder)).encode(sound, RATE_HZ)
    name = "EncodecModel" if kind == "encodec" else "MimiModel"
    model = getattr(transformers, name).from_pretrained(folder).eval()
    with torch.no_grad():
        most = {"bandwidth": 15.0} if kind == "encodec" else {}
        codes = model.encode(torch.from_numpy(sound)[None, None], **most).audio_codes
    expected = codes.reshape(-1, codes.shape[-1]).numpy().T[:, :2]
    assert np.array_equal(found, expected)
    assert len(np.unique(found)) > 1


def test_numbers_that_differ_from_the_layout_are_named(saved: tuple[str, Path]) -> None:
    kind, folder = saved
    for key, value in (
        ("hop", 320),
        ("sample_rate_hz", 16_000),
        ("codebook_size", 1024),
        ("codebooks", 5),
    ):
        with pytest.raises(ConfigError, match=key):
            open_codec(layout_of(kind, **{key: value}), str(folder))


def test_what_is_no_codec_folder_is_refused(saved: tuple[str, Path], tmp_path: Path) -> None:
    kind, folder = saved
    config = json.loads((folder / "config.json").read_bytes())
    weights = (folder / "model.safetensors").read_bytes()

    def refused(name: str, settings: bytes, tensors: bytes | None) -> str:
        bad = tmp_path / name
        bad.mkdir()
        (bad / "config.json").write_bytes(settings)
        if tensors is not None:
            (bad / "model.safetensors").write_bytes(tensors)
        with pytest.raises(ConfigError) as caught:
            open_codec(layout_of(kind), str(bad))
        return str(caught.value)

    good = json.dumps(config).encode()
    assert "no model.safetensors" in refused("bare", good, None)
    assert "cannot be loaded" in refused("cut", good, weights[: len(weights) // 2])
    assert "no known codec" in refused("bert", json.dumps(config | {"model_type": "bert"}).encode(), weights)
    assert "no model's config" in refused("noise", b"{", weights)
    with pytest.raises(ConfigError, match="cannot be read"):
        open_codec(layout_of(kind), str(tmp_path / "nowhere"))


def test_weights_that_are_missing_are_not_made_up(saved: tuple[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    kind, folder = saved
    tensors = load_file(folder / "model.safetensors")
    dropped = min(name for name in tensors if name.startswith("encoder."))
    del tensors[dropped]
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="lack"):
        open_codec(layout_of(kind), str(tmp_path))


def test_layout_and_folder_belong_together(saved: tuple[str, Path]) -> None:
    kind, folder = saved
    with pytest.raises(ConfigError, match="not built in"):
        open_codec(layout_of(kind), "")
    with pytest.raises(ConfigError, match="needs no folder"):
        open_codec(AudioLayout(), str(folder))


def test_without_transformers_the_pip_line_is_named(
    saved: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, folder = saved
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match="pip install transformers"):
        open_codec(layout_of(kind), str(folder))
