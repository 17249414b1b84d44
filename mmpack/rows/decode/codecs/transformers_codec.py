"""Neural audio codecs in a local folder that `transformers` saved: EnCodec and Mimi."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import ConfigError, MissingDependencyError
from mmpack.layout import AudioLayout
from mmpack.rows.decode.audio import resample, split_frames
from mmpack.serialisation import JSON_ERRORS, from_json

_MODELS = {"encodec": "EncodecModel", "mimi": "MimiModel"}
_MAX_CONFIG_BYTES = 4 << 20


def open_transformers_codec(layout: AudioLayout, folder: str) -> TransformersCodec:
    """Opens the codec in `folder`, see :class:`TransformersCodec`. Raises ConfigError if `folder` is empty."""
    if not folder:
        raise ConfigError(
            f"the layout's codec '{layout.codec}' is not built in",
            where="rows.codec",
            hint="Set rows.codec to the folder of the codec's config.json and model.safetensors.",
        )
    return TransformersCodec(layout, Path(folder))


class TransformersCodec:
    """EnCodec or Mimi for mono audio on the CPU, with the first `layout.codebooks` codebooks of the model.

    Nothing is downloaded, no code from the folder is executed, and weights are read only from safetensors. On one
    machine equal audio gives equal codes; another version of torch or another processor may round a frame to a
    neighbouring code.

    Args:
        layout: parameters that the model must have.
        folder: folder with config.json and model.safetensors.

    Raises:
        ConfigError: the folder has no such model, or the model's rate, hop, codebooks or channels differ from the
            layout.
        MissingDependencyError: `transformers` or torch is not installed.
    """

    def __init__(self, layout: AudioLayout, folder: Path) -> None:
        model_type = _read_model_type(folder)
        try:
            import torch
            import transformers
        except ImportError:
            raise MissingDependencyError(
                "neural codecs need the packages transformers and torch",
                where="rows.codec",
                hint="Run: pip install transformers torch",
            ) from None
        self._torch = torch
        self._layout = layout
        try:
            model, loading_info = getattr(transformers, _MODELS[model_type]).from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except Exception as error:
            # A damaged file makes transformers, safetensors or torch raise errors of many classes.
            raise ConfigError(f"the codec cannot be loaded ({_one_line(error)})", where=str(folder)) from None
        missing = loading_info["missing_keys"]
        if missing:
            # transformers initialises missing weights randomly, so the codes would be random too.
            raise ConfigError(
                f"the codec's weights lack {len(missing)} tensors, for example '{min(missing)}'",
                where=str(folder),
                hint="Copy the folder of the codec again.",
            )
        self._model: Any = model.eval().requires_grad_(False)
        self._options = _check_codec(model, model_type, layout, folder)

    def encode(self, samples: NDArray[np.float32], rate_hz: int) -> NDArray[np.int64]:
        """Implements :meth:`AudioCodec.encode`."""
        layout = self._layout
        frames = split_frames(resample(samples, rate_hz, layout.sample_rate_hz), layout.hop)
        if not len(frames):
            return np.empty((0, layout.codebooks), np.int64)
        with self._torch.inference_mode():
            audio = self._torch.from_numpy(np.ascontiguousarray(frames.reshape(1, 1, -1)))
            codes = self._model.encode(audio, **self._options).audio_codes
        # EnCodec has a leading axis of chunks, of size 1.
        model_codes = codes.reshape(codes.shape[-2], codes.shape[-1]).T[:, : layout.codebooks].numpy()
        return _match_frame_count(model_codes, len(frames))


def _match_frame_count(codes: NDArray[np.int64], frames: int) -> NDArray[np.int64]:
    """Returns exactly `frames` frames, as many as the layout counts.

    Models round the last frame in different ways: an extra frame is dropped, a missing one repeats the last.
    """
    if len(codes) < frames:
        codes = np.concatenate([codes, np.repeat(codes[-1:], frames - len(codes), axis=0)])
    return np.ascontiguousarray(codes[:frames])


def _read_model_type(folder: Path) -> str:
    path = folder / "config.json"
    hint = "Name the folder of an EnCodec or Mimi model that save_pretrained wrote."
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"the codec's config cannot be read ({error.strerror})", where=str(path), hint=hint
        ) from None
    try:
        settings = from_json(content[:_MAX_CONFIG_BYTES], dict[str, Any])
    except JSON_ERRORS as error:
        raise ConfigError(f"the file is not a model config ({error})", where=str(path), hint=hint) from None
    model_type = settings.get("model_type")
    if model_type not in _MODELS:
        raise ConfigError(f"model_type {model_type!r} is not a known codec", where=str(path), hint=hint)
    if not (folder / "model.safetensors").is_file():
        raise ConfigError(
            "the folder has no model.safetensors, the only weights that are read",
            where=str(folder),
            hint=hint,
        )
    return model_type


def _check_codec(model: Any, model_type: str, layout: AudioLayout, folder: Path) -> dict[str, Any]:
    """Checks the parameters of a model and returns the options for its `encode`.

    Raises:
        ConfigError: the parameters of the model differ from the layout.
    """
    config = model.config
    if config.audio_channels != 1 or getattr(config, "chunk_length_s", None) is not None:
        raise ConfigError(
            f"the codec has {config.audio_channels} channels, or encodes audio in chunks",
            where=str(folder),
            hint="Use a codec for mono audio without chunks, for example encodec_24khz or mimi.",
        )
    if model_type == "encodec":
        hop, options, codebooks = config.hop_length, *_encodec_bandwidth(model, layout.codebooks)
    else:
        hop = round(config.sampling_rate / config.frame_rate)
        codebooks, options = config.num_quantizers, {"num_quantizers": layout.codebooks}
    for key, codec_value, layout_value in (
        ("sample_rate_hz", config.sampling_rate, layout.sample_rate_hz),
        ("hop", hop, layout.hop),
        ("codebook_size", config.codebook_size, layout.codebook_size),
    ):
        if codec_value != layout_value:
            raise ConfigError(
                f"the codec's {key} is {codec_value}, but the layout's is {layout_value}",
                where=str(folder),
                hint=f"Set {key} = {codec_value} in [layout.audio] and build the shards again.",
            )
    if codebooks < layout.codebooks:
        raise ConfigError(
            f"the codec has {codebooks} codebooks, but the layout needs {layout.codebooks}",
            where=str(folder),
            hint=f"Set codebooks to {codebooks} or less in [layout.audio] and build the shards again.",
        )
    return options


def _encodec_bandwidth(model: Any, codebooks: int) -> tuple[dict[str, Any], int]:
    """Returns EnCodec's option for the number of codebooks, a bandwidth in kbit/s, and how many codebooks it has.

    The bandwidth is the lowest one with enough codebooks, or the highest if none has enough.
    """
    bandwidths = sorted(model.config.target_bandwidths)
    counts = [model.quantizer.get_num_quantizers_for_bandwidth(bandwidth) for bandwidth in bandwidths]
    index = next((index for index, count in enumerate(counts) if count >= codebooks), len(bandwidths) - 1)
    return {"bandwidth": bandwidths[index]}, counts[index]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
