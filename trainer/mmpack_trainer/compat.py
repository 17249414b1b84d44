"""What torchtitan 0.3.0 needs before it can be imported, on a machine without a GPU.

Nothing else of this package imports torchtitan but :mod:`mmpack_trainer.titan`, which calls :func:`prepare` first.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from types import ModuleType
from typing import Any

import torch


@cache
def prepare() -> None:
    """Makes torchtitan importable, once: its device type and module, and its kernels without triton."""
    if not torch.cuda.is_available():
        _use_cpu()
    _import_kernels()
    utils = importlib.import_module("torchtitan.distributed.utils")
    # The default, `spmd_types`, fails on torch 2.13 ("all parameters must be DTensors").
    utils.set_spmd_backend(SPMD_BACKEND)


SPMD_BACKEND = "partial_dtensor"
"""How torchtitan describes sharded tensors: tensor and expert parallelism as DTensors, data parallelism by FSDP2."""


def _use_cpu() -> None:
    """torchtitan falls back to "cuda" where no accelerator is found, and its other modules copy what they find here."""
    utils: Any = importlib.import_module("torchtitan.tools.utils")
    utils.device_type = "cpu"
    utils.device_module = torch.cpu


def _import_kernels() -> None:
    """`minimal_async_ep.kernels` imports triton and decorates kernels with it, whether they are ever called or not.

    The stand-in is gone afterwards: torch asks for triton by importing it, and must go on finding none.
    """
    if importlib.util.find_spec("triton") is not None:
        return
    from torch.utils._triton import has_triton_package

    has_triton_package()  # cached: also what asks while the stand-in is there hears no
    stand_ins = {name: _StandIn(name) for name in ("triton", "triton.language")}
    sys.modules.update(stand_ins)
    try:
        importlib.import_module("torchtitan.distributed.minimal_async_ep.kernels")
    finally:
        for name in stand_ins:
            del sys.modules[name]


class _StandIn(ModuleType):
    """A module in which every name is there, and which gives back a function that it decorates."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return args[0] if args and callable(args[0]) and not isinstance(args[0], _StandIn) else self
