"""Electing representatives, and finding the representative that each token would join."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from retom.grid import Windows


def unit_tokens(tokens: Tensor, windows: Windows) -> Tensor:
    """Tokens at length one in window order, float32 (B, num_windows, window_area, C).

    Slots beyond a ragged edge are zero vectors, so that they add nothing to a window's sum. A token
    of length zero stays zero: its cosine similarity to anything is zero.
    """
    gathered = windows.gather(tokens).float()
    length = cast("Tensor", torch.linalg.vector_norm(gathered, dim=-1, keepdim=True))
    scale = 1.0 / length.clamp_min(torch.finfo(torch.float32).tiny)
    if windows.is_ragged:
        scale = scale * windows.valid(tokens.device)[..., None]
    return gathered * scale


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
    Ties go to the lowest token index.

    Args:
        unit: From :func:`unit_tokens`, float32 (B, num_windows, window_area, C).
        windows: The partition that ``unit`` is ordered by.
        eligible: Which slots may be elected, bool (num_windows, window_area), None for all.

    Returns:
        Slot of the representative in its window, int64 (B, num_windows).
    """
    # Slot by slot: reducing a middle dimension in one call is an order of magnitude slower on CPU.
    total = unit[:, :, 0]
    for slot in range(1, windows.area):
        total = total + unit[:, :, slot]
    score = _dot(unit, total[:, :, None])
    if eligible is not None:
        score = score.masked_fill(~eligible, -torch.inf)
    elected = score.argmax(dim=-1)
    if windows.area == 2 or windows.is_ragged:
        # Two tokens are as similar either way round: a tie, and not for rounding to break.
        members = windows.valid(unit.device).sum(dim=-1)
        first = first_eligible(eligible) if eligible is not None else torch.zeros_like(elected[0])
        elected = torch.where(members <= 2, first, elected)
    return elected


def first_eligible(eligible: Tensor) -> Tensor:
    """The first eligible slot of each window, int64 (num_windows,); 0 where there is none."""
    return eligible.to(torch.int8).argmax(dim=-1)


def nearest_representative(
    unit: Tensor,
    representative: Tensor,
    windows: Windows,
    reach: int,
    eligible: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Find for every token the most similar representative of the windows around its own.

    Args:
        unit: From :func:`unit_tokens`, float32 (B, num_windows, window_area, C).
        representative: Slot of each window's representative, int64 (B, num_windows).
        windows: The partition that ``unit`` is ordered by.
        reach: How many windows away a token may look: 0 its own window only, 1 the 3x3 windows
            around it, 2 the 5x5. The cost is one dot product a token for each window looked at.
        eligible: Which slots may leave or be joined, bool (num_windows, window_area), None for all.

    Returns:
        The token that represents it, int64 (B, num_windows, window_area), and the cosine similarity
        to that token, float32 of the same shape: -inf for representatives, which never leave, and
        for slots that are not eligible. Ties stay in the own window, then go to the first window in
        raster order.
    """
    batch, count, area, channels = unit.shape
    slot_index = representative[..., None, None].expand(-1, -1, 1, channels)
    vector = unit.gather(2, slot_index).squeeze(2)  # (B, num_windows, C)
    table = windows.token_index(unit.device)
    token = table.expand(batch, -1, -1).gather(2, representative[..., None]).squeeze(2)

    similarity = _dot(unit, vector[:, :, None])
    target = token[..., None].expand(batch, count, area)
    neighbours = windows.neighbours(reach, unit.device)
    closed = None if eligible is None else ~eligible.any(dim=-1)
    for ring in range(1, neighbours.shape[1]):
        window = neighbours[:, ring]
        candidate = _dot(unit, vector.index_select(1, window)[:, :, None])
        if closed is not None:
            candidate = candidate.masked_fill(closed[window][:, None], -torch.inf)
        closer = candidate > similarity
        similarity = torch.where(closer, candidate, similarity)
        target = torch.where(closer, token.index_select(1, window)[..., None], target)

    slot = torch.arange(area, device=unit.device)
    stays = slot == representative[..., None]
    if eligible is not None:
        stays = stays | ~eligible
    return target, similarity.masked_fill(stays, -torch.inf)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    """Dot products along the last dimension, by multiply-and-sum.

    Not a matmul: each product is then computed alike whatever the batch, and in float32 even where
    the user has allowed TF32 matmuls.
    """
    return (x * y).sum(dim=-1)
