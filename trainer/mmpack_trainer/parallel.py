"""Processes, devices and meshes; and the model spread over them."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule

from mmpack_trainer.config.schema import ComputeConfig, ParallelConfig
from mmpack_trainer.model.attention import DocumentAttention
from mmpack_trainer.model.decoder import DecoderBlock, MultimodalDecoder
from mmpack_trainer.model.float8 import use_float8
from mmpack_trainer.titan import SPMD_BACKEND, FullAC, ParallelDims, SelectiveAC, apply_fsdp_to_decoder, fill

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class World:
    """All processes of the run.

    Attributes:
        dims: their meshes.
        device: of this process.
    """

    dims: ParallelDims
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process speaks for all."""
        return dist.get_rank() == 0

    @property
    def data_rank(self) -> int:
        """Among the data-parallel ranks; tensor-parallel peers have the same."""
        mesh = self._batch
        return mesh.get_local_rank() if mesh is not None else 0

    @property
    def data_ranks(self) -> int:
        """Data-parallel ranks."""
        return self.dims.dp_replicate * self.dims.dp_shard

    @property
    def _batch(self) -> DeviceMesh | None:
        return self.dims.get_optional_mesh("batch")

    def add(self, tensor: Tensor) -> Tensor:
        """The sum over data-parallel ranks; no gradient."""
        total = tensor.detach().clone()
        if self._batch is not None:
            dist.all_reduce(total, group=self._batch.get_group())
        return total

    def gather(self, tensor: Tensor, sizes: list[int]) -> Tensor:
        """Every data-parallel rank's part one behind the other along the first axis; no gradient.

        Args:
            tensor: (sizes[data_rank], ...).
            sizes: of all ranks.
        """
        if self._batch is None:
            return tensor.detach()
        longest = max(sizes)
        padded = tensor.new_zeros(longest, *tensor.shape[1:])
        padded[: len(tensor)] = tensor.detach()
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded, group=self._batch.get_group())
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def start(config: ParallelConfig) -> World:
    """Joins the processes that torchrun started, or starts alone.

    A process group that is there already is used, with meshes of its own.
    """
    device = _device()
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        if "WORLD_SIZE" in os.environ:
            dist.init_process_group(backend)
        else:
            store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
            dist.init_process_group(backend, store=store, rank=0, world_size=1)
    dims = ParallelDims(
        dp_replicate=config.replicate,
        dp_shard=-1,
        cp=1,
        tp=config.tensor,
        pp=1,
        ep=config.expert,
        world_size=dist.get_world_size(),
        spmd_backend=SPMD_BACKEND,
    )
    dims.build_mesh()
    return World(dims, device)


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def build(
    config: MultimodalDecoder.Config,
    world: World,
    compute: ComputeConfig,
    *,
    seed: int,
    emulate_fp8: bool = False,
) -> MultimodalDecoder:
    """The model on its devices, sharded, with its first values; only its own shards are ever held.

    Args:
        config: turned to float8 in place where `compute` says so.
        world: see :func:`start`.
        compute: precision and memory.
        seed: of the first values.
        emulate_fp8: see :func:`mmpack_trainer.titan.in_float8`; for tests on machines without float8.
    """
    dims = world.dims
    if compute.fp8:
        use_float8(config, emulate=emulate_fp8)
    with torch.device("meta"):
        model = config.build()
    if dims.tp_enabled or dims.ep_enabled:
        model.parallelize(dims)
    recompute = {"none": None, "selective": SelectiveAC, "full": FullAC}[compute.recompute]
    if recompute is not None:
        recompute.Config().build().apply(model)
    if compute.compile:
        _compile(model, is_tensor_parallel=dims.tp_enabled)
    _shard(model, dims, DTYPES[compute.precision])
    model.to_empty(device=world.device)
    fill(model, seed)
    return model.train()


def _shard(model: MultimodalDecoder, dims: ParallelDims, dtype: torch.dtype) -> None:
    axes = ["dp_replicate"] if dims.dp_replicate_enabled else []
    apply_fsdp_to_decoder(
        model,
        dims.get_mesh([*axes, "fsdp"]),
        param_dtype=dtype,
        reduce_dtype=torch.float32,
        pp_enabled=False,
        ep_degree=dims.ep,
        edp_mesh=dims.get_optional_mesh([*axes, "efsdp"]) if dims.ep_enabled else None,
    )
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # gloo has no reduction that also divides, and the losses are divided already.
            module.set_force_sum_reduction_for_comms(True)


def _compile(model: MultimodalDecoder, *, is_tensor_parallel: bool) -> None:
    """Whole blocks, where a compiler can follow them to the end; else what can be followed within.

    Not followed are routing and sending to experts, which would take minutes, and attention by document, whose shapes
    change with every batch. A graph never breaks off (`fullgraph`): under tensor parallelism one that did, at attention,
    gave wrong gradients. What is compiled within a block that is recomputed is recomputed as a whole.
    """
    for layer in model.layers.values():
        block = next(
            each for each in layer.modules() if isinstance(each, DecoderBlock)
        )  # recomputation wraps it
        is_followed = not any(isinstance(each, DocumentAttention) for each in block.modules())
        if is_followed and not block.moe_enabled:
            # Recomputation is compiled as well, but not with DTensors (an assertion of torch 2.13 fails).
            (block if is_tensor_parallel else layer).compile(fullgraph=True, dynamic=False)
            continue
        if is_followed:
            block.attend = torch.compile(block.attend, fullgraph=True, dynamic=False)
        dense = block.moe.shared_experts if block.moe_enabled else block.feed_forward
        if dense is not None:
            dense.compile(fullgraph=True, dynamic=False)
