"""What `compute.fp8` needs: hardware, torchao, bf16 beside it, and sizes that its products take."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from mmpack.errors import ConfigError
from mmpack_trainer.config.schema import TrainConfig
from mmpack_trainer.hardware import Device
from mmpack_trainer.parameters import head_width

#: The first compute capability with float8 products (Ada); and what divides every size of one.
_CAPABILITY = (8, 9)
_MULTIPLE = 16


def check_fp8(config: TrainConfig, device: Device, *, seq_len: int) -> None:
    """Raises ConfigError if the run is to use float8 and cannot. `seq_len`: places of a row."""
    if not config.compute.fp8:
        return
    if device.capability is None or device.capability < _CAPABILITY:
        raise ConfigError(
            f"{device.name} has no float8 products: they need a GPU of compute capability 8.9 or later, as an L40S or H100",
            where="compute.fp8",
            hint="Set it to false.",
        )
    if find_spec("torchao") is None:
        raise ConfigError(
            "torchao is not installed", where="compute.fp8", hint="pip install 'mmpack-trainer[fp8]'"
        )
    if config.compute.precision != "bfloat16":
        raise ConfigError(
            f"float8 products give bfloat16, and the precision is {config.compute.precision}",
            where="compute.fp8",
            hint='Set compute.precision = "bfloat16".',
        )
    for name, size in _sizes(config, seq_len):
        if size % _MULTIPLE:
            raise ConfigError(
                f"{_MULTIPLE} does not divide {name} = {size}",
                where="compute.fp8",
                hint="Change it, or set fp8 to false.",
            )


def _sizes(config: TrainConfig, seq_len: int) -> Iterator[tuple[str, int]]:
    """Of the matrices on one device, by what they come from."""
    model, tensor = config.model, config.parallel.tensor
    share = f" / parallel.tensor {tensor}" if tensor > 1 else ""
    yield "model.dim", model.dim
    yield f"model.heads · head_dim{share}", model.heads * head_width(model) // tensor
    yield f"model.kv_heads · head_dim{share}", model.kv_heads * head_width(model) // tensor
    if model.moe is None or model.moe.dense_layers:
        yield f"model.hidden_dim{share}", model.hidden_dim // tensor
    if model.moe is not None:
        shared = model.moe.shared_experts * model.moe.hidden_dim // tensor
        yield f"model.moe.shared_experts · hidden_dim{share}", shared
    yield "micro_batch · max_seq_len", config.micro_batch * seq_len
