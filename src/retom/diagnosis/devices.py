"""Devices that torch can compute on here, and the attention kernels that each has."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from retom.evaluation.provenance import cpu_model

if TYPE_CHECKING:
    from collections.abc import Iterator

KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
"""torch's own names are longer. ``math`` is plain matrix products, and always there."""

_TOKENS, _HEAD = 128, 64


@dataclass(frozen=True, slots=True)
class Device:
    """A place to compute.

    Attributes:
        type: As torch writes it: ``cpu``, ``cuda``, ``mps``, ``xpu``.
        name: What the hardware calls itself; the type where it does not say.
        build: What torch was built for: ``CUDA 12.8``, ``ROCm 6.4``, empty for others.
        threads: That torch computes with, on a CPU; 0 elsewhere.
        kernels: Attention kernels that ran, fastest kind first; with True for those that also take
            a mask, by which merged tokens weigh as much as their members.
    """

    type: str
    name: str
    build: str
    threads: int
    kernels: dict[str, bool]


def devices() -> list[Device]:
    """The CPU and every kind of accelerator that torch can use, one entry a kind."""
    cpu = Device("cpu", cpu_model(), "", torch.get_num_threads(), kernels_of(torch.device("cpu")))
    return [cpu, *_accelerators()]


def _accelerators() -> Iterator[Device]:
    if torch.cuda.is_available():
        hip = torch.version.hip
        build = f"CUDA {torch.version.cuda}" if hip is None else f"ROCm {hip}"
        yield _device("cuda", torch.cuda.get_device_name(), build)
    if torch.backends.mps.is_available():
        yield _device("mps", "mps", "")
    if torch.xpu.is_available():
        yield _device("xpu", torch.xpu.get_device_name(), "")


def _device(kind: str, name: str, build: str) -> Device:
    return Device(kind, name, build, 0, kernels_of(torch.device(kind)))


def kernels_of(device: torch.device) -> dict[str, bool]:
    """Which kernels run attention on ``device``, and whether with a mask: each is tried.

    In float16, as on accelerators; on a CPU in float32.
    """
    found: dict[str, bool] = {}
    for name, backend in KERNELS.items():
        if _runs(backend, device, masked=False):
            found[name] = _runs(backend, device, masked=True)
    return found


def _runs(backend: SDPBackend, device: torch.device, *, masked: bool) -> bool:
    dtype = torch.float32 if device.type == "cpu" else torch.float16
    x = torch.zeros((1, 2, _TOKENS, _HEAD), dtype=dtype, device=device)
    mask = torch.zeros((1, 1, 1, _TOKENS), dtype=dtype, device=device) if masked else None
    try:
        # A kernel that cannot says why in warnings; that it did not run is all that is asked.
        with warnings.catch_warnings(), sdpa_kernel(backend):
            warnings.simplefilter("ignore")
            scaled_dot_product_attention(x, x, x, attn_mask=mask)
    except (RuntimeError, NotImplementedError):
        return False
    return True
