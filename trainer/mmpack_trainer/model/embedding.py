"""From what lies in a row to vectors: ids, image patches, continuous values."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Shard
from torch.nn import functional

from mmpack_trainer.model.inputs import Inputs
from mmpack_trainer.titan import Embedding, Linear, Module, ParallelDims, local


class MultimodalEmbedding(Module):
    """Embeds the ids of a row and puts embedded patches, values and actions in place of their stand-ins.

    Under tensor parallelism ids are cut along the vocabulary, and the products along their outputs: each rank fills
    its columns, the sum over ranks is the embedding, and it comes out cut along the sequence.

    Forward: :class:`Inputs` to (B, L, dim).
    """

    @dataclass(kw_only=True, slots=True)
    class Config(Module.Config):
        tokens: Embedding.Config
        patches: Linear.Config
        patches_out: Linear.Config | None
        """A second product, after a GELU."""
        values: Linear.Config | None
        actions: Linear.Config | None

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.tokens = config.tokens.build()
        self.patches = config.patches.build()
        self.patches_out = config.patches_out.build() if config.patches_out else None
        self.values = config.values.build() if config.values else None
        self.actions = config.actions.build() if config.actions else None
        self.dim = config.tokens.embedding_dim
        self._mesh: DeviceMesh | None = None

    def parallelize(self, parallel_dims: ParallelDims) -> None:
        self._mesh = parallel_dims.get_optional_mesh("tp")
        super().parallelize(parallel_dims)

    def forward(self, inputs: Inputs) -> Tensor:
        found = self.tokens(inputs.tokens)
        found = _put(found, inputs.patch_index, self._patches(inputs.patches))
        for linear, vectors, index in (
            (self.values, inputs.values, inputs.value_index),
            (self.actions, inputs.actions, inputs.action_index),
        ):
            if linear is not None:
                found = _put(found, index, self._columns(_product(linear, vectors)))
        if self._mesh is None:
            return found
        return DTensor.from_local(found, self._mesh, [Partial()], run_check=False).redistribute(
            placements=[Shard(1)]
        )

    def _patches(self, pixels: Tensor) -> Tensor:
        first = _product(self.patches, pixels)
        if self.patches_out is None:
            return self._columns(first)
        return functional.linear(functional.gelu(first), local(self.patches_out.weight))

    def _columns(self, part: Tensor) -> Tensor:
        """(n, dim) with this rank's columns in their place."""
        if self._mesh is None:
            return part
        size = -(-self.dim // self._mesh.size())  # DTensor's chunks
        start = self._mesh.get_local_rank() * size
        return functional.pad(part, (start, self.dim - start - part.shape[1]))


def _put(embedded: Tensor, index: Tensor, vectors: Tensor) -> Tensor:
    """(B, L, dim) with `vectors` in the flat places `index`."""
    places = embedded.shape[1]
    return embedded.index_put((index // places, index % places), vectors.type_as(embedded))


def _product(linear: Linear, vectors: Tensor) -> Tensor:
    weight = local(linear.weight)
    return functional.linear(vectors.to(weight.dtype), weight)
