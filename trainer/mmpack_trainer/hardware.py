"""What a run computes on, and how fast it can be at best."""

from __future__ import annotations

from dataclasses import dataclass

#: Dense tensor-core peaks of bf16 in TFLOP/s; the first name that is part of the device's counts. Data sheets print twice
#: as much where they mean 2:4 sparsity.
_PEAKS: tuple[tuple[str, float], ...] = (
    ("GB200", 2500.0),  # NVIDIA GB200 NVL72 data sheet, a GPU's share
    ("B200", 2250.0),  # NVIDIA HGX B200 data sheet, a GPU's share
    ("H200", 989.4),  # NVIDIA H200 data sheet
    ("H100 NVL", 835.0),  # NVIDIA H100 data sheet
    ("H100 PCIe", 756.0),  # NVIDIA H100 data sheet
    ("H100", 989.4),  # NVIDIA H100 Tensor Core GPU Architecture, SXM5
    ("A100", 312.0),  # NVIDIA A100 data sheet
    ("L40S", 362.0),  # NVIDIA L40S data sheet
    ("MI300X", 1307.4),  # AMD Instinct MI300X data sheet
)

KNOWN = tuple(name for name, _ in _PEAKS)
"""Names of those whose peaks are known."""


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator, or the CPU."""

    name: str
    """As the driver calls it; `cpu` without one."""
    capability: tuple[int, int] | None = None
    """CUDA compute capability; None on a CPU."""
    memory_bytes: int | None = None
    """Of the accelerator; None on a CPU."""

    @property
    def is_gpu(self) -> bool:
        """Whether it is an accelerator."""
        return self.capability is not None


def find_device() -> Device:
    """The first accelerator of this machine, or its CPU. Starts no process group."""
    import torch

    if not torch.cuda.is_available():
        return Device("cpu")
    facts = torch.cuda.get_device_properties(0)
    return Device(facts.name, (facts.major, facts.minor), facts.total_memory)


def peak_flops(device: Device) -> float | None:
    """Dense peak in FLOP/s of bf16 products.

    Returns:
        None on a CPU, and where no peak is known: no utilisation is better than one of another device.
    """
    if not device.is_gpu:
        return None
    return next((peak * 1e12 for name, peak in _PEAKS if name in device.name), None)
