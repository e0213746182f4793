"""Where half the precision is worth it."""

from __future__ import annotations

import torch


def mixed(device: torch.device) -> torch.autocast:
    """Compute in bfloat16 inside of a block, where the device multiplies matrices in it.

    That is an accelerator, and a processor with AVX-512 BF16 or AMX; a processor without would be
    several times slower than in single precision. Weights and their gradients stay as they are.
    """
    able = device.type != "cpu" or any(
        torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16")
    )
    return torch.autocast(device.type, torch.bfloat16, enabled=able)
