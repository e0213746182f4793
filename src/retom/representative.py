"""Unit tokens, and the one of each window that represents it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from retom.eager import runs_on_cpu

if TYPE_CHECKING:
    from torch import Tensor

    from retom.grid import Windows

STEP = 2.0**-16
"""In which similarities count: sums of products taken in another order differ by hundredths of it,
so that what should be equal nearly always is."""


def unit_tokens(
    tokens: Tensor, windows: Windows, places: slice = slice(None), room: Tensor | None = None
) -> Tensor:
    """Tokens at length one in window order, float32 (B, n, window_area, C).

    Slots beyond a ragged edge are zero vectors, so that they add nothing to a window's sum. A token
    of length zero stays zero: its cosine similarity to anything is zero.

    Args:
        tokens: In raster order, any float dtype, (B, N, C).
        windows: The partition.
        places: Which n of its windows.
        room: Where the result may stand, float32 with at least as many elements, in one dimension;
            for why, see :func:`dot`.
    """
    if room is None or tokens.dtype == torch.float32:
        unit = windows.gather(tokens, places, room).float()
    else:
        gathered = windows.gather(tokens, places)
        unit = room[: gathered.numel()].view(gathered.shape).copy_(gathered)
    length = cast("Tensor", torch.linalg.vector_norm(unit, dim=-1, keepdim=True))
    scale = 1.0 / length.clamp_min(torch.finfo(torch.float32).tiny)
    if windows.is_ragged:
        scale = scale * windows.valid(tokens.device)[places][..., None]
    return unit.mul_(scale)


def at_length_one(tokens: Tensor) -> Tensor:
    """Tokens (..., C) at length one, float32; a token of length zero stays zero."""
    precise = tokens.float()
    length = cast("Tensor", torch.linalg.vector_norm(precise, dim=-1, keepdim=True))
    return precise / length.clamp_min(torch.finfo(torch.float32).tiny)


def batch_as_channels(tokens: Tensor) -> Tensor:
    """Tokens (B, N, C) as those of one picture, (1, N, B C), for a plan that a batch shares.

    Each token is brought to length one before, so that the cosine of two of the new tokens is the
    mean over the batch of the cosines of the old. One picture stays as it is.
    """
    batch, num_tokens, _ = tokens.shape
    if batch == 1:
        return tokens
    unit = torch.nn.functional.normalize(tokens.float(), dim=-1)
    return unit.transpose(0, 1).reshape(1, num_tokens, -1)


def most_similar_on_average(unit: Tensor, windows: Windows, eligible: Tensor | None) -> Tensor:
    """Elect in each window the token of the highest average similarity to the window's tokens.

    This is the representative of ReToM (arXiv:2507.12771). With x̂ the unit tokens of a window W of
    m, mean_k cos(x_i, x_k) = x̂_i · (Σ_k x̂_k) / m: one dot product with the window's sum decides,
    O(N C) for all windows, and counting a token's similarity to itself shifts all scores alike.
    Averages count in steps of :data:`STEP`; ties go to the lowest token index.

    Args:
        unit: From :func:`unit_tokens`, float32 (B, num_windows, window_area, C).
        windows: The partition that ``unit`` is ordered by.
        eligible: Which slots may be elected, bool (num_windows, window_area), None for all.

    Returns:
        Slot of the representative in its window, int64 (B, num_windows).
    """
    total = window_sum(unit)
    if multiplies_well(unit.device):
        rows, columns = total.flatten(0, 1)[:, None], unit.flatten(0, 1).transpose(1, 2)
        score = unit.new_empty(len(rows), 1, windows.area)
        torch.bmm(rows, columns, out=score)  # with out= in float32 under autocast too
        score = score.view(unit.shape[:3])
    else:
        score = dot(unit, total[:, :, None])
    score = score.mul_(1 / (windows.area * STEP)).round_()
    if eligible is not None:
        score = score.masked_fill(~eligible, -torch.inf)
    elected = score.argmax(dim=-1)
    if windows.area == 2 or windows.is_ragged:
        # Two tokens are as similar either way round: a tie, and not for rounding to break.
        members = windows.valid(unit.device).sum(dim=-1)
        first = first_eligible(eligible) if eligible is not None else torch.zeros_like(elected[0])
        elected = torch.where(members <= 2, first, elected)
    return elected


def multiplies_well(device: torch.device) -> bool:
    """Whether there are quick products of many small matrices here and now, in float32.

    On a CPU with MKL, eager, and where the user allows no lower precision for such products.
    """
    if not runs_on_cpu(device):
        return False
    settings = getattr(torch.backends.mkldnn, "matmul", None)  # not before torch 2.9
    if settings is None:
        precise = torch.get_float32_matmul_precision() == "highest"
    else:
        precise = settings.fp32_precision in ("none", "ieee")
    return precise and torch.backends.mkl.is_available()


def window_sum(unit: Tensor) -> Tensor:
    """Sum of the tokens of each window, (B, num_windows, window_area, C) -> (B, num_windows, C).

    Slot by slot: reducing a middle dimension in one call is an order of magnitude slower on CPU.
    """
    if unit.shape[2] == 1:
        return unit[:, :, 0]
    total = unit[:, :, 0] + unit[:, :, 1]
    for slot in range(2, unit.shape[2]):
        total += unit[:, :, slot]
    return total


def pair_cosine(unit: Tensor, members: Tensor) -> Tensor:
    """Mean cosine similarity over the pairs of each window, float32 (B, num_windows).

    For m unit tokens of sum s it is (||s||² - m) / (m (m - 1)): O(N C). A single token has no
    pair, and its figure means nothing.

    Args:
        unit: From :func:`unit_tokens`; tokens that do not take part are zero.
        members: How many take part in each window, (num_windows,).
    """
    total = window_sum(unit)
    pairs = (members * (members - 1)).clamp_min(1)
    return ((total * total).sum(dim=-1) - members) / pairs


def first_eligible(eligible: Tensor) -> Tensor:
    """The first eligible slot of each window, int64 (num_windows,); 0 where there is none."""
    return eligible.to(torch.int8).argmax(dim=-1)


def dot(x: Tensor, y: Tensor, room: Tensor | None = None) -> Tensor:
    """Dot products along the last dimension, by multiply-and-sum.

    Not a matmul: each product is then computed alike whatever the batch, and in float32 even where
    the user has allowed TF32 matmuls.

    Args:
        x: One factor, (..., C).
        y: The other, broadcast to it.
        room: Where the products may stand until they are summed, of ``x``'s shape; its content is
            lost. Fresh memory costs a processor more than the products do: each page of it is a
            fault to serve, call after call.
    """
    products = x * y if room is None else torch.mul(x, y, out=room)
    return products.sum(dim=-1)
