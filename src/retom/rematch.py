"""A second look once it is known who stays: a token joins the most similar kept one beside it.

Representatives are elected before tokens are chosen to go, but other tokens stay as well: at ratio
0.5 and windows of 2x2 they are half of those kept. SiTo (Zhang et al. 2025) recovers a pruned token
from the most similar kept token anywhere, by N x N products; beside a token there are eight at
most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

from retom.representative import at_length_one

if TYPE_CHECKING:
    from torch import Tensor

    from retom.grid import Grid

BESIDE = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""Rows down and columns right of the eight tokens beside one, in raster order."""


def most_similar_kept(
    x: Tensor, removed: Tensor, target: Tensor, grid: Grid, barred: Tensor | None
) -> Tensor:
    """Redirect removed tokens to a more similar kept token beside them.

    Nine dot products a token, O(N C).

    Args:
        x: Tokens, any float dtype, (B, N, C).
        removed: Tokens that go, int64 (B, R).
        target: The kept token that each would join, int64 (B, N).
        grid: Height and width of the tokens.
        barred: Tokens that may not be joined, bool (N,); None for none.

    Returns:
        The token that each removed token joins now, int64 (B, N): that of ``target`` or one of the
        eight around it that is kept and more similar, the first in raster order at a tie.
    """
    batch, num_tokens, _ = x.shape
    unit = at_length_one(x)
    token = torch.arange(num_tokens, device=x.device).expand(batch, -1)
    goes = torch.zeros((batch, num_tokens), dtype=torch.bool, device=x.device)
    goes = goes.scatter(1, removed, value=True)
    may_be_joined = ~goes if barred is None else ~goes & ~barred
    # What a kept token would join is not read; it may be one that goes, which is no harm.
    item = torch.arange(batch, device=x.device)[:, None] * num_tokens
    joined = unit.flatten(0, 1).index_select(0, (target + item).reshape(-1))
    best = (unit * joined.reshape(unit.shape)).sum(dim=-1)

    # A border of one token that is kept nowhere makes all eight directions alike.
    size = (batch, grid.height, grid.width)
    tokens = pad(unit.reshape(*size, -1), (0, 0, 1, 1, 1, 1))
    places = pad(may_be_joined.reshape(size), (1, 1, 1, 1), value=False)
    for down, right in BESIDE:
        rows = slice(1 + down, 1 + down + grid.height)
        columns = slice(1 + right, 1 + right + grid.width)
        similarity = (unit * tokens[:, rows, columns].flatten(1, 2)).sum(dim=-1)
        closer = places[:, rows, columns].flatten(1, 2) & (similarity > best)
        best = torch.where(closer, similarity, best)
        target = torch.where(closer, token + down * grid.width + right, target)
    return target
