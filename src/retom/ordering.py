"""Orders without ties: equal values stand in index order, so a plan is the same on every run.

A CPU's stable sort is several times slower than its other one, which has vector code. Where the
index is part of what is sorted there are no ties, and both give the same order.
"""

from __future__ import annotations

import torch
from torch import Tensor

MANY = 2048
"""From how many values on a row's quicker sort pays for the operations around it."""
_LOW = 0xFFFF_FFFF
"""The lower half of an int64, where the index stands."""


def highest_first(values: Tensor) -> Tensor:
    """Indices that sort rows from high to low, equal values in index order.

    Args:
        values: (B, M), any float dtype; what is no number comes first.

    Returns:
        Indices, int64 (B, M).
    """
    if values.dtype == torch.float64 or not _is_quicker(values):
        return torch.sort(values, dim=1, descending=True, stable=True).indices
    # Bits of floats are in the order of whole numbers once those of negative ones are flipped. The
    # sum makes one zero of both, and all that are no number get one pattern, above infinity's.
    bits = (values.float() + 0.0).view(torch.int32).masked_fill(values.isnan(), 0x7FFF_FFFF)
    ascending = bits ^ ((bits >> 31) & 0x7FFF_FFFF)
    return _indices((~ascending).long() << 32)


def lowest_first(numbers: Tensor) -> Tensor:
    """Indices that sort rows of small whole numbers from low to high, equal ones in index order.

    Args:
        numbers: int64 (B, M), from 0 to 2**31 - 1.

    Returns:
        Indices, int64 (B, M).
    """
    if not _is_quicker(numbers):
        return torch.sort(numbers, dim=1, stable=True).indices
    return _indices(numbers << 32)


def _is_quicker(values: Tensor) -> bool:
    if torch.compiler.is_compiling() or values.shape[1] < MANY:
        return False
    # Tensors without content stand for a CPU's where a model is explained.
    return values.device.type in ("cpu", "meta")


def _indices(upper: Tensor) -> Tensor:
    """Sort by the upper half of int64, then by index; return the index."""
    index = torch.arange(upper.shape[1], device=upper.device)
    return torch.sort(upper | index, dim=1).values & _LOW
