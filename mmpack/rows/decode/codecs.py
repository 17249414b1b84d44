"""Neural codecs: a local folder that `transformers` saved, as an :class:`AudioCodec`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmpack.errors import ConfigError, MissingDependencyError
from mmpack.layout import AudioLayout
from mmpack.rows.decode.audio import AudioCodec, PcmFrameCodec, resample, split_frames
from mmpack.serialisation import JSON_ERRORS, from_json

BUILTIN_CODEC = "pcm-frames"
_MODELS = {"encodec": "EncodecModel", "mimi": "MimiModel"}
_MAX_CONFIG_BYTES = 4 << 20


def open_codec(layout: AudioLayout, folder: str) -> AudioCodec:
    """The codec of a layout.

    Args:
        layout: names the codec and its numbers.
        folder: of a codec that is not built in; `RowsConfig.codec`.

    Raises:
        ConfigError: the layout and the folder do not belong together, or the folder holds no codec.
        MissingDependencyError: `transformers` or torch is not installed.
    """
    if layout.codec == BUILTIN_CODEC:
        if folder:
            raise ConfigError(
                f"the layout's codec is '{BUILTIN_CODEC}', which needs no folder",
                where="rows.codec",
                hint="Leave it out, or build the shards with the codec's numbers in [layout.audio].",
            )
        return PcmFrameCodec(layout)
    if not folder:
        raise ConfigError(
            f"the layout's codec '{layout.codec}' is not built in",
            where="rows.codec",
            hint="Set it to the folder of the codec's config.json and model.safetensors.",
        )
    return TransformersCodec(layout, Path(folder))


class TransformersCodec:
    """EnCodec or Mimi, mono, on the CPU. The model's first `layout.codebooks` codebooks are used.

    Nothing is fetched, no code of the folder is run, and weights are read from safetensors alone. Codes are
    the same for the same sound on one machine; another torch or processor may round a frame to a neighbouring
    code.

    Args:
        layout: what the model's numbers have to be.
        folder: with config.json and model.safetensors.

    Raises:
        ConfigError: it is no such folder, or the model's rate, hop, codebooks or channels are not the
            layout's.
        MissingDependencyError: `transformers` or torch is not installed.
    """

    def __init__(self, layout: AudioLayout, folder: Path) -> None:
        kind = _model_type(folder)
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
            model, told = getattr(transformers, _MODELS[kind]).from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except Exception as error:  # whatever a damaged file makes transformers, safetensors or torch raise
            raise ConfigError(f"the codec cannot be loaded ({_one_line(error)})", where=str(folder)) from None
        if told["missing_keys"]:
            # They would be random, and so would the codes.
            raise ConfigError(
                f"the codec's weights lack {len(told['missing_keys'])} tensors, as '{min(told['missing_keys'])}'",
                where=str(folder),
                hint="Copy the folder again.",
            )
        self._model: Any = model.eval().requires_grad_(False)
        self._options = _check_codec(model, kind, layout, folder)

    def encode(self, samples: NDArray[np.float32], rate_hz: int) -> NDArray[np.int64]:
        """See :class:`AudioCodec`."""
        layout = self._layout
        frames = split_frames(resample(samples, rate_hz, layout.sample_rate_hz), layout.hop)
        if not len(frames):
            return np.empty((0, layout.codebooks), np.int64)
        with self._torch.inference_mode():
            sound = self._torch.from_numpy(np.ascontiguousarray(frames.reshape(1, 1, -1)))
            codes = self._model.encode(sound, **self._options).audio_codes
        # EnCodec has an axis of chunks in front, of which there is one.
        found = codes.reshape(codes.shape[-2], codes.shape[-1]).T[:, : layout.codebooks].numpy()
        return _match_frame_count(found, len(frames))


def _match_frame_count(codes: NDArray[np.int64], frames: int) -> NDArray[np.int64]:
    """As many frames as the layout counts. Models round the end their own way: a frame too many is cut, a
    missing one repeats the last.
    """
    if len(codes) < frames:
        codes = np.concatenate([codes, np.repeat(codes[-1:], frames - len(codes), axis=0)])
    return np.ascontiguousarray(codes[:frames])


def _model_type(folder: Path) -> str:
    path = folder / "config.json"
    mend = "Name the folder of an EnCodec or Mimi model that save_pretrained wrote."
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", where=str(path), hint=mend) from None
    try:
        settings = from_json(content[:_MAX_CONFIG_BYTES], dict[str, Any])
    except JSON_ERRORS as error:
        raise ConfigError(f"is no model's config ({error})", where=str(path), hint=mend) from None
    kind = settings.get("model_type")
    if kind not in _MODELS:
        raise ConfigError(f"model_type {kind!r} is no known codec", where=str(path), hint=mend)
    if not (folder / "model.safetensors").is_file():
        raise ConfigError("no model.safetensors, and no other weights are read", where=str(folder), hint=mend)
    return kind


def _check_codec(model: Any, kind: str, layout: AudioLayout, folder: Path) -> dict[str, Any]:
    """What `encode` is told beside the sound. Raises ConfigError if the model's numbers are not the
    layout's.
    """
    config = model.config
    if config.audio_channels != 1 or getattr(config, "chunk_length_s", None) is not None:
        raise ConfigError(
            f"the codec takes {config.audio_channels} channels, or chunks that overlap",
            where=str(folder),
            hint="Use one for mono sound in one piece, as encodec_24khz or mimi.",
        )
    if kind == "encodec":
        hop, options, codebooks = config.hop_length, *_encodec_bandwidth(model, layout.codebooks)
    else:
        hop = round(config.sampling_rate / config.frame_rate)
        codebooks, options = config.num_quantizers, {"num_quantizers": layout.codebooks}
    for key, theirs, mine in (
        ("sample_rate_hz", config.sampling_rate, layout.sample_rate_hz),
        ("hop", hop, layout.hop),
        ("codebook_size", config.codebook_size, layout.codebook_size),
    ):
        if theirs != mine:
            raise ConfigError(
                f"the codec's {key} is {theirs}, the layout's {mine}",
                where=str(folder),
                hint=f"Set {key} = {theirs} in [layout.audio] and build the shards again.",
            )
    if codebooks < layout.codebooks:
        raise ConfigError(
            f"the codec has {codebooks} codebooks, the layout {layout.codebooks}",
            where=str(folder),
            hint=f"Set codebooks to {codebooks} or less in [layout.audio] and build the shards again.",
        )
    return options


def _encodec_bandwidth(model: Any, codebooks: int) -> tuple[dict[str, Any], int]:
    """EnCodec is told kbit/s in place of codebooks: the least that has enough of them, or else the most."""
    known = sorted(model.config.target_bandwidths)
    counts = [model.quantizer.get_num_quantizers_for_bandwidth(each) for each in known]
    place = next((at for at, count in enumerate(counts) if count >= codebooks), len(known) - 1)
    return {"bandwidth": known[place]}, counts[place]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
